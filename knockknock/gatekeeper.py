"""A packet comes in, an event goes out. Keys, counters, look-ahead and replays live here; no I/O, no clock."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from . import schemes
from .grant import Grant, Order
from .packet import Packet
from .profile import MAX_COUNTER, Profile
from .request import Request, Verb

EXPLAINED_PER_SECOND = 10
"""How many refused packets a second are looked at for a reason, which costs many times a plain refusal."""


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
    """What one profile can say next: the keystreams of its look-ahead window, made once and used for every packet."""

    def __init__(self, profile: Profile, next_counter: int, window: int) -> None:
        self.profile = profile
        self.scheme = schemes.load(profile.format)
        self.window = window
        self.kinds = self.scheme.kinds(profile.format)
        runs = [range(one.first, one.last + 1) for one in profile.ports]
        self.ports = runs[0] if len(runs) == 1 else frozenset(port for run in runs for port in run)
        self.expect(next_counter)

    def expect(self, next_counter: int) -> None:
        """Slide the window to the next counter that will be accepted."""
        self.next = next_counter
        count = min(self.window, MAX_COUNTER + 1 - next_counter)
        self.streams = self.scheme.keystreams(self.profile, next_counter, count)
        self.heads = [int.from_bytes(stream[:2], "big") for stream in self.streams]

    def hear(self, sealed: bytes, source: bytes) -> tuple[int, Request] | None:
        """The counter and the request of a knock that this profile may make now."""
        head = int.from_bytes(sealed[:2], "big")
        for offset, mask in enumerate(self.heads):
            if (head ^ mask) in self.ports:
                requests = [one for one in self._requests(head ^ mask) if self.profile.permits(one)]
                counter = self.next + offset
                if request := self.scheme.match(self.profile, counter, self.streams[offset], sealed, source, requests):
                    return counter, request
        return None

    def explain(self, sealed: bytes, source: bytes) -> tuple[Reason, int, Request] | None:
        """The reason, counter and request of a knock of this profile that is used up, or may not be made."""
        first = max(0, self.next - self.window)
        streams = self.scheme.keystreams(self.profile, first, self.next - first) + self.streams
        for counter, stream in enumerate(streams, first):
            port = int.from_bytes(sealed[:2], "big") ^ int.from_bytes(stream[:2], "big")
            if request := self.scheme.match(self.profile, counter, stream, sealed, source, self._requests(port)):
                return Reason.REPLAY if counter < self.next else Reason.NOT_PERMITTED, counter, request
        return None

    def _requests(self, port: int) -> list[Request]:
        return [Request(verb, protocol, port) for verb, protocol in self.kinds]


class Gatekeeper:
    """Decides on packets for a set of profiles.

    counters: the next counter that is acceptable, by profile name. delay: seconds that a door stays open. window: the
    look-ahead W. single_use: for profiles that do not say.
    """

    def __init__(
        self, profiles: Iterable[Profile], counters: Mapping[str, int], delay: int, window: int, single_use: bool
    ) -> None:
        self.delay, self.single_use = delay, single_use
        self._ears: dict[int, list[_Ear]] = defaultdict(list)
        for profile in profiles:
            self._ears[profile.knock_port].append(_Ear(profile, counters[profile.name], window))
        self._quiet = 0
        self._second, self._explained = 0.0, 0

    def hear(self, packet: Packet, now: float) -> Event | None:
        """What to do about one packet; None: nothing, and nothing to say.

        now: seconds on any monotonic clock. Whatever this returns, the knock in the packet is used up from here on.
        """
        ears = self._ears.get(packet.port, ())
        for ear in ears:
            sealed = ear.scheme.carried(ear.profile.format, packet)
            if sealed and (heard := ear.hear(sealed, packet.source)):
                counter, request = heard
                ear.expect(counter + 1)
                return Accepted(ear.profile.name, counter, request, self._grant(ear.profile, request, packet.source))
        return self._refuse(ears, packet, now) if ears else None

    def _refuse(self, ears: Iterable[_Ear], packet: Packet, now: float) -> Event | None:
        if now - self._second >= 1:
            self._second, self._explained = now, 0
            if self._quiet:
                quiet, self._quiet = Quiet(self._quiet + 1), 0
                return quiet
        self._explained += 1
        if self._explained > EXPLAINED_PER_SECOND:
            self._quiet += 1
            return None
        for ear in ears:
            sealed = ear.scheme.carried(ear.profile.format, packet)
            if sealed and (found := ear.explain(sealed, packet.source)):
                reason, counter, request = found
                if reason is Reason.REPLAY:
                    return Refused(reason, packet, ear.profile.name, None, request)
                ear.expect(counter + 1)
                return Refused(reason, packet, ear.profile.name, counter, request)
        return Refused(Reason.UNKNOWN, packet)

    def _grant(self, profile: Profile, request: Request, source: bytes) -> Grant:
        if request.verb is Verb.CLOSE:
            return Grant(Order.CLOSE, source, request.protocol, request.port, 0)
        once = self.single_use if profile.single_use is None else profile.single_use
        return Grant(Order.OPEN_ONCE if once else Order.OPEN, source, request.protocol, request.port, self.delay)
