"""A packet comes in, an event goes out. Keys, counters, look-ahead and replays live here; no I/O, no clock."""

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from . import schemes
from .grant import Grant, Order
from .heads import Heads
from .packet import Packet
from .profile import MAX_COUNTER, Profile
from .request import Kind, Ports, Request, Verb

EXPLAINED_PER_SECOND = 10
"""How many refused packets a second are looked at for a reason, which costs many times a plain refusal."""
EXPLAINED_PROFILES = 30
"""Profiles at one knock port up to which each is asked for that reason; of more, only those that the table names."""
COMPUTED_AHEAD = 16
"""Requests that a profile can make with one counter, up to which all its next knocks are kept in the table."""


class Reason(Enum):
    """Why a packet at a knock port opened nothing; the value is the word in the log."""

    REPLAY = "replay"
    NOT_PERMITTED = "not permitted"
    UNKNOWN = "unknown"


class Accepted(NamedTuple):
    """A knock to obey, once `counter + 1` is stored durably (PROTOCOL.md step 10)."""

    profile: str
    counter: int
    request: Request
    grant: Grant


class Refused(NamedTuple):
    """A packet at a knock port that opens nothing."""

    reason: Reason
    packet: Packet
    profile: str = ""
    """Whose knock it was; empty where that is unknown."""
    counter: int | None = None
    """The counter that is now used up and must be stored too (NOT_PERMITTED), else None."""
    request: Request | None = None


class Quiet(NamedTuple):
    """Refused packets that were not looked at closely, counted since the last event of any other kind."""

    packets: int


Event = Accepted | Refused | Quiet


class _Ear:
    """One profile, and the next counter that is acceptable from it."""

    __slots__ = ("first", "next", "number", "profile", "requests", "scheme", "streams", "window")

    def __init__(self, number: int, profile: Profile, next_counter: int, window: int) -> None:
        self.number, self.profile, self.window = number, profile, window
        self.first = self.next = next_counter
        """The first counter that was ever put into the table."""
        self.scheme = schemes.load(profile.format)
        self.requests = () if profile.bind_source else _requests(profile.format, profile.ports)
        """All that the profile can ask, if that is little and does not depend on who asks; else nothing."""
        self.streams: list[tuple[int, bytes]] | None = None if self.requests else self._window()
        """Kept where every packet is tried with them."""

    def heads(self, first: int, end: int) -> Iterator[int]:
        """The first 32 bits of all that the profile can say with some counters."""
        return self.scheme.heads(self.profile, first, min(end, MAX_COUNTER + 1) - first, self.requests)

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

    def explain(self, sealed: bytes, source: bytes) -> tuple[Reason, int, Request] | None:
        """The reason, counter and request of a knock of this profile that is used up, or may not be made."""
        first = max(0, self.next - self.window)
        end = min(self.next + self.window, MAX_COUNTER + 1)
        kinds = self.scheme.kinds(self.profile.format)
        for counter, stream in enumerate(self.scheme.keystreams(self.profile, first, end - first), first):
            if request := self.scheme.match(self.profile, counter, stream, sealed, source, kinds):
                return Reason.REPLAY if counter < self.next else Reason.NOT_PERMITTED, counter, request
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


class _Format(NamedTuple):
    """The profiles of one format at one knock port."""

    scheme: schemes.Scheme
    all: list[_Ear]
    untabled: list[_Ear]
    """Those whose knocks are too many to be computed ahead: each is tried with every packet."""


class Gatekeeper:
    """Decides on packets for a set of profiles.

    counters: the next counter that is acceptable, by profile name. delay: seconds that a door stays open. window: the
    look-ahead W. single_use: for profiles that do not say.
    """

    def __init__(
        self, profiles: Iterable[Profile], counters: Mapping[str, int], delay: int, window: int, single_use: bool
    ) -> None:
        self.delay, self.single_use = delay, single_use
        self._ports: dict[int, dict[str, _Format]] = defaultdict(dict)
        self._ears = [_Ear(number, one, counters[one.name], window) for number, one in enumerate(profiles)]
        self._heads = Heads(sum(len(ear.requests) for ear in self._ears) * window)
        for ear in self._ears:
            formats = self._ports[ear.profile.knock_port]
            group = formats.setdefault(ear.profile.format, _Format(ear.scheme, [], []))
            group.all.append(ear)
            if not ear.requests:
                group.untabled.append(ear)
            for head in ear.heads(ear.next, ear.next + window):
                self._heads.add(head, ear.number)
        self._quiet = 0
        self._second, self._explained = 0.0, 0

    def hear(self, packet: Packet, now: float) -> Event | None:
        """What to do about one packet; None: nothing, and nothing to say.

        now: seconds on any monotonic clock. An Accepted knock is used up from here on, as is a Refused one that has a
        counter.
        """
        if packet.port not in self._ports:
            return None
        for format, group in self._ports[packet.port].items():
            if (sealed := group.scheme.carried(format, packet)) is None:
                continue
            for ear in (*self._named(sealed, packet.port, format), *group.untabled):
                if heard := ear.hear(sealed, packet.source):
                    counter, request = heard
                    self._use_up(ear, counter)
                    grant = self._grant(ear.profile, request, packet.source)
                    return Accepted(ear.profile.name, counter, request, grant)
        return self._refuse(packet, now)

    def _named(self, sealed: bytes, port: int, format: str) -> list[_Ear]:
        """The profiles that may have said this, by the table: nearly always none, or the one."""
        ears = [self._ears[number] for number in self._heads.find(int.from_bytes(sealed[:4], "big"))]
        return [ear for ear in ears if ear.profile.knock_port == port and ear.profile.format == format]

    def _use_up(self, ear: _Ear, counter: int) -> None:
        """Slide a profile's window past a counter; the table keeps W used counters, to tell a replay from noise."""
        begin, end = ear.next, counter + 1
        for head in ear.heads(begin + ear.window, end + ear.window):
            self._heads.add(head, ear.number)
        for head in ear.heads(max(ear.first, begin - ear.window), max(ear.first, end - ear.window)):
            self._heads.remove(head, ear.number)
        ear.expect(end)

    def _refuse(self, packet: Packet, now: float) -> Event | None:
        if now - self._second >= 1:
            self._second, self._explained = now, 0
            if self._quiet:
                quiet, self._quiet = Quiet(self._quiet + 1), 0
                return quiet
        self._explained += 1
        if self._explained > EXPLAINED_PER_SECOND:
            self._quiet += 1
            return None
        for format, group in self._ports[packet.port].items():
            if (sealed := group.scheme.carried(format, packet)) is None:
                continue
            few = len(group.all) <= EXPLAINED_PROFILES
            for ear in group.all if few else self._named(sealed, packet.port, format):
                if found := ear.explain(sealed, packet.source):
                    return self._explained_refusal(ear, *found, packet)
        return Refused(Reason.UNKNOWN, packet)

    def _explained_refusal(self, ear: _Ear, reason: Reason, counter: int, request: Request, packet: Packet) -> Refused:
        if reason is Reason.REPLAY:
            return Refused(reason, packet, ear.profile.name, None, request)
        self._use_up(ear, counter)
        return Refused(reason, packet, ear.profile.name, counter, request)

    def _grant(self, profile: Profile, request: Request, source: bytes) -> Grant:
        if request.verb is Verb.CLOSE:
            return Grant(Order.CLOSE, source, request.protocol, request.port, 0)
        once = self.single_use if profile.single_use is None else profile.single_use
        return Grant(Order.OPEN_ONCE if once else Order.OPEN, source, request.protocol, request.port, self.delay)
