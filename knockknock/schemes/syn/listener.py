"""Recognises encrypted SYNs: keys, counters, look-ahead window, replays (PROTOCOL.md step 9). No I/O, no clock."""

from collections.abc import Iterable
from typing import NamedTuple

from ...core.events import Accepted, Event, Quiet, Reason, Refused, granted
from ...core.packet import SYN, Packet
from ...core.profile import Settings
from ...core.request import Request
from ..values import Next
from . import seal
from .candidates import Candidates
from .profile import Profile
from .window import ProfileWindow, forget_keys

EXPLAINED_PER_SECOND = 10
"""Refused packets a second that are reported one by one, with a reason if the table leads to one."""
SEARCHED_PER_SECOND = 2
"""The first of these in a second are searched for ports that are not permitted and counters far ahead, too, at a
thousand times the cost of a plain refusal."""
EXPLAINED_PROFILES = 30
"""The most profiles of one format at one knock port that are all searched; of more, only those the table names."""


class _Format(NamedTuple):
    """The profiles of one format at one knock port, by name."""

    all: dict[str, ProfileWindow]
    untabled: dict[str, ProfileWindow]
    """The profiles whose knocks are not computed ahead: each is tried with every packet."""


class SynListener:
    """Decides on SYNs (protocols.Listener)."""

    def __init__(self, settings: Settings, expected: int) -> None:
        self.settings = settings
        self._ports: dict[int, dict[str, _Format]] = {}
        self._untabled: set[int] = set()
        """The knock ports of profiles that are not in the table: this saves a tenth of the time of junk."""
        self._windows: dict[str, ProfileWindow] = {}
        self._numbered: list[ProfileWindow | None] = []
        self._free: list[int] = []
        self._candidates = Candidates(2 * expected * settings.window)  # most may open one port, and close it
        self._late: list[tuple[int, Iterable[int], Iterable[int]]] = []
        """Delayed changes of the table: a profile's number, the prefixes that leave, the prefixes that enter."""
        self._quiet = 0
        self._second, self._explained = 0.0, 0
        self._clocked: dict[str, ProfileWindow] = {}
        self._clock = 0

    def add(self, profile: Profile, memory: int | None) -> None:
        """Add a profile, or replace the one of its name.

        memory: the next counter to accept, 0 if None; a higher one of a replaced profile with the same keys stays.
        """
        self._catch_up()
        before, next_counter = self._windows.get(profile.name), memory or 0
        if before:
            if before.profile[1:3] == profile[1:3]:
                next_counter = max(next_counter, before.next)
            self.remove(profile.name)
        number = self._free.pop() if self._free else len(self._numbered)
        window = ProfileWindow(number, profile, next_counter, self.settings, self._clock)
        if profile.clock:
            self._clocked[profile.name] = window
        self._numbered[number : number + 1] = [window]
        self._windows[profile.name] = window
        formats = self._ports.setdefault(profile.knock_port, {})
        group = formats.setdefault(profile.format, _Format({}, {}))
        group.all[profile.name] = window
        if not window.requests:
            group.untabled[profile.name] = window
            self._untabled.add(profile.knock_port)
        self._swap(number, (), window.tabled())

    def remove(self, name: str) -> None:
        """Remove a profile. Raises KeyError if there is none of that name."""
        self._catch_up()
        window = self._windows.pop(name)
        self._clocked.pop(name, None)
        self._swap(window.number, window.tabled(), ())
        port, format = window.profile.knock_port, window.profile.format
        group = self._ports[port][format]
        del group.all[name]
        group.untabled.pop(name, None)
        if not any(one.untabled for one in self._ports[port].values()):
            self._untabled.discard(port)
        if not group.all:
            del self._ports[port][format]
        if not self._ports[port]:
            del self._ports[port]
        self._numbered[window.number] = None
        self._free.append(window.number)
        forget_keys()

    def move(self, clock: int) -> None:
        """Set the time of day, in seconds since 1970, and slide the windows of clock profiles.

        The work grows with the seconds that have passed, up to the size of the window.
        """
        if clock == self._clock:
            return
        self._catch_up()
        self._clock = clock
        for window in self._clocked.values():
            self._swap(window.number, *window.move(clock))

    def next(self, name: str) -> Next | None:
        """The fields of a profile's next knocks; None for a clock profile, and for one that is not in the table."""
        self._catch_up()  # after a knock this is asked for when its door is open, and nobody waits
        window = self._windows[name]
        if window.profile.clock or not window.requests:
            return None
        return Next(window.profile.format, len(window.requests), window.next, window.values)

    def _swap(self, number: int, leave: Iterable[int], come: Iterable[int]) -> None:
        for prefix in leave:
            self._candidates.remove(prefix, number)
        for prefix in come:
            self._candidates.add(prefix, number)

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
        numbers = self._candidates.find((packet.ident & 0xFFFF) << 16 | packet.sequence >> 16)
        if not numbers and packet.port not in self._untabled:
            return self._refuse(packet, numbers, now)  # nearly every packet of a flood ends here
        for format, group in formats.items():
            if (sealed := seal.carried(format, packet)) is None:
                continue
            for window in (*self._named(numbers, group), *group.untabled.values()):
                if heard := window.hear(sealed, packet.source, now):
                    return self._accept(window, *heard, packet)
        return self._refuse(packet, numbers, now)

    def _accept(self, window: ProfileWindow, counter: int, request: Request, packet: Packet) -> Accepted | Refused:
        self._use_up(window, counter)
        if window.profile.expires is not None and self._clock >= window.profile.expires:
            return Refused(Reason.EXPIRED, packet, window.profile.name, counter, request, counter + 1)
        grant = granted(self.settings, request, packet.source, window.profile)
        return Accepted(window.profile.name, counter, request, grant, counter + 1)

    def _named(self, numbers: list[int], group: _Format) -> list[ProfileWindow]:
        """The profiles of a group with these numbers of the table: nearly always none or one."""
        return [window for number in numbers if (window := self._numbered[number]) and window.profile.name in group.all]

    def _use_up(self, window: ProfileWindow, counter: int) -> None:
        """Slide a profile's window past a counter; the table follows later, because a client waits."""
        self._late.append((window.number, *window.expect(counter + 1)))

    def _catch_up(self) -> None:
        for number, leave, come in self._late:
            self._swap(number, leave, come)
            if window := self._numbered[number]:
                window.prepare()
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
            if (sealed := seal.carried(format, packet)) is None:
                continue
            few = search and len(group.all) <= EXPLAINED_PROFILES
            for window in group.all.values() if few else self._named(numbers, group):
                if found := window.explain(sealed, packet.source):
                    return self._explained_refusal(window, *found, packet)
                if few and far and (found := window.hear_ahead(sealed, packet.source, far)):
                    return self._ahead(window, *found, packet)
        return Refused(Reason.UNKNOWN, packet)

    def _ahead(self, window: ProfileWindow, counter: int, request: Request, packet: Packet) -> Event:
        """Accept the second of two knocks in a row beyond the window (RFC 4226 section 7.4); refuse the first."""
        if counter == window.ahead:
            return self._accept(window, counter, request, packet)
        window.ahead = counter + 1
        return Refused(Reason.AHEAD, packet, window.profile.name, None, request)

    def _explained_refusal(self, window: ProfileWindow, counter: int, request: Request, packet: Packet) -> Event:
        if counter < window.next:  # not only for the log: what follows may accept
            return Refused(Reason.REPLAY, packet, window.profile.name, None, request)
        if window.profile.permits(request):  # not tried before, as the tries of a second are limited
            return self._accept(window, counter, request, packet)
        self._use_up(window, counter)
        return Refused(Reason.NOT_PERMITTED, packet, window.profile.name, counter, request, counter + 1)


def new_listener(settings: Settings, expected: int) -> SynListener:
    """Return a listener of encrypted SYNs (schemes.new_listener)."""
    return SynListener(settings, expected)
