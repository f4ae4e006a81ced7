"""The proxy's server: accepts, reads the request, connects, relays."""

import asyncio
import contextlib
import ipaddress
import logging
import select
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from ..errors import KnockError
from . import Dialect, Login, Rejected, Target, pac, peer
from .hidden_hosts import HiddenHosts
from .http import Http
from .relay import join
from .socks import Socks

log = logging.getLogger("knockknock")

_LINGER = 1.0
"""Seconds that a refused client has to read the answer."""
_UNFINISHED = 256
"""The most clients without a whole request, or refused; one more displaces the oldest."""
_LOOK_UPS = 1024
"""The most names that are looked up at a time."""
_COMPLAINT, _GUESSERS = 60.0, 64
"""Seconds before a sentence is logged again, and users or addresses of which it is said meanwhile that they guess."""
_PENALTY = 0.25
"""Seconds that a wrong password costs the user or address that it came from, one after the other."""
_MOST_OWED = _PENALTY * _UNFINISHED
"""The most seconds owed; beyond that a client is not read. One that waits for its answers never owes as much."""
_DEAF = 1.0
"""Seconds that a client that owes more waits in vain."""


class ClientLimits(NamedTuple):
    """Limits of clients."""

    connections: int
    """At a time; one more is refused, or replaces one that was idle for long."""
    handshake: float
    """Seconds for the request."""
    idle: float = 60.0
    """Seconds after which a silent connection makes room for another."""


class Server:
    """The state that all connections share."""

    def __init__(self, doors: HiddenHosts, address: str, login: Login | None, limits: ClientLimits) -> None:
        """address: HOST:PORT at which a browser on this machine finds the proxy."""
        self._doors = doors
        self._address = address
        self._login = login
        self._limits = limits
        self._unfinished: dict[asyncio.Task[None], None] = {}
        """Clients without a whole request, the oldest first."""
        self._joined: dict[asyncio.Task[None], float] = {}
        """The time of the last bytes on each connection, by the loop's clock."""
        self._complaints: dict[str, float] = {}
        """The time at which each sentence was logged, by the loop's clock."""
        self._paid: dict[str, float] = {}
        """By user or address: the time at which all its wrong passwords are paid for, by the loop's clock."""

    def pac(self) -> str:
        """Return the present proxy auto-configuration file. Raises ProfileError."""
        return pac.write(self._doors.hosts(), self._address, self._login is not None)

    async def serve(self, listener: socket.socket) -> None:
        """Accept and serve until SIGTERM or SIGINT, then close all connections."""
        loop = asyncio.get_running_loop()
        # Looking a name up can take long. Each connection looks up one at a time, so none waits for a thread.
        threads = min(self._limits.connections, _LOOK_UPS)
        loop.set_default_executor(ThreadPoolExecutor(threads, "resolve"))
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        listener.setblocking(False)
        clients: set[asyncio.Task[None]] = set()
        accepting = loop.create_task(self._accept(listener, clients))
        await stop.wait()
        tasks = [accepting, *clients]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket, clients: set[asyncio.Task[None]]) -> None:
        loop = asyncio.get_running_loop()

        def ended(task: asyncio.Task[None]) -> None:
            clients.discard(task)
            self._unfinished.pop(task, None)
            if not task.cancelled() and (error := task.exception()):
                log.error("a connection ended by a fault in the proxy", exc_info=error)

        while True:
            try:
                client, address = await loop.sock_accept(listener)
            except OSError as error:
                # Out of descriptors or memory, or the client is gone already: no reason to stop.
                self._complain(f"a connection could not be accepted: {error.strerror}")
                await asyncio.sleep(0.1)
                continue
            if len(self._unfinished) >= _UNFINISHED:
                oldest = next(iter(self._unfinished))
                del self._unfinished[oldest]
                oldest.cancel()
                self._complain(f"{_UNFINISHED} clients have not said what they want: the one that waited longest goes")
            task = loop.create_task(self._serve(client, address))
            clients.add(task)
            self._unfinished[task] = None
            task.add_done_callback(ended)
            await asyncio.sleep(
                0
            )  # a client whose request is here already is no longer unfinished when the next one comes

    def _complain(self, sentence: str, who: str = "") -> None:
        """Log a sentence, at most once a minute. who: its subject."""
        now = asyncio.get_running_loop().time()
        self._complaints = {said: at for said, at in self._complaints.items() if now - at < _COMPLAINT}
        sentence = f"{who}{sentence}"
        if sentence not in self._complaints and not (who and len(self._complaints) >= _GUESSERS):
            self._complaints[sentence] = now
            log.warning("%s", sentence)

    async def _serve(self, client: socket.socket, address: tuple[str, int]) -> None:
        with client:
            who = f"{address[0]} port {address[1]}"
            guesser = peer.name(client) if self._login else ""
            try:
                async with asyncio.timeout(self._limits.handshake):
                    dialect, target = await self._hear(client, address[0], guesser)
            except TimeoutError:
                log.debug("%s: said nothing that could be understood within %g s", who, self._limits.handshake)
            except OSError as error:
                log.debug("%s: %s", who, error.strerror)
            except Rejected as rejected:
                log.debug("%s: %s", who, rejected)
                if rejected.guess:
                    await self._pay(guesser)
                await _tell(client, rejected.answer)
            except KnockError as error:  # the profiles cannot be listed
                log.warning("%s", error)
            else:
                log.debug("%s: wants %s", who, target)
                await self._connect(client, who, dialect, target)

    def _room(self) -> bool:
        """Return True if there is room for one more connection; a connection that was idle for long makes room."""
        if len(self._joined) < self._limits.connections:
            return True
        task, last = min(self._joined.items(), key=lambda one: one[1])
        idle = asyncio.get_running_loop().time() - last >= self._limits.idle
        if idle:
            del self._joined[task]
            task.cancel()
        what = "one that was idle for long makes room" if idle else "further ones are refused: raise --connections"
        self._complain(f"{self._limits.connections} connections are open, and {what}")
        return idle

    def _owed(self, guesser: str) -> float:
        """Return the seconds that a client still owes for wrong passwords."""
        return max(0.0, self._paid.get(guesser, 0.0) - asyncio.get_running_loop().time())

    async def _pay(self, guesser: str) -> None:
        """Charge for a wrong password, and wait until it is paid for."""
        self._complain(": a wrong name or password", guesser)
        loop, owed = asyncio.get_running_loop(), self._owed(guesser)
        if owed >= _MOST_OWED:
            await asyncio.sleep(_DEAF)
            return
        self._paid[guesser] = loop.time() + owed + _PENALTY
        loop.call_at(self._paid[guesser] + _PENALTY, self._forget, guesser)
        await asyncio.sleep(owed + _PENALTY)

    def _forget(self, guesser: str) -> None:
        if not self._owed(guesser):
            self._paid.pop(guesser, None)

    async def _hear(self, client: socket.socket, host: str, guesser: str) -> tuple[Dialect, Target]:
        """Read the client's request. Raises Rejected, OSError."""
        loop = asyncio.get_running_loop()
        dialect: Dialect | None = None
        while dialect is None or dialect.target is None:
            if not (data := await loop.sock_recv(client, 1024)):
                raise Rejected("went away before it said what it wants")
            if self._owed(guesser) >= _MOST_OWED:
                raise Rejected("too many wrong passwords: this one is not looked at", guess=True)
            if dialect is None:
                local = ipaddress.ip_address(host.partition("%")[0]).is_loopback
                dialect = Socks(self._login) if data[0] in (4, 5) else Http(self._login, self.pac if local else None)
            await loop.sock_sendall(client, dialect.hear(data))
        return dialect, dialect.target

    async def _connect(self, client: socket.socket, who: str, dialect: Dialect, target: Target) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task
        if not self._room():
            full = KnockError(f"{self._limits.connections} connections are open, and that is the limit")
            await _tell(client, dialect.failed(full))
            return
        self._unfinished.pop(task, None)
        self._joined[task] = loop.time()
        try:
            server = await self._doors.open(target, lambda: not _gone(client))
            with server, contextlib.suppress(OSError):
                log.debug("%s: connected to %s", who, target)
                await loop.sock_sendall(client, dialect.granted())
                await loop.sock_sendall(server, dialect.rest)
                await join(client, server, lambda: self._joined.__setitem__(task, loop.time()))
        except (OSError, KnockError) as error:
            log.debug("%s: %s", who, error)
            await _tell(client, dialect.failed(error))
        finally:
            self._joined.pop(task, None)


def _gone(client: socket.socket) -> bool:
    """Return True if a client that waits for its connection is gone; one that only closed its own end may listen."""
    poll = select.poll()
    poll.register(client, 0)  # POLLHUP and POLLERR are always reported
    return bool(poll.poll(0))


async def _tell(client: socket.socket, answer: bytes) -> None:
    """Send a last answer, then wait until the client has closed, because a reset could overtake it."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):  # TimeoutError is one
        async with asyncio.timeout(_LINGER):
            await loop.sock_sendall(client, answer)
            client.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(client, 65536):
                pass
