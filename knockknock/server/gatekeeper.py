"""Hands each packet to the listener of its port, and returns an event. No I/O, no clock."""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import reduce
from typing import TYPE_CHECKING

from .. import schemes
from ..core.events import Event, both
from ..core.packet import Packet
from ..core.profile import KnockPort, Profile, Settings

if TYPE_CHECKING:
    from ..schemes.protocols import Listener
    from ..schemes.values import Next

Hear = Callable[[Packet, float], Event | None]


class Gatekeeper:
    """Decides on packets by profiles of any scheme, which may be added and removed one by one between two packets.

    expected: the number of profiles to come, so that tables need not grow much.
    """

    def __init__(self, settings: Settings, expected: int = 0) -> None:
        self._settings, self._expected, self._clock = settings, expected, 0
        self._listeners: dict[str, Listener[Profile, object]] = {}
        self._profiles: dict[str, Profile] = {}
        self._places: Counter[str] = Counter()
        self._watchers: dict[KnockPort, Counter[str]] = {}
        """The number of profiles of each scheme that knock at a port."""
        self._at: dict[int, Hear] = {}
        """By protocol << 16 | port, which is cheaper than a pair for each packet of a flood."""

    def __len__(self) -> int:
        return len(self._profiles)

    def names(self) -> set[str]:
        """The names of the present profiles."""
        return set(self._profiles)

    @property
    def knock_ports(self) -> Iterable[KnockPort]:
        """The knock ports of all profiles."""
        return self._watchers.keys()

    @property
    def places(self) -> Iterable[str]:
        """The knock ports for people, without anything secret."""
        return self._places.keys()

    @property
    def settings(self) -> Settings:
        """The settings may be replaced; values derived from them change only for profiles added afterwards."""
        return self._settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self._settings = settings
        for listener in self._listeners.values():
            listener.settings = settings

    def profile(self, name: str) -> Profile | None:
        """The profile of a name, None if there is none."""
        return self._profiles.get(name)

    def add(self, profile: Profile, memory: object) -> None:
        """Add a profile, or replace the one of its name.

        memory: the result of Scheme.recall(); None keeps that of a replaced profile of the same scheme.
        """
        before = self._profiles.get(profile.name)
        if before and before.scheme != profile.scheme:
            self.remove(profile.name)
        elif before:
            self._watch(before, -1)
        self._listener(profile.scheme).add(profile, memory)
        self._profiles[profile.name] = profile
        self._watch(profile, 1)

    def remove(self, name: str) -> None:
        """Remove a profile. Raises KeyError if there is none of that name."""
        profile = self._profiles.pop(name)
        self._listeners[profile.scheme].remove(name)
        self._watch(profile, -1)

    def next(self, name: str) -> "Next | None":
        """The fields of a profile's next knocks; None if they cannot be listed, or there is no such profile."""
        profile = self._profiles.get(name)
        return self._listeners[profile.scheme].next(name) if profile else None

    def _listener(self, scheme: str) -> "Listener[Profile, object]":
        if scheme not in self._listeners:
            self._listeners[scheme] = schemes.new_listener(scheme, self._settings, self._expected)
            self._listeners[scheme].move(self._clock)
        return self._listeners[scheme]

    def _watch(self, profile: Profile, change: int) -> None:
        self._places[profile.where] += change
        if not self._places[profile.where]:
            del self._places[profile.where]
        for port in set(profile.knock_ports):
            counts = self._watchers.setdefault(port, Counter())
            counts[profile.scheme] += change
            if not counts[profile.scheme]:
                del counts[profile.scheme]
            if counts:
                self._at[port[0] << 16 | port[1]] = _all([self._listeners[scheme].hear for scheme in counts])
            else:
                del self._watchers[port], self._at[port[0] << 16 | port[1]]

    def move(self, clock: int) -> None:
        """Set the time of day of all listeners, in seconds since 1970. Must be called before hear()."""
        if clock != self._clock:
            self._clock = clock
            for listener in self._listeners.values():
                listener.move(clock)

    def hear(self, packet: Packet, now: float) -> Event | None:
        """Return the event of one packet, None if there is none.

        now: seconds on any monotonic clock. A knock in the packet is now used up, whatever the caller does.
        """
        hear = self._at.get(packet.protocol << 16 | packet.port)
        return hear(packet, now) if hear else None


def _all(hears: list[Hear]) -> Hear:
    """Return a function that calls all listeners; a single one, the usual case, is returned as it is."""

    def hear(packet: Packet, now: float) -> Event | None:
        return reduce(both, [one(packet, now) for one in hears])

    return hears[0] if len(hears) == 1 else hear
