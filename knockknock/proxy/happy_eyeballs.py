"""Tries connections side by side, and takes the first that is established (RFC 8305)."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Executor
from functools import partial
from math import inf
from typing import Any

Address = tuple[socket.AddressFamily, tuple[Any, ...]]
"""A family, and an address as connect(2) takes it in that family."""
Attempt = Callable[[], Coroutine[Any, Any, socket.socket]]


async def connect(address: Address, source: str | None = None) -> socket.socket:
    """Return a connection with a non-blocking socket. Raises OSError.

    source: the address of this machine to leave from; another one is a NAT's, and ignored.
    """
    family, where = address
    caller = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if source:
            with contextlib.suppress(OSError):
                caller.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(caller, where)
    except BaseException:
        caller.close()
        raise
    return caller


async def first(attempts: Iterable[tuple[float, Attempt]], timeout: float, *, hurry: bool = False) -> socket.socket:
    """Return the first connection that is established, and close all others. Raises the last error, or TimeoutError.

    attempts: seconds from now at which each begins, ascending. timeout: seconds. hurry: begin the next one at once if
    all before it have failed.
    """
    loop = asyncio.get_running_loop()
    begin = loop.time()
    running: set[asyncio.Task[socket.socket]] = set()
    ended: list[asyncio.Task[socket.socket]] = []
    """In their order: a door lets in the first connection that completes, and resets others."""
    failure: BaseException = TimeoutError(f"no answer within {timeout:g} s")
    pending = iter(attempts)
    try:
        while True:
            at, attempt = next(pending, (timeout, None))
            while (left := begin + at - loop.time()) > 0 and not (not running and (hurry or attempt is None)):
                if not running:
                    await asyncio.sleep(left)
                    break
                done, running = await asyncio.wait(
                    running, timeout=None if left == inf else left, return_when=asyncio.FIRST_COMPLETED
                )
                # One may be done, and not yet reported.
                good = [task for task in [*ended, *done.difference(ended)] if task in done and not task.exception()]
                if good:
                    running.update(good[1:])
                    return good[0].result()
                failure = next((task.exception() for task in done if task.exception()), None) or failure
            if attempt is None:
                raise failure
            task = loop.create_task(attempt())
            task.add_done_callback(ended.append)
            running.add(task)
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_discard)


def _discard(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and not task.exception():
        task.result().close()


async def resolve(host: str, port: int, workers: Executor | None = None) -> list[Address]:
    """Resolve a name in ASCII, in the resolver's order (RFC 6724), with families taking turns. Raises OSError.

    workers: their threads wait for the resolver; None for those of the loop. An address needs none.
    """
    name = host.encode()  # text would need the IDNA codec, which may not be readable since root was given up
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        ask = partial(socket.getaddrinfo, name, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(workers, ask)
    addresses = [(family, where) for family, _, _, _, where in found]
    leading = [one for one in addresses if one[0] == addresses[0][0]]
    others = [one for one in addresses if one[0] != addresses[0][0]]
    turns = [one for pair in zip(leading, others, strict=False) for one in pair]
    return [*turns, *(one for one in addresses if one not in turns)]


async def directly(host: str, port: int, timeout: float) -> socket.socket:
    """Return a connection without a knock, by the addresses of a name (RFC 8305 section 5). Raises OSError.

    timeout: seconds for all of them.
    """
    addresses = await resolve(host, port)
    attempts = [(0.25 * number, partial(connect, address)) for number, address in enumerate(addresses)]
    return await first(attempts, timeout, hurry=True)
