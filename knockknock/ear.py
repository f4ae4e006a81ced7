"""One profile as the gatekeeper listens to it: where its window is, what it can say next, what it has said. Pure."""

from collections.abc import Container, Iterator
from functools import lru_cache

from . import schemes
from .profile import MAX_COUNTER, Profile
from .request import Kind, Ports, Request

COMPUTED_AHEAD = 16
"""Requests that a profile can make with one counter, up to which all its next knocks are kept in the table."""


class Ear:
    """One profile, and the next counter that is acceptable from it."""

    __slots__ = ("first", "next", "number", "profile", "requests", "scheme", "streams", "window")

    def __init__(self, number: int, profile: Profile, next_counter: int, window: int) -> None:
        self.number, self.profile, self.window = number, profile, window
        self.first = self.next = next_counter
        """`first`: the first counter that was ever put into the table."""
        self.scheme = schemes.load(profile.format)
        self.requests = () if profile.bind_source else _requests(profile.format, profile.ports)
        """All that the profile can ask, if that is little and does not depend on who asks; else nothing."""
        self.streams: list[tuple[int, bytes]] | None = None if self.requests else self._window()
        """Kept where every packet is tried with them."""

    def heads(self, first: int, end: int) -> Iterator[int]:
        """The first 32 bits of all that the profile can say with some counters."""
        return self.scheme.heads(self.profile, first, min(end, MAX_COUNTER + 1) - first, self.requests)

    def tabled(self) -> Iterator[int]:
        """The heads that are in the table now: of the window, and of up to as many used counters."""
        return self.heads(max(self.first, self.next - self.window), self.next + self.window)

    def _window(self) -> list[tuple[int, bytes]]:
        """The keystreams of the look-ahead window, each behind the number that masks the port."""
        streams = self.scheme.keystreams(self.profile, self.next, min(self.window, MAX_COUNTER + 1 - self.next))
        return [(int.from_bytes(stream[:2], "big"), stream) for stream in streams]

    def expect(self, next_counter: int) -> None:
        """Slide the window to the next counter that will be accepted."""
        self.next = next_counter
        if self.streams is not None:
            self.streams = self._window()

    def hear(self, sealed: bytes, source: bytes) -> tuple[int, Request] | None:
        """The counter and the request of a knock that this profile may make now."""
        profile, match = self.profile, self.scheme.match
        head, ports = int.from_bytes(sealed[:2], "big"), _numbers(profile.ports)
        kinds = _kinds(profile.format, profile.ports)
        for counter, (mask, stream) in enumerate(self.streams or self._window(), self.next):
            if (head ^ mask) in ports:
                request = match(profile, counter, stream, sealed, source, kinds)
                if request and profile.permits(request):
                    return counter, request
        return None

    def explain(self, sealed: bytes, source: bytes) -> tuple[int, Request] | None:
        """The counter and the request of a knock of this profile that is used up, or may not be made."""
        first = max(0, self.next - self.window)
        end = min(self.next + self.window, MAX_COUNTER + 1)
        kinds = self.scheme.kinds(self.profile.format)
        for counter, stream in enumerate(self.scheme.keystreams(self.profile, first, end - first), first):
            if request := self.scheme.match(self.profile, counter, stream, sealed, source, kinds):
                return counter, request
        return None


@lru_cache(maxsize=1024)
def _numbers(ports: tuple[Ports, ...]) -> Container[int]:
    """The port numbers that an allow-list names, whatever the protocol; profiles with the same list share them."""
    runs = [range(one.first, one.last + 1) for one in ports]
    return runs[0] if len(runs) == 1 else frozenset(port for run in runs for port in run)


@lru_cache(maxsize=1024)
def _kinds(format: str, ports: tuple[Ports, ...]) -> tuple[Kind, ...]:
    """The verbs and protocols that an allow-list leaves to a format."""
    protocols = {one.protocol for one in ports}
    return tuple(kind for kind in schemes.load(format).kinds(format) if kind[1] in protocols)


@lru_cache(maxsize=1024)
def _requests(format: str, ports: tuple[Ports, ...]) -> tuple[Request, ...]:
    """All requests that an allow-list permits, or none where they are more than COMPUTED_AHEAD."""
    if sum(one.last - one.first + 1 for one in ports) > COMPUTED_AHEAD:
        return ()
    named = {(one.protocol, port) for one in ports for port in range(one.first, one.last + 1)}
    found = [
        Request(verb, p, port) for verb, p in _kinds(format, ports) for protocol, port in sorted(named) if p == protocol
    ]
    return tuple(found) if len(found) <= COMPUTED_AHEAD else ()
