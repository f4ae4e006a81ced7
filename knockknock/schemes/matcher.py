"""The automaton of one sequence and one source: a table of (state, knock) to (state, action). Pure.

docs/PROTOCOL.md, "Port sequences", describes it in words.
"""

from enum import Enum, auto
from typing import NamedTuple

from ..packet import TCP, Packet
from ..request import Verb
from .sequence import Profile
from .steps import Steps


class State(Enum):
    IDLE = auto()
    UNDER_WAY = auto()
    """More than one step is missing."""
    LAST_MISSING = auto()


class Knock(Enum):
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
    """Too late for this attempt; the packet is classified again, as if nothing had been before."""


class Action(Enum):
    NONE = auto()
    BEGIN = auto()
    COUNT = auto()
    FORGET = auto()
    OBEY = auto()


Table = dict[tuple[State, Knock], tuple[State, Action]]

STRICT: Table = {
    (State.IDLE, Knock.STEP): (State.UNDER_WAY, Action.BEGIN),
    (State.IDLE, Knock.STEP_BUT_ONE): (State.LAST_MISSING, Action.BEGIN),
    (State.IDLE, Knock.OTHER): (State.IDLE, Action.NONE),
    (State.IDLE, Knock.COPY): (State.IDLE, Action.NONE),
    (State.IDLE, Knock.LATE): (State.IDLE, Action.FORGET),
    (State.UNDER_WAY, Knock.STEP): (State.UNDER_WAY, Action.COUNT),
    (State.UNDER_WAY, Knock.STEP_BUT_ONE): (State.LAST_MISSING, Action.COUNT),
    (State.UNDER_WAY, Knock.FIRST): (State.UNDER_WAY, Action.BEGIN),
    (State.UNDER_WAY, Knock.OTHER): (State.IDLE, Action.FORGET),
    (State.UNDER_WAY, Knock.COPY): (State.UNDER_WAY, Action.NONE),
    (State.UNDER_WAY, Knock.LATE): (State.IDLE, Action.FORGET),
    (State.LAST_MISSING, Knock.LAST_STEP): (State.IDLE, Action.OBEY),
    (State.LAST_MISSING, Knock.FIRST): (State.UNDER_WAY, Action.BEGIN),
    (State.LAST_MISSING, Knock.FIRST_OF_TWO): (State.LAST_MISSING, Action.BEGIN),
    (State.LAST_MISSING, Knock.OTHER): (State.IDLE, Action.FORGET),
    (State.LAST_MISSING, Knock.COPY): (State.LAST_MISSING, Action.NONE),
    (State.LAST_MISSING, Knock.LATE): (State.IDLE, Action.FORGET),
}
LENIENT: Table = STRICT | {
    (state, knock): (state, Action.NONE)
    for state in (State.UNDER_WAY, State.LAST_MISSING)
    for knock in (Knock.FIRST, Knock.FIRST_OF_TWO, Knock.OTHER)
    if (state, knock) in STRICT
}
"""A wrong knock changes nothing."""

Copy = tuple[int, int, int, int]
"""The fields that all copies of a packet share: protocol, port, source port, sequence number or identification."""


class Attempt(NamedTuple):
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


NOTHING = Attempt(State.IDLE, 0, 0.0, 0.0, ())


def advance(track: Track, attempt: Attempt, packet: Packet, now: float) -> tuple[Attempt, bool]:
    """Return the attempt after a packet, and whether the sequence is complete."""
    identity = packet.sequence if packet.protocol == TCP else packet.ident
    copy = packet.protocol, packet.port, packet.source_port, identity
    # All datagrams of a socket share a flow label, and may share the identification 0 (RFC 6864).
    sure = packet.protocol == TCP or (len(packet.source) == 4 and packet.ident > 0)
    state, action = track.table[attempt.state, knock := classify(track, attempt, copy, now, sure)]
    if knock is Knock.LATE:
        return advance(track, NOTHING, packet, now)
    if action is Action.NONE:
        return attempt, False
    if action is Action.FORGET:
        return NOTHING, False
    if action is Action.BEGIN:
        return Attempt(state, 1, now, now, (copy,)), False
    counted = (*attempt.counted, copy)
    if action is Action.OBEY:  # counted packets are remembered for a while, so that their copies begin nothing
        return Attempt(state, 0, attempt.began, now, counted), True
    return Attempt(state, attempt.done + 1, attempt.began, now, counted), False


def classify(track: Track, attempt: Attempt, copy: Copy, now: float, sure: bool) -> Knock:
    """Classify a packet; sure: only copies of one packet have the same `copy`."""
    profile, steps = track.profile, track.steps
    under_way = attempt.state is not State.IDLE
    if attempt.counted and (
        now - attempt.last > profile.time or (under_way and now - attempt.began > profile.total_time)
    ):
        return Knock.LATE
    if copy in attempt.counted and (sure or copy[:2] != steps[attempt.done]):
        return Knock.COPY
    missing = len(steps) - attempt.done - 1
    if copy[:2] == steps[attempt.done]:
        return Knock.LAST_STEP if not missing else Knock.STEP_BUT_ONE if missing == 1 else Knock.STEP
    if copy[:2] == steps[0]:
        return Knock.FIRST_OF_TWO if len(steps) == 2 else Knock.FIRST
    return Knock.OTHER
