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

from ..errors import KnockError
from . import Dialect, Login, Refused, Target, pac
from .doors import Doors
from .http import Http
from .relay import join
from .socks import Socks

log = logging.getLogger("knockknock")

_LINGER = 1.0
"""Seconds that a refused client has to read why."""
_RESOLVERS = 32
"""Names that are looked up at a time: one that takes long must not hold up others."""


class Limits(NamedTuple):
    """What a client may take."""

    connections: int
    """At a time; further ones wait in the kernel's queue."""
    handshake: float
    """Seconds, to say what it wants."""


class Server:
    """What all connections share."""

    def __init__(self, doors: Doors, address: str, login: Login | None, limits: Limits) -> None:
        """address: HOST:PORT under which a browser on this machine finds us."""
        self._doors = doors
        self._address = address
        self._login = login
        self._limits = limits

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
        slots = asyncio.Semaphore(self._limits.connections)

        def ended(task: asyncio.Task[None]) -> None:
            clients.discard(task)
            slots.release()
            if not task.cancelled() and (error := task.exception()):
                log.error("a connection ended by a fault in the proxy", exc_info=error)

        while True:
            await slots.acquire()
            try:
                client, address = await loop.sock_accept(listener)
            except OSError as error:
                # Out of descriptors or memory, or the client has gone already: none is a reason to stop.
                slots.release()
                log.warning("a connection could not be accepted: %s", error.strerror)
                await asyncio.sleep(0.1)
                continue
            task = loop.create_task(self._serve(client, address))
            clients.add(task)
            task.add_done_callback(ended)

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
                log.debug("%s: %s", who, refused)
                await _tell(client, refused.answer)
            except KnockError as error:  # the profiles cannot be listed
                log.warning("%s", error)
            else:
                log.debug("%s: wants %s", who, target)
                await self._connect(client, who, dialect, target)

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
            await loop.sock_sendall(client, dialect.hear(data))
        return dialect, dialect.target

    async def _connect(self, client: socket.socket, who: str, dialect: Dialect, target: Target) -> None:
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
            await join(client, server)


def _gone(client: socket.socket) -> bool:
    """Whether a client that waits for its connection has closed its own end."""
    poll = select.poll()
    poll.register(client, select.POLLRDHUP)
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
