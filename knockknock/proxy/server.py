"""The proxy: accepts, hears what is wanted, connects, joins."""

import asyncio
import contextlib
import ipaddress
import logging
import select
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from weakref import WeakValueDictionary

from ..errors import KnockError
from . import Dialect, Login, Refused, Target, pac
from .doors import Doors
from .http import Http
from .relay import join
from .socks import Socks

log = logging.getLogger("knockknock")

_LINGER = 1.0
"""Seconds that a refused client has to read why."""
_RESOLVERS = 256
"""Names that are looked up at a time: many that take long must not hold up others."""
_UNFINISHED = 256
"""Clients that have not said yet what they want; when there is one more, the oldest goes."""
_COMPLAINT = 60.0
"""Seconds between two sentences about too many connections."""
_PENALTY = 1.0
"""Seconds that a wrong password costs all who come from the same address."""


class Limits(NamedTuple):
    """What a client may take."""

    connections: int
    """That are joined at a time; further ones wait, and those that were idle for long make room."""
    handshake: float
    """Seconds, to say what it wants."""
    idle: float = 60.0
    """Seconds after which a connection on which nothing was said makes room for another."""


class _Logins:
    """Those who come from one address, where a password is asked for."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.after = 0.0
        """When the next one is looked at, by the loop's clock."""


class Server:
    """What all connections share."""

    def __init__(self, doors: Doors, address: str, login: Login | None, limits: Limits) -> None:
        """address: HOST:PORT under which a browser on this machine finds us."""
        self._doors = doors
        self._address = address
        self._login = login
        self._limits = limits
        self._unfinished: dict[asyncio.Task[None], None] = {}
        """Those who have not said yet what they want, the oldest first."""
        self._joined: dict[asyncio.Task[None], float] = {}
        """When something was last said on each connection, by the loop's clock."""
        self._freed = asyncio.Event()
        self._complained = -_COMPLAINT
        self._logins: WeakValueDictionary[str, _Logins] = WeakValueDictionary()

    def pac(self) -> str:
        """The proxy auto-configuration file of now. Raises ProfileError."""
        return pac.write(self._doors.hosts(), self._address, self._login is not None)

    async def serve(self, listener: socket.socket) -> None:
        """Accept and serve until SIGTERM or SIGINT, then close all connections."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_RESOLVERS, "resolve"))
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
                # Out of descriptors or memory, or the client has gone already: none is a reason to stop.
                log.warning("a connection could not be accepted: %s", error.strerror)
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
            await asyncio.sleep(0)  # whose request is here already is no longer unfinished when the next one comes

    def _complain(self, sentence: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._complained >= _COMPLAINT:
            self._complained = now
            log.warning("%s", sentence)

    async def _serve(self, client: socket.socket, address: tuple[str, int]) -> None:
        with client:
            who = f"{address[0]} port {address[1]}"
            try:
                async with asyncio.timeout(self._limits.handshake):
                    dialect, target = await self._hear(client, address[0])
            except TimeoutError:
                log.debug("%s: said nothing that could be understood within %g s", who, self._limits.handshake)
            except OSError as error:
                log.debug("%s: %s", who, error.strerror)
            except Refused as refused:
                log.log(logging.WARNING if refused.guess else logging.DEBUG, "%s: %s", who, refused)
                await _tell(client, refused.answer)
            except KnockError as error:  # the profiles cannot be listed
                log.warning("%s", error)
            else:
                log.debug("%s: wants %s", who, target)
                task = asyncio.current_task()
                assert task
                self._unfinished.pop(task, None)
                await self._room()
                self._joined[task] = asyncio.get_running_loop().time()
                try:
                    await self._connect(client, who, dialect, target, task)
                finally:
                    self._joined.pop(task, None)
                    self._freed.set()

    async def _room(self) -> None:
        """Wait until there is room for one more connection, or make some."""
        loop = asyncio.get_running_loop()
        while len(self._joined) >= self._limits.connections:
            task, last = min(self._joined.items(), key=lambda one: one[1])
            if (idle := loop.time() - last) >= self._limits.idle:
                self._complain(
                    f"{len(self._joined)} connections are open: one that was idle for {idle:.0f} s makes room"
                )
                del self._joined[task]
                task.cancel()
                return
            self._complain(f"{len(self._joined)} connections are open, and further ones wait: raise --connections")
            self._freed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(1.0, self._limits.idle - idle)):
                    await self._freed.wait()

    async def _hear(self, client: socket.socket, host: str) -> tuple[Dialect, Target]:
        """What the client wants. Raises Refused, OSError."""
        loop = asyncio.get_running_loop()
        dialect: Dialect | None = None
        while dialect is None or dialect.target is None:
            if not (data := await loop.sock_recv(client, 1024)):
                raise Refused("went away before it said what it wants")
            if dialect is None:
                local = ipaddress.ip_address(host.partition("%")[0]).is_loopback
                dialect = Socks(self._login) if data[0] in (4, 5) else Http(self._login, self.pac if local else None)
            await loop.sock_sendall(
                client, await self._answer(dialect, data, host) if self._login else dialect.hear(data)
            )
        return dialect, dialect.target

    async def _answer(self, dialect: Dialect, data: bytes, host: str) -> bytes:
        """What a dialect answers; after a wrong password one after the other, and a second later. Raises Refused."""
        loop, logins = asyncio.get_running_loop(), self._logins.setdefault(host, _Logins())
        async with logins.lock:
            await asyncio.sleep(max(0.0, logins.after - loop.time()))
            try:
                return dialect.hear(data)
            except Refused as refused:
                if refused.guess:
                    logins.after = loop.time() + _PENALTY
                    loop.call_later(_PENALTY, lambda: logins)  # keeps it in mind for as long
                raise

    async def _connect(
        self, client: socket.socket, who: str, dialect: Dialect, target: Target, task: asyncio.Task[None]
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            server = await self._doors.open(target, lambda: not _gone(client))
        except (OSError, KnockError) as error:
            log.debug("%s: %s", who, error)
            await _tell(client, dialect.failed(error))
            return
        with server, contextlib.suppress(OSError):
            log.debug("%s: connected to %s", who, target)
            await loop.sock_sendall(client, dialect.granted())
            await loop.sock_sendall(server, dialect.rest)
            await join(client, server, lambda: self._joined.__setitem__(task, loop.time()))


def _gone(client: socket.socket) -> bool:
    """Whether a client that waits for its connection has gone; one that has closed its own end alone may listen."""
    poll = select.poll()
    poll.register(client, 0)  # POLLHUP and POLLERR are always told
    return bool(poll.poll(0))


async def _tell(client: socket.socket, answer: bytes) -> None:
    """A last answer; then wait until the client has closed, or a reset could overtake it."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):  # TimeoutError is one
        async with asyncio.timeout(_LINGER):
            await loop.sock_sendall(client, answer)
            client.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(client, 65536):
                pass
