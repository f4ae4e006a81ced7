"""The control socket: a Unix socket at which the daemon tells local programs its state and its events.

A client sends one line, `status`, `status ADDRESS` or `events`. It receives one line of JSON and the end, or one line
for each event until it disconnects. No request changes anything. A slow client is dropped.
"""

import contextlib
import ipaddress
import json
import os
import select
import socket
import stat
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..errors import KnockError
from .event_text import Facts

LINE = 64
"""Bytes of the longest line that a client may send."""
CLIENTS, LISTENERS = 16, 12
"""The most clients at a time, and the most of them that listen to events. A further client replaces the oldest that
does not listen, so that a request for the status is always answered."""
BACKLOG = 1 << 16
"""The most bytes that wait for a listening client, besides the kernel's buffer, before it is dropped."""


class Query(NamedTuple):
    """A request of a client."""

    events: bool
    address: bytes = b""
    """For a status: the source whose doors to list, network order, 4 or 16 bytes; empty for all."""


def parse(line: bytes) -> Query | None:
    """Return the request in a line without its newline, None if it is invalid."""
    words = line.decode("ascii", "replace").split(" ")
    if words in (["status"], ["events"]):
        return Query(words == ["events"])
    if words[0] != "status" or len(words) != 2:
        return None
    try:
        address = ipaddress.ip_address(words[1])
    except ValueError:
        return None
    return None if "%" in str(address) else Query(False, address.packed)  # a zone: no door has one


def listen(path: str, gid: int) -> socket.socket:
    """Make a listening socket for root and a group, as root, in the place of an abandoned one. Raises KnockError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _umask(0o022):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        _make_way(path)
        with _umask(0o117):
            os.setegid(gid)  # the socket gets its maker's group; a chown would need CAP_CHOWN
            try:
                listener.bind(path)
            finally:
                os.setegid(0)
        listener.listen()
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise KnockError(f"{path} cannot be made: {error.strerror or error}; name another with control =") from None
    except KnockError:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _make_way(path: str) -> None:
    """Remove the socket of a daemon that is gone. Raises KnockError, OSError."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise KnockError(f"{path} is there already, and no socket: name another with control =")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise KnockError(f"another knockknock-daemon listens at {path}: name another with control =")


class _Client:
    """A connection, with the bytes received so far, and those that wait to be sent."""

    __slots__ = ("events", "last", "said", "socket", "waiting")

    def __init__(self, connection: socket.socket) -> None:
        self.socket, self.said, self.waiting = connection, b"", b""
        self.events = False
        self.last = False
        """True if it is dropped once all waiting bytes are sent."""


class Control:
    """The socket and its clients. Its descriptor is readable when serve() has something to do."""

    def __init__(self, listener: socket.socket, status: Callable[[bytes], dict[str, Any]]) -> None:
        """status: makes the answer about the doors of an address, or of all for b""."""
        self._listener, self._status = listener, status
        self._clients: dict[int, _Client] = {}
        self._epoll = select.epoll()
        self._epoll.register(listener.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        return self._epoll.fileno()

    @property
    def heard(self) -> bool:
        """True if a client listens to events."""
        return any(client.events for client in self._clients.values())

    def serve(self) -> None:
        """Handle one ready client; the next call handles the next, so that knocks are heard in between."""
        for fd, ready in self._epoll.poll(0, 1):
            if fd == self._listener.fileno():
                self._accept()
            elif client := self._clients.get(fd):
                if ready & select.EPOLLOUT:
                    self._send(client)
                elif ready:
                    self._read(client)

    def tell(self, facts: Facts) -> None:
        """Send an event to all clients that listen."""
        line = json.dumps(facts).encode() + b"\n"
        for client in [client for client in self._clients.values() if client.events]:
            client.waiting += line
            self._send(client)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            if len(self._clients) >= CLIENTS:
                self._drop(next(client for client in self._clients.values() if not client.events))
            self._clients[connection.fileno()] = _Client(connection)
            self._epoll.register(connection.fileno(), select.EPOLLIN)

    def _read(self, client: _Client) -> None:
        try:
            data = client.socket.recv(LINE + 1)
        except OSError:
            data = b""
        client.said += data
        line, end, more = client.said.partition(b"\n")
        asked = parse(line) if end and not more else None
        if not data or client.events or client.last or len(line) > LINE or (end and not asked):
            self._drop(client)
        elif asked and asked.events:
            if sum(one.events for one in self._clients.values()) >= LISTENERS:
                self._drop(client)
                return
            client.events, client.waiting = True, b'{"event": "listening"}\n'
            self._send(client)
        elif asked:
            client.last, client.waiting = True, json.dumps(self._status(asked.address)).encode() + b"\n"
            self._send(client)

    def _send(self, client: _Client) -> None:
        """Send without waiting; drop a client that is done, gone or too slow."""
        try:
            client.waiting = client.waiting[client.socket.send(client.waiting) :]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        if (client.last and not client.waiting) or (client.events and len(client.waiting) > BACKLOG):
            self._drop(client)
        else:
            more = select.EPOLLOUT if client.waiting else 0
            self._epoll.modify(client.socket.fileno(), select.EPOLLIN | more)

    def _drop(self, client: _Client) -> None:
        del self._clients[client.socket.fileno()]
        client.socket.close()
