"""The state of one profile of encrypted SYNs: look-ahead window, expected values, used counters. Pure."""

import hmac
from collections.abc import Container, Iterator, Sequence
from functools import lru_cache

from ...core.counter_text import MAX_COUNTER
from ...core.profile import Settings
from ...core.request import Kind, Ports, Request
from . import seal
from .profile import Profile

COMPUTED_AHEAD = 16
"""The most requests of a profile, for each counter, whose knocks are computed ahead and kept in the table."""

REPEATED = 4096
"""The most 4-byte beginnings of packets whose expected values are cached, at some 250 to 500 bytes each."""

TRIES_PER_SECOND, DUE = 50_000, 2
"""The most tags that are computed in a second to try packets with a profile that is not in the table; and how far from
the counter that is due one may be to be tried in any case. So no flood hides the knock of a client that lost none."""

PREPARED = 400
"""The largest product of window and requests with which knocks are computed ahead of a client: half a millisecond."""

LONG_LIST = 256
"""The most ports of an allow-list that are kept in a set."""


class ProfileWindow:
    """One profile, and the next counter that the server accepts from it."""

    __slots__ = (
        "ahead",
        "clock",
        "first",
        "next",
        "number",
        "profile",
        "reach",
        "requests",
        "second",
        "streams",
        "tried",
    )

    def __init__(self, number: int, profile: Profile, next_counter: int, settings: Settings, clock: int) -> None:
        """clock: seconds since 1970, or 0 if it is not set yet."""
        self.number, self.profile, self.clock = number, profile, clock
        self.reach = settings.skew if profile.clock else settings.window
        """Counters to look ahead; for a clock profile, counters on either side of the clock."""
        self.ahead = -1
        """The counter that resynchronises a client beyond the window (PROTOCOL.md step 9a); -1 for none."""
        self.first = self.next = next_counter
        """`first`: the first counter that was put into the table."""
        self.requests = () if profile.bind_source else _requests(profile.format, profile.ports)
        """All requests that the profile permits, if they are few and the source is not bound; else empty."""
        self.streams: Sequence[tuple[int, bytes]] = () if self.requests else self.window_streams()
        """The keystreams of the window, if every packet is tried with them; else empty."""
        self.second = self.tried = 0
        """The present second, and the tries in it that count towards TRIES_PER_SECOND."""

    def prefixes(self, first: int, end: int) -> Iterator[int]:
        """The first 32 sealed bits of each knock with a counter from first up to end, which is excluded."""
        return (int.from_bytes(one[:4], "big") for one in self._sealed(first, end))

    def values(self, first: int, end: int) -> Iterator[bytes]:
        """The same knocks as prefixes(), each as the fields in an element of a kernel set."""
        return map(seal.padded, self._sealed(first, end))

    def _sealed(self, first: int, end: int) -> Iterator[bytes]:
        return seal.sealed(self.profile, first, max(0, min(end, MAX_COUNTER + 1) - first), self.requests)

    def kept(self) -> tuple[int, int]:
        """The first counter in the table and the end, excluded: the window, and up to as many used counters."""
        if self.profile.clock:
            return max(0, self.clock - self.reach), self.clock + self.reach + 1
        return max(self.first, self.next - self.reach), self.next + self.reach

    def tabled(self) -> Iterator[int]:
        """The prefixes that are in the table now."""
        return self.prefixes(*self.kept())

    def start(self) -> int:
        """The first counter of the window."""
        return max(self.next, self.clock - self.reach) if self.profile.clock else self.next

    def window_streams(self) -> list[tuple[int, bytes]]:
        """The keystreams of the look-ahead window, each after the 16-bit number that masks the port."""
        return self._masked(self.start(), self.kept()[1])

    def _masked(self, first: int, end: int) -> list[tuple[int, bytes]]:
        """The keystreams of the counters from first up to end, each after the number that masks the port."""
        streams = seal.keystreams(self.profile, first, max(0, min(end, MAX_COUNTER + 1) - first))
        return [(int.from_bytes(stream[:2], "big"), stream) for stream in streams]

    def expect(self, next_counter: int) -> tuple[Iterator[int], Iterator[int]]:
        """Set the next counter, and return the prefixes that leave the table and those that enter it."""
        before, self.next, self.ahead = self.kept(), next_counter, -1
        return self._slid(*before)

    def move(self, clock: int) -> tuple[Iterator[int], Iterator[int]]:
        """Set the time of day of a clock profile, in seconds since 1970, and return prefixes like expect()."""
        before, self.clock = self.kept(), clock
        return self._slid(*before)

    def _slid(self, old: int, old_end: int) -> tuple[Iterator[int], Iterator[int]]:
        new, new_end = self.kept()
        if not self.requests:
            self.streams = self.window_streams()
        if new < old:  # only a clock goes back
            return self.prefixes(max(old, new_end), old_end), self.prefixes(new, min(new_end, old))
        return self.prefixes(old, min(old_end, new)), self.prefixes(max(old_end, new), new_end)

    def prepare(self) -> None:
        """Compute the knocks of the next counter and keep them, so that the next client does not wait for that.

        A clock does not tell the next counter, and a large window would take milliseconds.
        """
        if self.profile.clock or self.reach * len(self.requests) > PREPARED:
            return
        for sealed in self._sealed(self.next, self.next + 1):
            _expected(self, self.next, self.clock, sealed[:4])

    def hear(self, sealed: bytes, source: bytes, now: float) -> tuple[int, Request] | None:
        """Return the counter and the request of a knock that this profile may make now, None if it is not one.

        now: seconds on any monotonic clock.
        """
        if not self.requests:
            if (second := int(now)) != self.second:
                self.second, self.tried = second, 0
            return self._find(
                self.streams, self.start(), sealed, source, self.clock if self.profile.clock else self.next
            )
        for expected, counter, request in _expected(self, self.next, self.clock, sealed[:4]):
            if hmac.compare_digest(expected, sealed):
                return counter, request
        return None

    def hear_ahead(self, sealed: bytes, source: bytes, far: int) -> tuple[int, Request] | None:
        """Return the same as hear() for a knock up to `far` counters beyond the window; None for a clock profile."""
        if self.profile.clock:
            return None
        first = self.next + self.reach
        return self._find(self._masked(first, first + far), first, sealed, source)

    def _find(
        self, streams: Sequence[tuple[int, bytes]], first: int, sealed: bytes, source: bytes, due: int | None = None
    ) -> tuple[int, Request] | None:
        """Try each counter from first on; due: the one that is due if the tries of a second are limited, else None."""
        profile, match = self.profile, None
        masked, ports = int.from_bytes(sealed[:2], "big"), _numbers(profile.ports)
        for counter, (mask, stream) in enumerate(streams, first):
            if (masked ^ mask) in ports:
                if due is not None and abs(counter - due) > DUE:
                    if self.tried >= TRIES_PER_SECOND:
                        continue
                    self.tried += 1
                match = match or seal.matcher(profile, sealed, source, _kinds(profile.format, profile.ports))
                if (request := match(counter, stream)) and profile.permits(request):
                    return counter, request
        return None

    def explain(self, sealed: bytes, source: bytes) -> tuple[int, Request] | None:
        """Return the counter and the request of a knock of this profile that is used up or not permitted, or None."""
        first, end = max(0, self.next - self.reach), min(self.next + self.reach, MAX_COUNTER + 1)
        if self.profile.clock:
            first, end = self.kept()
        match = seal.matcher(self.profile, sealed, source, seal.kinds(self.profile.format))
        for counter, stream in enumerate(seal.keystreams(self.profile, first, end - first), first):
            if request := match(counter, stream):
                return counter, request
        return None


@lru_cache(maxsize=REPEATED)
def _expected(
    window: ProfileWindow, _next: int, _clock: int, beginning: bytes
) -> tuple[tuple[bytes, int, Request], ...]:
    """The knocks in a profile's window that begin with these 4 bytes: sealed bytes, counter and request.

    Cached until the window moves, because a part of a knock can be repeated a hundred thousand times a second.
    """
    masked = int.from_bytes(beginning[:2], "big")
    found = [
        (seal.seal(window.profile, counter, request, b""), counter, request)
        for counter, (mask, _) in enumerate(window.window_streams(), window.start())
        for request in window.requests
        if request.port ^ mask == masked
    ]
    return tuple(one for one in found if one[0].startswith(beginning))


def forget_keys() -> None:
    """Drop what is cached of all profiles, because one of them was removed."""
    _expected.cache_clear()
    seal.forget_keys()


@lru_cache(maxsize=1024)
def _numbers(ports: tuple[Ports, ...]) -> Container[int]:
    """The port numbers in an allow-list, of either protocol; of a long list, all from the lowest to the highest.

    Profiles with the same list share the result. A set of a long list would take megabytes; the ports in its gaps are
    refused when the request is known.
    """
    runs = [range(one.first, one.last + 1) for one in ports]
    if len(runs) == 1 or sum(map(len, runs)) > LONG_LIST:
        return range(min(run.start for run in runs), max(run.stop for run in runs))
    return frozenset(port for run in runs for port in run)


@lru_cache(maxsize=1024)
def _kinds(format: str, ports: tuple[Ports, ...]) -> tuple[Kind, ...]:
    """The verbs and protocols of a format that an allow-list permits."""
    protocols = {one.protocol for one in ports}
    return tuple(kind for kind in seal.kinds(format) if kind[1] in protocols)


@lru_cache(maxsize=1024)
def _requests(format: str, ports: tuple[Ports, ...]) -> tuple[Request, ...]:
    """All requests that an allow-list permits; empty if they are more than COMPUTED_AHEAD."""
    if sum(one.last - one.first + 1 for one in ports) > COMPUTED_AHEAD:
        return ()
    named = {(one.protocol, port) for one in ports for port in range(one.first, one.last + 1)}
    found = [
        Request(verb, p, port) for verb, p in _kinds(format, ports) for protocol, port in sorted(named) if p == protocol
    ]
    return tuple(found) if len(found) <= COMPUTED_AHEAD else ()
