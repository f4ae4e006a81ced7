"""Recognises port sequences; the state of half-finished ones is bounded in number and time. Pure.

A source has a Progress for each sequence that it has begun, until the times of the profiles are over. Sources with one
knock and sources with more are kept apart, and where there are too many the one not heard for the longest time is
dropped: so a flood of first knocks displaces no source that has made two.
"""

from collections import OrderedDict

from ...core.events import Accepted, Event, granted, together
from ...core.packet import TCP, Packet
from ...core.profile import KnockPort, Settings
from ...core.request import Verb
from .automaton import LENIENT, NOTHING, STRICT, Progress, Track, advance
from .notation import Steps
from .profile import Profile

MAX_BEGUN, MAX_FURTHER = 32768, 16384
"""The most half-finished sequences of sources that have made one knock, and of sources that have made more."""
FEW = 3
"""The most unused one-time sequences with which each knock adds a warning to its event."""


class SequenceListener:
    """Decides on packets to the ports of sequences (protocols.Listener)."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._tracks: dict[int, Track] = {}
        self._of: dict[str, list[int]] = {}
        self._begin: dict[KnockPort, list[int]] = {}
        """The numbers of the tracks, by their first step."""
        self._next = 0
        self._used: dict[str, int] = {}
        """The number of used one-time sequences, by profile."""
        self._sources = tuple(Sources(most) for most in (MAX_BEGUN, MAX_FURTHER))
        self._longest = 0

    def add(self, profile: Profile, memory: int | None) -> None:
        used = max(memory or 0, self._used.get(profile.name, 0))
        if profile.name in self._of:
            self.remove(profile.name)
        self._longest = max(self._longest, profile.time)
        self._used[profile.name] = used
        self._place(profile)

    def _place(self, profile: Profile) -> None:
        """Listen for the profile's sequences; of one-time sequences, those in the look-ahead window."""
        used, table = self._used[profile.name], STRICT if profile.strict else LENIENT
        numbers = self._of[profile.name] = []
        wanted: list[tuple[Verb, Steps, int | None]] = [(Verb.CLOSE, profile.close, None)] if profile.close else []
        if not profile.one_time:
            wanted.append((Verb.OPEN, profile.steps, None))
        for later, steps in enumerate(profile.sequences[used : used + self.settings.window], used):
            wanted.append((Verb.OPEN, steps, later))
        for verb, steps, number in wanted:
            self._tracks[self._next] = Track(profile, verb, steps, number, table)
            self._begin.setdefault(steps[0], []).append(self._next)
            numbers.append(self._next)
            self._next += 1

    def remove(self, name: str) -> None:
        """Remove a profile. Raises KeyError if there is none of that name."""
        self._displace(name)
        del self._used[name]

    def _displace(self, name: str) -> None:
        for number in self._of.pop(name):
            first = self._tracks.pop(number).steps[0]
            self._begin[first].remove(number)
            if not self._begin[first]:
                del self._begin[first]

    def move(self, _clock: int) -> None:
        """Do nothing: sequences use the monotonic clock alone."""

    def next(self, _name: str) -> None:
        """Return None: a sequence is more than the fields of one packet."""

    def hear(self, packet: Packet, now: float) -> Event | None:
        """Return the event of all sequences that a packet completes, None if there is none."""
        for sources in self._sources:
            sources.forget(now - self._longest)
        begun, further = (sources.pop(packet.source) for sources in self._sources)
        begun = begun or further
        beginning = self._begin.get((packet.protocol, packet.port), ())
        if not begun and not beginning:
            return None
        heard: list[Accepted] = []
        for number in dict.fromkeys((*begun, *beginning)):
            track = self._tracks.get(number)
            if track and (packet.protocol != TCP or packet.flags & track.profile.flags[0] == track.profile.flags[1]):
                progress, obey = advance(track, begun.get(number, NOTHING), packet, now)
                begun[number] = progress
                if obey:
                    heard += self._obey(track, packet.source)
            if not track or begun[number] == NOTHING:
                begun.pop(number, None)
        if begun:
            self._sources[any(one.done > 1 for one in begun.values())].put(packet.source, begun, now)
        return together(heard)

    def _obey(self, track: Track, source: bytes) -> list[Accepted]:
        profile, memory, warning = track.profile, None, ""
        if track.number is not None:
            self._used[profile.name] = track.number + 1
            self._displace(profile.name)
            self._place(profile)
            memory, left = track.number + 1, len(profile.sequences) - track.number - 1
            if left <= FEW:
                warning = (
                    f"{left or 'no'} one-time sequences are left: append new ones to {profile.one_time}, on both sides"
                )
        requests = profile.requests(track.verb)
        made = [(request, granted(self.settings, request, source, profile)) for request in requests]
        return [Accepted(profile.name, track.number, *one, memory, warning) for one in made]


class Sources:
    """Half-finished sequences by source, in the order of last knocks; with too many, the oldest source is dropped."""

    def __init__(self, most: int) -> None:
        """most: half-finished sequences of all sources together."""
        self._most, self._begun = most, 0
        self._known: OrderedDict[bytes, tuple[float, dict[int, Progress]]] = OrderedDict()

    def __len__(self) -> int:
        return self._begun

    def pop(self, source: bytes) -> dict[int, Progress]:
        """Remove a source, and return the progress by number of the sequence."""
        _, begun = self._known.pop(source, (0.0, {}))
        self._begun -= len(begun)
        return begun

    def put(self, source: bytes, begun: dict[int, Progress], now: float) -> None:
        """Add a source that is not there."""
        self._known[source] = now, begun
        self._begun += len(begun)
        while self._begun > self._most and len(self._known) > 1:
            self.pop(next(iter(self._known)))

    def forget(self, before: float) -> None:
        """Forget two sources at most that were not heard since a time; each packet adds no more than one."""
        for _ in range(2):
            if not self._known or next(iter(self._known.values()))[0] >= before:
                return
            self.pop(next(iter(self._known)))


def new_listener(settings: Settings, _expected: int) -> SequenceListener:
    """Return a listener of port sequences (schemes.new_listener)."""
    return SequenceListener(settings)
