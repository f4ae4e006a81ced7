"""Recognises encrypted SYNs: keys, counters, look-ahead window, replays (PROTOCOL.md step 9). No I/O, no clock."""

from collections.abc import Iterable
from typing import NamedTuple

from ..events import Accepted, Event, Quiet, Reason, Refused, granted
from ..packet import SYN, Packet
from ..request import Request
from . import Next, Settings, syn
from .ear import Ear
from .heads import Heads
from .synprofile import Profile

EXPLAINED_PER_SECOND = 10
"""Refused packets a second that are reported one by one, with a reason if the table leads to one."""
SEARCHED_PER_SECOND = 2
"""The first of these in a second are searched for ports that are not permitted and counters far ahead, too, at a
thousand times the cost of a plain refusal."""
EXPLAINED_PROFILES = 30
"""The most profiles of one format at one knock port that are all searched; of more, only those the table names."""


class _Format(NamedTuple):
    """The profiles of one format at one knock port, by name."""

    all: dict[str, Ear]
    untabled: dict[str, Ear]
    """The profiles whose knocks are not computed ahead: each is tried with every packet."""


class SynListener:
    """Decides on SYNs (schemes.Listener)."""

    def __init__(self, settings: Settings, expected: int) -> None:
        self.settings = settings
        self._ports: dict[int, dict[str, _Format]] = {}
        self._untabled: set[int] = set()
        """The knock ports of profiles that are not in the table: this saves a tenth of the time of junk."""
        self._ears: dict[str, Ear] = {}
        self._numbered: list[Ear | None] = []
        self._free: list[int] = []
        self._heads = Heads(2 * expected * settings.window)  # most may open one port, and close it
        self._late: list[tuple[int, Iterable[int], Iterable[int]]] = []
        """Delayed changes of the table: a profile's number, the heads that leave, the heads that enter."""
        self._quiet = 0
        self._second, self._explained = 0.0, 0
        self._clocked: dict[str, Ear] = {}
        self._clock = 0

    def add(self, profile: Profile, memory: int | None) -> None:
        """Add a profile, or replace the one of its name.

        memory: the next counter to accept, 0 if None; a higher one of a replaced profile with the same keys stays.
        """
        self._catch_up()
        before, next_counter = self._ears.get(profile.name), memory or 0
        if before:
            if before.profile[1:3] == profile[1:3]:
                next_counter = max(next_counter, before.next)
            self.remove(profile.name)
        number = self._free.pop() if self._free else len(self._numbered)
        ear = Ear(number, profile, next_counter, self.settings, self._clock)
        if profile.clock:
            self._clocked[profile.name] = ear
        self._numbered[number : number + 1] = [ear]
        self._ears[profile.name] = ear
        formats = self._ports.setdefault(profile.knock_port, {})
        group = formats.setdefault(profile.format, _Format({}, {}))
        group.all[profile.name] = ear
        if not ear.requests:
            group.untabled[profile.name] = ear
            self._untabled.add(profile.knock_port)
        self._swap(number, (), ear.tabled())

    def remove(self, name: str) -> None:
        """Remove a profile. Raises KeyError if there is none of that name."""
        self._catch_up()
        ear = self._ears.pop(name)
        self._clocked.pop(name, None)
        self._swap(ear.number, ear.tabled(), ())
        port, format = ear.profile.knock_port, ear.profile.format
        group = self._ports[port][format]
        del group.all[name]
        group.untabled.pop(name, None)
        if not any(one.untabled for one in self._ports[port].values()):
            self._untabled.discard(port)
        if not group.all:
            del self._ports[port][format]
        if not self._ports[port]:
            del self._ports[port]
        self._numbered[ear.number] = None
        self._free.append(ear.number)

    def move(self, clock: int) -> None:
        """Set the time of day, in seconds since 1970, and slide the windows of clock profiles.

        The window bounds the work, and most often the seconds that have passed do.
        """
        if clock == self._clock:
            return
        self._catch_up()
        self._clock = clock
        for ear in self._clocked.values():
            self._swap(ear.number, *ear.move(clock))

    def next(self, name: str) -> Next | None:
        """The fields of a profile's next knocks; None for a clock profile, and for one that is not in the table."""
        ear = self._ears[name]
        if ear.profile.clock or not ear.requests:
            return None
        return Next(ear.profile.format, len(ear.requests), ear.next, ear.values)

    def _swap(self, number: int, leave: Iterable[int], come: Iterable[int]) -> None:
        for head in leave:
            self._heads.remove(head, number)
        for head in come:
            self._heads.add(head, number)

    def hear(self, packet: Packet, now: float) -> Event | None:
        """Return the event of one packet, None if there is none.

        now: seconds on any monotonic clock. The knock of an Accepted, or of a Refused with a counter, is now used up.
        """
        formats = self._ports.get(packet.port)
        if not formats or packet.flags != SYN:
            return None
        if self._late:
            self._catch_up()
        # The first 32 sealed bits are in the same fields in every format (PROTOCOL.md step 6).
        numbers = self._heads.find((packet.ident & 0xFFFF) << 16 | packet.sequence >> 16)
        if not numbers and packet.port not in self._untabled:
            return self._refuse(packet, numbers, now)  # nearly every packet of a flood ends here
        for format, group in formats.items():
            if (sealed := syn.carried(format, packet)) is None:
                continue
            for ear in (*self._named(numbers, group), *group.untabled.values()):
                if heard := ear.hear(sealed, packet.source):
                    return self._accept(ear, *heard, packet)
        return self._refuse(packet, numbers, now)

    def _accept(self, ear: Ear, counter: int, request: Request, packet: Packet) -> Accepted | Refused:
        self._use_up(ear, counter)
        if ear.profile.expires is not None and self._clock >= ear.profile.expires:
            return Refused(Reason.EXPIRED, packet, ear.profile.name, counter, request, counter + 1)
        grant = granted(self.settings, request, packet.source, ear.profile)
        return Accepted(ear.profile.name, counter, request, grant, counter + 1)

    def _named(self, numbers: list[int], group: _Format) -> list[Ear]:
        """The profiles of a group with these numbers of the table: nearly always none or one."""
        return [ear for number in numbers if (ear := self._numbered[number]) and ear.profile.name in group.all]

    def _use_up(self, ear: Ear, counter: int) -> None:
        """Slide a profile's window past a counter; the table follows later, because a client waits."""
        self._late.append((ear.number, *ear.expect(counter + 1)))

    def _catch_up(self) -> None:
        for number, leave, come in self._late:
            self._swap(number, leave, come)
        self._late.clear()

    def _refuse(self, packet: Packet, numbers: list[int], now: float) -> Event | None:
        if now - self._second >= 1:
            self._second, self._explained = now, 0
            if self._quiet:
                quiet, self._quiet = Quiet(self._quiet + 1), 0
                return quiet
        self._explained += 1
        if self._explained > EXPLAINED_PER_SECOND:
            self._quiet += 1
            return None
        search, far = self._explained <= SEARCHED_PER_SECOND, self.settings.resync
        for format, group in self._ports[packet.port].items():
            if (sealed := syn.carried(format, packet)) is None:
                continue
            few = search and len(group.all) <= EXPLAINED_PROFILES
            for ear in group.all.values() if few else self._named(numbers, group):
                if found := ear.explain(sealed, packet.source):
                    return self._explained_refusal(ear, *found, packet)
                if few and far and (found := ear.hear_ahead(sealed, packet.source, far)):
                    return self._ahead(ear, *found, packet)
        return Refused(Reason.UNKNOWN, packet)

    def _ahead(self, ear: Ear, counter: int, request: Request, packet: Packet) -> Event:
        """Accept the second of two knocks in a row beyond the window (RFC 4226 section 7.4); refuse the first."""
        if counter == ear.ahead:
            return self._accept(ear, counter, request, packet)
        ear.ahead = counter + 1
        return Refused(Reason.AHEAD, packet, ear.profile.name, None, request)

    def _explained_refusal(self, ear: Ear, counter: int, request: Request, packet: Packet) -> Refused:
        if counter < ear.next:
            return Refused(Reason.REPLAY, packet, ear.profile.name, None, request)
        self._use_up(ear, counter)
        return Refused(Reason.NOT_PERMITTED, packet, ear.profile.name, counter, request, counter + 1)
