"""Copies between two connections in both directions, and passes on the end of each."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

_CHUNK = 1 << 18
"""The most bytes copied at once, allocated for a read and freed after it: an idle connection holds none."""


async def _pump(source: socket.socket, sink: socket.socket, moved: Callable[[], None]) -> None:
    """Copy in one direction until its end, which is passed on; a full sink stops the reading. Raises OSError."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, _CHUNK):
        moved()
        await loop.sock_sendall(sink, data)
        del data
        await asyncio.sleep(0)  # with two fast ends neither call waits, and other connections need their turn
    sink.shutdown(socket.SHUT_WR)


async def join(one: socket.socket, other: socket.socket, moved: Callable[[], None]) -> None:
    """Copy in both directions, each until its own end. A connection that breaks breaks the other, too.

    moved: called whenever bytes were copied.
    """
    for end in (one, other):
        with contextlib.suppress(OSError):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(one, other, moved))
            group.create_task(_pump(other, one, moved))
    except* OSError:
        for end in (one, other):  # so that close() sends a reset
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
