"""The state machine of one sequence from one source, as a table of transitions. Pure.

docs/PROTOCOL.md, "Port sequences", describes it in words.
"""

from enum import Enum, auto
from typing import NamedTuple

from ...core.packet import TCP, Packet
from ...core.request import Verb
from .notation import Steps
from .profile import Profile


class State(Enum):
    IDLE = auto()
    UNDER_WAY = auto()
    """More than one step is missing."""
    LAST_MISSING = auto()


class Arrival(Enum):
    """The kind of a packet, by a sequence and the steps that its source has done."""

    STEP = auto()
    """The awaited step; more than one is missing after it."""
    STEP_BUT_ONE = auto()
    """The awaited step; the last is missing after it."""
    LAST_STEP = auto()
    FIRST = auto()
    """Not awaited, but the first step of three or more."""
    FIRST_OF_TWO = auto()
    OTHER = auto()
    """To any other port of this sequence or another one."""
    COPY = auto()
    """A copy of a counted packet: retransmitted, or duplicated on the way."""
    LATE = auto()
    """Too late for this progress; the packet is classified again, as if nothing had been before."""


class Action(Enum):
    NONE = auto()
    BEGIN = auto()
    COUNT = auto()
    FORGET = auto()
    OBEY = auto()


Table = dict[tuple[State, Arrival], tuple[State, Action]]

STRICT: Table = {
    (State.IDLE, Arrival.STEP): (State.UNDER_WAY, Action.BEGIN),
    (State.IDLE, Arrival.STEP_BUT_ONE): (State.LAST_MISSING, Action.BEGIN),
    (State.IDLE, Arrival.OTHER): (State.IDLE, Action.NONE),
    (State.IDLE, Arrival.COPY): (State.IDLE, Action.NONE),
    (State.IDLE, Arrival.LATE): (State.IDLE, Action.FORGET),
    (State.UNDER_WAY, Arrival.STEP): (State.UNDER_WAY, Action.COUNT),
    (State.UNDER_WAY, Arrival.STEP_BUT_ONE): (State.LAST_MISSING, Action.COUNT),
    (State.UNDER_WAY, Arrival.FIRST): (State.UNDER_WAY, Action.BEGIN),
    (State.UNDER_WAY, Arrival.OTHER): (State.IDLE, Action.FORGET),
    (State.UNDER_WAY, Arrival.COPY): (State.UNDER_WAY, Action.NONE),
    (State.UNDER_WAY, Arrival.LATE): (State.IDLE, Action.FORGET),
    (State.LAST_MISSING, Arrival.LAST_STEP): (State.IDLE, Action.OBEY),
    (State.LAST_MISSING, Arrival.FIRST): (State.UNDER_WAY, Action.BEGIN),
    (State.LAST_MISSING, Arrival.FIRST_OF_TWO): (State.LAST_MISSING, Action.BEGIN),
    (State.LAST_MISSING, Arrival.OTHER): (State.IDLE, Action.FORGET),
    (State.LAST_MISSING, Arrival.COPY): (State.LAST_MISSING, Action.NONE),
    (State.LAST_MISSING, Arrival.LATE): (State.IDLE, Action.FORGET),
}
LENIENT: Table = STRICT | {
    (state, arrival): (state, Action.NONE)
    for state in (State.UNDER_WAY, State.LAST_MISSING)
    for arrival in (Arrival.FIRST, Arrival.FIRST_OF_TWO, Arrival.OTHER)
    if (state, arrival) in STRICT
}
"""A wrong arrival changes nothing."""

Copy = tuple[int, int, int, int]
"""The fields that all copies of a packet share: protocol, port, source port, sequence number or identification."""


class Progress(NamedTuple):
    """The progress of a source in one sequence."""

    state: State
    done: int
    """Steps done."""
    began: float
    last: float
    counted: tuple[Copy, ...]


class Track(NamedTuple):
    """One sequence that is listened for."""

    profile: Profile
    verb: Verb
    steps: Steps
    number: int | None
    """The index of a one-time sequence in its file; else None."""
    table: Table


NOTHING = Progress(State.IDLE, 0, 0.0, 0.0, ())


def advance(track: Track, progress: Progress, packet: Packet, now: float) -> tuple[Progress, bool]:
    """Return the progress after a packet, and whether the sequence is complete."""
    identity = packet.sequence if packet.protocol == TCP else packet.ident
    copy = packet.protocol, packet.port, packet.source_port, identity
    # All datagrams of a socket share a flow label, and may share the identification 0 (RFC 6864).
    sure = packet.protocol == TCP or (len(packet.source) == 4 and packet.ident > 0)
    state, action = track.table[progress.state, arrival := classify(track, progress, copy, now, sure)]
    if arrival is Arrival.LATE:
        return advance(track, NOTHING, packet, now)
    if action is Action.NONE:
        return progress, False
    if action is Action.FORGET:
        return NOTHING, False
    if action is Action.BEGIN:
        return Progress(state, 1, now, now, (copy,)), False
    counted = (*progress.counted, copy)
    if action is Action.OBEY:  # counted packets are remembered for a while, so that their copies begin nothing
        return Progress(state, 0, progress.began, now, counted), True
    return Progress(state, progress.done + 1, progress.began, now, counted), False


def classify(track: Track, progress: Progress, copy: Copy, now: float, sure: bool) -> Arrival:
    """Classify a packet; sure: only copies of one packet have the same `copy`."""
    profile, steps = track.profile, track.steps
    under_way = progress.state is not State.IDLE
    if progress.counted and (
        now - progress.last > profile.time or (under_way and now - progress.began > profile.total_time)
    ):
        return Arrival.LATE
    if copy in progress.counted and (sure or copy[:2] != steps[progress.done]):
        return Arrival.COPY
    missing = len(steps) - progress.done - 1
    if copy[:2] == steps[progress.done]:
        return Arrival.LAST_STEP if not missing else Arrival.STEP_BUT_ONE if missing == 1 else Arrival.STEP
    if copy[:2] == steps[0]:
        return Arrival.FIRST_OF_TWO if len(steps) == 2 else Arrival.FIRST
    return Arrival.OTHER
