"""Recognises port sequences; the state of half-finished ones is bounded in number and time. Pure.

State of a source: for each sequence that it has begun, an Attempt. What a source is remembered for ends with the times
of the profiles. Sources that have made one knock and sources that are further each have a place of their own, and when
it is full the one goes that was not heard for the longest: who floods first knocks pushes out no one who has two.
"""

from collections import OrderedDict

from ..events import Accepted, Event, granted, together
from ..packet import TCP, Packet
from ..request import Verb
from . import KnockPort, Settings
from .matcher import LENIENT, NOTHING, STRICT, Attempt, Track, advance
from .sequence import Profile
from .steps import Steps

MAX_BEGUN, MAX_FURTHER = 32768, 16384
"""Attempts by sources that have made one knock, and by those that have made more."""
FEW = 3
"""One-time sequences left, from which on each knock leads to a warning."""


class SequenceListener:
    """Decides on packets to the ports of sequences (schemes.Listener)."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._tracks: dict[int, Track] = {}
        self._of: dict[str, list[int]] = {}
        self._begin: dict[KnockPort, list[int]] = {}
        """Sequences by their first step."""
        self._next = 0
        self._used: dict[str, int] = {}
        """One-time sequences that are used up, by profile."""
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
        """Listen for what the profile can say now: of one-time sequences the next ones, as some may get lost."""
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
        """Hear a profile no more. Raises KeyError if there is none of that name."""
        self._displace(name)
        del self._used[name]

    def _displace(self, name: str) -> None:
        for number in self._of.pop(name):
            first = self._tracks.pop(number).steps[0]
            self._begin[first].remove(number)
            if not self._begin[first]:
                del self._begin[first]

    def move(self, _clock: int) -> None:
        """Sequences go by the monotonic clock alone."""

    def next(self, _name: str) -> None:
        """Knocks are told by more than one packet's fields."""

    def hear(self, packet: Packet, now: float) -> Event | None:
        """The doors of all sequences that a packet completes."""
        for sources in self._sources:
            sources.forget(now - self._longest)
        begun, further = (sources.pop(packet.source) for sources in self._sources)
        attempts = begun or further
        beginning = self._begin.get((packet.protocol, packet.port), ())
        if not attempts and not beginning:
            return None
        heard: list[Accepted] = []
        for number in dict.fromkeys((*attempts, *beginning)):
            track = self._tracks.get(number)
            if track and (packet.protocol != TCP or packet.flags & track.profile.flags[0] == track.profile.flags[1]):
                attempt, obey = advance(track, attempts.get(number, NOTHING), packet, now)
                attempts[number] = attempt
                if obey:
                    heard += self._obey(track, packet.source)
            if not track or attempts[number] == NOTHING:
                attempts.pop(number, None)
        if attempts:
            self._sources[any(one.done > 1 for one in attempts.values())].put(packet.source, attempts, now)
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
    """Attempts by source, in the order in which they were heard last; the oldest goes when there are too many."""

    def __init__(self, most: int) -> None:
        """most: attempts, of all sources together."""
        self._most, self._attempts = most, 0
        self._known: OrderedDict[bytes, tuple[float, dict[int, Attempt]]] = OrderedDict()

    def __len__(self) -> int:
        return self._attempts

    def pop(self, source: bytes) -> dict[int, Attempt]:
        """Take a source out."""
        _, attempts = self._known.pop(source, (0.0, {}))
        self._attempts -= len(attempts)
        return attempts

    def put(self, source: bytes, attempts: dict[int, Attempt], now: float) -> None:
        """Put in a source that is not there."""
        self._known[source] = now, attempts
        self._attempts += len(attempts)
        while self._attempts > self._most and len(self._known) > 1:
            self.pop(next(iter(self._known)))

    def forget(self, before: float) -> None:
        """Forget who was not heard since then; two at most, which is more than come in."""
        for _ in range(2):
            if not self._known or next(iter(self._known.values()))[0] >= before:
                return
            self.pop(next(iter(self._known)))
