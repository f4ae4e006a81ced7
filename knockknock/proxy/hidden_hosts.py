"""Knocks on hosts that have a profile, then connects to them.

A door for one connection cannot tell whose knock opened it. So knock and connection are a pair: the next pair for the
same address and port begins when the connection of the one before is established or has failed.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import inf
from time import monotonic
from typing import NamedTuple
from weakref import WeakValueDictionary

from ..client import backoff, host_config, raw_socket, route
from ..client.host_config import Host
from ..client.knock import check_own, find_profile, prepare
from ..core.profile import SHARE
from ..core.request import TCP, Request, Verb
from ..errors import ConfigError, KnockError, SendError
from ..profiles import files
from ..schemes.syn.profile import Profile
from . import Target
from .happy_eyeballs import Address, Attempt, connect, directly, first, resolve

_SERVES = 3.0
"""Seconds for which one knock is taken to serve all where a door is not for one use: less than any sensible `delay`
of a daemon. Where it is too long, the schedule's second knock comes a second later."""
_TOGETHER = 0.5
"""Seconds within which those who wait at such a door share a second knock."""
LOOK_UPS = 64
"""The most hidden hosts that are looked up at once, by threads of their own: other names may have a dead resolver."""
_STAGGER = 1.0
"""Seconds after which a host's other address family is tried, too."""


_PACE = 18, 32
"""Knocks a second, and at once, to one server. It hears 20 and 40 of one source (ruleset.PER_SOURCE); the same user may
knock from the shell, too."""

_MOST = 580
"""Knocks a minute: a server opens 600 doors for all its clients, unless told otherwise."""

_CLOCK = (1, 45)
"""The same where the counter is the time: each knock is a second of it, and a server takes a minute (clock_skew)."""

log = logging.getLogger("knockknock")


class _Door:
    """An address and a port."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.knocked = -_SERVES
        """When, by the loop's clock."""
        self.failed: tuple[float, Exception] = (-1.0, TimeoutError())


class _Way(NamedTuple):
    """The way to a host with a profile."""

    profile: Profile
    settings: Host
    timeout: float
    """Seconds, for a knock and what follows it."""

    def family(self) -> int:
        """The only address family to use, or 0. Raises SendError."""
        if self.settings.source:
            return route.family_of(self.settings.source)
        return {"inet": socket.AF_INET, "inet6": socket.AF_INET6}.get(self.settings.address_family or "", 0)


class HiddenHosts:
    """The hosts with a profile, and connections to them."""

    def __init__(self, profiles: str, send: Callable[[raw_socket.Knock], None], timeout: float) -> None:
        """profiles: the directory of profiles by host name. send: sends a knock. timeout: seconds."""
        self._profiles = profiles
        self._send = send
        self._timeout = timeout
        self._doors: WeakValueDictionary[Address, _Door] = WeakValueDictionary()
        self._sent: dict[tuple[str, str], float] = {}
        """Times until which all knocks so far are paid for at that rate, by address or profile, and limit."""
        self._best: dict[str, int] = {}
        """By profile: the address family that connected first the last time."""
        self._threads = defaultdict[str, ThreadPoolExecutor](partial(ThreadPoolExecutor, 1, "knock"))
        """By profile: the thread that waits for its lock and the disk."""
        self._resolvers = ThreadPoolExecutor(LOOK_UPS, "hidden")

    def hosts(self) -> list[str]:
        """Return the hosts that have profiles. Raises ProfileError."""
        return sorted(files.names(self._profiles))

    def find(self, target: Target) -> tuple[Profile, Host] | None:
        """Return the profile and the way to knock for a target; None for a connection without a knock. Raises
        KnockError."""
        host = target.host.rstrip(".")
        settings = self._settings(host)
        names = [settings.profile] if settings.profile else [host, *filter(None, [settings.host_name])]
        if not {spelling for name in names for spelling in (name, name.rstrip(".").lower())} & set(self.hosts()):
            return None
        profile = find_profile(self._profiles, *names)
        return (profile, settings) if profile.permits(Request(Verb.OPEN, TCP, target.port)) else None

    def _settings(self, host: str) -> Host:
        """Return the user's settings for a host, as for the command knockknock. Raises ConfigError."""
        path = f"{self._profiles}/config"
        try:
            check_own(path)
            return host_config.parse(files.read(path), path, host)
        except FileNotFoundError:
            return Host()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None

    async def open(self, target: Target, wanted: Callable[[], bool]) -> socket.socket:
        """Return a connection with a non-blocking socket. Raises OSError, KnockError.

        wanted: returns False if the client is gone; it is asked before a knock is spent.
        """
        try:
            found = self.find(target)
        except KnockError as error:
            log.warning("%s", error)
            raise
        if found is None:
            return await directly(*target, self._timeout)
        way = _Way(*found, found[1].timeout or self._timeout)
        families: dict[int, Address] = {}
        for address in await resolve(way.settings.host_name or target.host, target.port, self._resolvers):
            families.setdefault(address[0], address)
        name, wish = way.profile.name, way.family()
        best, *others = sorted(families.values(), key=lambda one: one[0] != (wish or self._best.get(name)))
        if wish:
            others = []
            if best[0] != wish:
                raise OSError(errno.EADDRNOTAVAIL, f"{target} has no address of the IP version that is wished for")
        turn = asyncio.Event()

        async def later(address: Address) -> socket.socket:
            await turn.wait()
            await asyncio.sleep(_STAGGER)
            return await self._through(way, target, address, wanted, turn)

        attempts: list[tuple[float, Attempt]] = [(0, partial(self._through, way, target, best, wanted, turn))]
        # Each door has its own timeout, from its own turn.
        connection = await first([*attempts, *((0, partial(later, one)) for one in others)], inf)
        self._best[name] = connection.family
        return connection

    async def _through(
        self, way: _Way, target: Target, address: Address, wanted: Callable[[], bool], turn: asyncio.Event
    ) -> socket.socket:
        """Return a connection to one address; `turn` is set when it no longer waits for others."""
        loop = asyncio.get_running_loop()
        door = self._doors.setdefault(address, _Door())
        shared = way.profile.single_use is False
        asked = loop.time()
        async with contextlib.nullcontext() if shared else door.lock:
            turn.set()
            if door.failed[0] > asked:  # who waited behind a failure shares it, instead of waiting for the next one
                raise door.failed[1]
            if not wanted():
                raise ConnectionAbortedError("the client has gone")
            try:
                return await self._knock_and_connect(way, address, door, shared)
            except (OSError, KnockError) as error:
                door.failed = loop.time(), _explained(error, target, way.timeout)
                log.warning("%s", _text(door.failed[1]))  # logged once, not for each that waited behind it
                raise door.failed[1] from None

    async def _knock_and_connect(self, way: _Way, address: Address, door: _Door, shared: bool) -> socket.socket:
        loop = asyncio.get_running_loop()

        async def knock(age: float) -> None:
            """Knock, unless it is a shared door at which somebody did less than `age` seconds ago."""
            if not shared or loop.time() - door.knocked >= age:
                door.knocked = loop.time()
                await asyncio.sleep(self._pause(way.profile, address[1][0]))
                await self._knock_by_thread(way, address)

        async def attempt(again: bool) -> socket.socket:
            if again:
                await knock(_TOGETHER)
            return await connect(address, way.settings.source)

        await knock(_SERVES)
        if shared:
            loop.call_later(_SERVES, lambda: door)  # remembered for as long
        timing: Iterator[tuple[float, bool]] = backoff.attempts(way.timeout)
        return await first(((at, partial(attempt, again)) for at, again in timing), way.timeout)

    def _pause(self, profile: Profile, destination: str) -> float:
        """Count the next knock to an address, and return the seconds that it must wait (a leaky bucket)."""
        now, pause = asyncio.get_running_loop().time(), 0.0
        most = min(
            profile.doors_per_minute or SHARE, _MOST
        )  # half of them at once, so that no minute exceeds the limit
        limits = {(destination, "pace"): _PACE, (profile.name, "share"): (most / 120, most / 2)}
        for key, (rate, burst) in (limits | ({(profile.name, "clock"): _CLOCK} if profile.clock else {})).items():
            full = max(self._sent.get(key, now), now) + 1 / rate
            self._sent[key] = full
            pause = max(pause, full - now - burst / rate)
        return pause

    async def _knock_by_thread(self, way: _Way, address: Address) -> None:
        """Knock in the profile's thread. Raises KnockError."""
        name = way.profile.name
        try:
            async with asyncio.timeout(way.timeout):
                await asyncio.get_running_loop().run_in_executor(self._threads[name], self._knock, way, address)
        except TimeoutError:
            took = f"has not ended in {way.timeout:g} s"
            raise SendError(f"the profile {name}: somebody else knocks with it, and {took}") from None

    def _knock(self, way: _Way, address: Address) -> None:
        """Knock; runs in the thread. Raises KnockError."""
        family, (destination, port, *_) = address
        requests = [Request(Verb.OPEN, TCP, port)]
        directory, seen_from = f"{self._profiles}/{way.profile.name}", way.settings.source or ""
        where = family, destination
        # When _knock_by_thread() has given up, nobody waits for this knock, and it must not be sent.
        end = monotonic() + way.timeout + 1
        for knock in prepare(directory, way.profile, requests, where, dry=False, seen_from=seen_from, end=end):
            self._send(knock)


def _text(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _explained(error: Exception, target: Target, timeout: float) -> Exception:
    """Return the sentence to log about a failure at a host with a profile."""
    if isinstance(error, TimeoutError):
        return TimeoutError(
            f"{target} did not open within {timeout:g} s, though it was knocked for up to three times: "
            "look at the server's log"
        )
    if isinstance(error, OSError):
        return OSError(error.errno, f"{target}: {os.strerror(error.errno) if error.errno else error}")
    return error
