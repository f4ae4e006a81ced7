"""Connects to a port that a knock is about to open, at any address of a host (RFC 8305); joins it to standard I/O."""

import _thread
import contextlib
import os
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..errors import SendError
from .backoff import attempts
from .route import MOST_ADDRESSES, end

_DELAY = 0.25
"""Seconds until the next address is tried, too: the Connection Attempt Delay of RFC 8305 section 5."""
_BIND_ADDRESS_NO_PORT = 24
"""include/uapi/linux/in.h: choose the port at connect(), so that it need not be free for all destinations."""
_BLOCK = 65536
"""The most bytes that are copied at once."""

Address = tuple[int, str]
"""Family and address."""


class Trial(NamedTuple):
    """An address that the client tries to connect to."""

    address: Address
    source: str
    """The address that the knock left from."""
    begin: float
    """Monotonic time of the first knock, in seconds."""
    plan: Iterator[tuple[float, bool]]
    """The attempts of backoff.attempts() for the time that was left then."""


class Dialer:
    """Knocks and connects, until one attempt is established.

    A door lets in the first connection whose handshake completes at the server, and resets the others. So the client
    takes the one that is established first; epoll reports them in that order, poll does not. knock: knocks for an
    address and returns the source address, or raises SendError.
    """

    def __init__(self, addresses: list[Address], port: int, timeout: float, knock: Callable[[Address], str]) -> None:
        """Raises SendError."""
        self._waiting = addresses[:MOST_ADDRESSES]
        self._port = port
        self._timeout = timeout
        self._knock = knock
        try:
            self._poll = select.epoll()
        except OSError as error:  # too many open files
            raise SendError(f"no connection can be tried: {error.strerror}") from None
        self._pending: dict[int, socket.socket] = {}
        self._due: list[tuple[float, bool, Trial]] = []
        self._answers: Counter[str] = Counter()
        self._knocks: Counter[str] = Counter()
        self._tries = 0

    def connect(self) -> socket.socket:
        """Return the only connection that is left open, blocking. Raises SendError, which says what was tried."""
        start = time.monotonic()
        end, next_address = start + self._timeout, start
        try:
            while (now := time.monotonic()) < end:
                if self._waiting and (now >= next_address or not self._due):
                    self._begin(self._waiting.pop(0), end)
                    next_address = time.monotonic() + _DELAY
                    continue
                won = self._try_what_is_due(now) or self._answered(
                    min([end, *(at for at, _, _ in self._due), *([next_address] if self._waiting else [])]) - now
                )
                if won:
                    won.setblocking(True)
                    return won
            raise SendError(self._tried(time.monotonic() - start))
        finally:
            for one in self._pending.values():
                one.close()
            self._poll.close()

    def _begin(self, address: Address, end: float) -> None:
        """Knock for an address for the first time. Raises SendError if that fails and no other address is left."""
        try:
            source = self._knock(address)
        except SendError:
            if not self._waiting and not self._due:
                raise
            return
        self._knocks[f"{address[1]} from {source}"] += 1
        begin = time.monotonic()
        self._advance(Trial(address, source, begin, attempts(end - begin) if end > begin else iter(())))

    def _advance(self, trial: Trial) -> None:
        following = next(trial.plan, None)
        if following:
            self._due.append((trial.begin + following[0], following[1], trial))

    def _try_what_is_due(self, now: float) -> socket.socket | None:
        for entry in [one for one in self._due if one[0] <= now]:
            self._due.remove(entry)
            _, again, trial = entry
            if again:
                with contextlib.suppress(SendError):  # what is pending may still be answered
                    self._knock(trial.address)
                    self._knocks[f"{trial.address[1]} from {trial.source}"] += 1
            self._advance(trial)
            if won := self._attempt(trial):
                return won
        return None

    def _attempt(self, trial: Trial) -> socket.socket | None:
        """Start a connection, and return it if it is established at once, as on the loopback."""
        self._tries += 1
        try:
            caller = socket.socket(trial.address[0], socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:  # a kernel without this family; too many open files
            self._answers[str(error.strerror)] += 1
            return None
        try:
            if trial.address[0] == socket.AF_INET:
                caller.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            caller.bind(end(trial.source, 0))
            caller.connect(end(trial.address[1], self._port))
        except BlockingIOError:
            self._pending[caller.fileno()] = caller
            self._poll.register(caller, select.EPOLLOUT)
            return None
        except OSError as error:
            self._answers[str(error.strerror)] += 1
            caller.close()
            return None
        return caller

    def _answered(self, seconds: float) -> socket.socket | None:
        """Wait for answers to pending attempts, and return the connection that is established first."""
        for fd, _ in self._poll.poll(max(0.0, seconds)):
            self._poll.unregister(fd)
            caller = self._pending.pop(fd)
            if not (number := caller.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                return caller
            self._answers[os.strerror(number)] += 1
            caller.close()
        return None

    def _tried(self, seconds: float) -> str:
        knocks = ", ".join(f"{count} knock{'s'[: count > 1]} to {where}" for where, count in self._knocks.items())
        answers = ", ".join(f"{count} times '{text}'" for text, count in self._answers.items()) or "no answer"
        return (
            f"port {self._port} did not open in {seconds:.1f} s: {knocks or 'no knock'}; "
            f"{self._tries} attempts to connect, {answers}"
        )


def join(connection: socket.socket, source: int = 0, sink: int = 1) -> None:
    """Copy bytes from a file descriptor to a connection, and from it to another, until both ways have ended.

    The end of one way is passed on, and the other goes on. Raises SendError if the connection breaks.
    """
    done = _thread.allocate_lock()
    done.acquire()
    _thread.start_new_thread(_pass_up, (connection, source, done))
    try:
        while data := connection.recv(_BLOCK):
            view = memoryview(data)
            while view:
                view = view[os.write(sink, view) :]
    except BrokenPipeError:
        return  # nobody reads what comes any more
    except OSError as error:
        raise SendError(f"the connection broke: {error.strerror}") from None
    os.close(sink)
    done.acquire()


def _pass_up(connection: socket.socket, source: int, done: "_thread.LockType") -> None:
    """Copy from a file descriptor to the connection; end early if the connection is reset."""
    wait = select.poll()
    wait.register(source, select.POLLIN)
    wait.register(connection, 0)
    try:
        while all(fd == source for fd, _ in wait.poll()) and (data := os.read(source, _BLOCK)):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other way will say so
    finally:
        done.release()
