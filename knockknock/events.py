"""Events: the results of a packet at a knock port, as values."""

from enum import Enum
from typing import NamedTuple

from .grant import Grant, Order
from .packet import Packet
from .request import Request, Verb
from .schemes import Profile, Settings


class Reason(Enum):
    """Reasons why a packet at a knock port opened nothing; the value is the word in the log."""

    REPLAY = "replay"
    NOT_PERMITTED = "not permitted"
    AHEAD = "ahead"
    """Beyond the window: it counts only together with the next one."""
    EXPIRED = "expired"
    UNKNOWN = "unknown"


class Accepted(NamedTuple):
    """A knock to obey, once what it uses up is stored durably (PROTOCOL.md step 10)."""

    profile: str
    counter: int | None
    """The counter that the knock had; None for a scheme that has none."""
    request: Request
    grant: Grant
    memory: int | str | None = None
    """Contents of the profile's file in the state directory before the knock is obeyed: a counter, or a text.

    None: as it is.
    """
    warning: str = ""
    """A sentence for the log, about what will soon go wrong."""


class Refused(NamedTuple):
    """A packet at a knock port that opens nothing."""

    reason: Reason
    packet: Packet
    profile: str = ""
    """The name of the profile; empty if it is unknown."""
    counter: int | None = None
    """The counter that is now used up (NOT_PERMITTED, EXPIRED), else None."""
    request: Request | None = None
    memory: int | str | None = None
    """See Accepted."""


class Quiet(NamedTuple):
    """Refused packets that were not looked at closely, counted since the last event of any other kind."""

    packets: int


class Several(NamedTuple):
    """More than one thing that one packet has led to, in order."""

    events: tuple[Accepted | Refused | Quiet, ...]


Event = Accepted | Refused | Quiet | Several


def together(events: list[Accepted]) -> Event | None:
    """Nothing, the one event, or several in one."""
    if len(events) > 1:
        return Several(tuple(events))
    return events[0] if events else None


def both(first: Event | None, second: Event | None) -> Event | None:
    """One event of what two listeners make of one packet: what is unknown to one does not count if the other knows."""
    parts = [part for event in (first, second) for part in _parts(event)]
    known = [part for part in parts if not (isinstance(part, Refused) and part.reason is Reason.UNKNOWN)]
    found = known or parts[:1]
    return Several(tuple(found)) if len(found) > 1 else found[0] if found else None


def _parts(event: Event | None) -> tuple[Accepted | Refused | Quiet, ...]:
    if event is None:
        return ()
    return event.events if isinstance(event, Several) else (event,)


def granted(settings: Settings, request: Request, source: bytes, profile: Profile) -> Grant:
    """The door that a request of a profile asks for; what the profile does not say is as the settings say."""
    if request.verb is Verb.CLOSE:
        return Grant(Order.CLOSE, source, request.protocol, request.port, 0)
    once = settings.single_use if profile.single_use is None else profile.single_use
    seconds = profile.delay or settings.delay
    return Grant(Order.OPEN_ONCE if once else Order.OPEN, source, request.protocol, request.port, seconds)
