"""Events: the results of a packet at a knock port, as values."""

from enum import Enum
from typing import NamedTuple

from ..root.record import Grant, Order
from .packet import Packet
from .profile import Profile, Settings
from .request import Request, Verb


class Reason(Enum):
    """The reason that a packet at a knock port opened nothing; the value is the word in the log."""

    REPLAY = "replay"
    NOT_PERMITTED = "not permitted"
    AHEAD = "ahead"
    """Beyond the window: the first of two knocks in a row (PROTOCOL.md step 9a)."""
    EXPIRED = "expired"
    UNKNOWN = "unknown"


class Accepted(NamedTuple):
    """A knock to obey, once its memory is stored durably (PROTOCOL.md step 10)."""

    profile: str
    counter: int | None
    """The counter of the knock, None if it has none."""
    request: Request
    grant: Grant
    memory: int | str | None = None
    """The counter or text that the profile's file in the state directory must hold before the knock is obeyed.

    None leaves the file as it is.
    """
    warning: str = ""
    """A sentence for the log about a coming failure; empty for none."""


class Refused(NamedTuple):
    """A packet at a knock port that opens nothing."""

    reason: Reason
    packet: Packet
    profile: str = ""
    """The name of the profile, empty if it is unknown."""
    counter: int | None = None
    """The counter that is now used up (of NOT_PERMITTED and EXPIRED), else None."""
    request: Request | None = None
    memory: int | str | None = None
    """The same as Accepted.memory."""


class Quiet(NamedTuple):
    """A number of refused packets that were not reported one by one, counted since the last Quiet."""

    packets: int


class Several(NamedTuple):
    """Two or more events of one packet, in order."""

    events: tuple[Accepted | Refused | Quiet, ...]


Event = Accepted | Refused | Quiet | Several


def together(events: list[Accepted]) -> Event | None:
    """Join events: return None, the only one, or a Several."""
    if len(events) > 1:
        return Several(tuple(events))
    return events[0] if events else None


def both(first: Event | None, second: Event | None) -> Event | None:
    """Join the events of two listeners for one packet. An UNKNOWN refusal stays only if there is nothing else."""
    parts = [part for event in (first, second) for part in _parts(event)]
    known = [part for part in parts if not (isinstance(part, Refused) and part.reason is Reason.UNKNOWN)]
    found = known or parts[:1]
    return Several(tuple(found)) if len(found) > 1 else found[0] if found else None


def _parts(event: Event | None) -> tuple[Accepted | Refused | Quiet, ...]:
    if event is None:
        return ()
    return event.events if isinstance(event, Several) else (event,)


def granted(settings: Settings, request: Request, source: bytes, profile: Profile) -> Grant:
    """Return the grant for a request of a profile; the settings are the defaults of the profile."""
    if request.verb is Verb.CLOSE:
        return Grant(Order.CLOSE, source, request.protocol, request.port, 0)
    once = settings.single_use if profile.single_use is None else profile.single_use
    seconds = profile.delay or settings.delay
    return Grant(Order.OPEN_ONCE if once else Order.OPEN, source, request.protocol, request.port, seconds)
