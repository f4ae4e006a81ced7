"""Compares a packet with a profile field by field, to explain whether it is a knock of it. Pure.

The gatekeeper decides as fast as it can. This module takes its time, and searches where no knock is valid: far behind
and far ahead, with other formats, and with fields that a device on the way has rewritten.
"""

from collections.abc import Iterator
from typing import NamedTuple

from ..core import dates
from ..core.counter_text import MAX_COUNTER
from ..core.packet import Packet
from ..core.profile import Settings
from ..core.request import Request, Verb
from ..schemes.syn import seal
from ..schemes.syn.profile import Profile

REACH = 10_000
"""Counters to search behind the next one, and ahead of it."""
REQUESTS = 64
"""The most requests of a profile that are sealed again and compared field by field."""
ENOUGH = 32
"""Bits of a knock that must match before the other fields count as rewritten."""
FIELDS = {"ident": 16, "sequence": 32, "acknowledgment": 32, "window": 16, "timestamp": 32}
"""Fields that can carry a part of a knock, with their sizes in bits; only classic knocks use the acknowledgment."""


class Finding(NamedTuple):
    """The relation of a packet to one profile."""

    ours: bool
    """True if it is a knock of that profile, as sent or with rewritten fields."""
    good: bool
    """True if the server accepts it."""
    text: str
    """An explanation for a person."""


def explain(packet: Packet, profile: Profile, next_counter: int, settings: Settings, now: int, own: bytes) -> Finding:
    """Explain one packet at a profile's knock port.

    next_counter: the first that the server accepts. now: seconds since 1970. own: the address that the client itself
    has, 4 or 16 bytes, if it is known and not the packet's source; else empty.
    """
    centre = now if profile.clock else next_counter
    if found := _exact(packet, profile, centre, packet.source):
        return _judged(profile, *found, next_counter, settings, now)
    if profile.bind_source:
        if own and (found := _exact(packet, profile, centre, own)):
            text = "the source was rewritten (NAT), and the profile binds it: knock with --source and the address that"
            return Finding(True, False, f"{_asks(*found)}; {text} the server sees, or mint one that does not bind it")
        if found := _exact(packet, profile._replace(bind_source=False), centre, packet.source):
            return Finding(True, False, f"{_asks(*found)}; the client's config says bind_source = no, the server's yes")
    elif found := _exact(packet, profile._replace(bind_source=True), centre, packet.source):
        return Finding(True, False, f"{_asks(*found)}; the client's config says bind_source = yes, the server's no")
    for format in seal.FORMATS:
        other = profile._replace(format=format)
        if format != profile.format and (found := _exact(packet, other, centre, packet.source)):
            text = f"the client's config says format = {format}, the server's {profile.format}"
            return Finding(True, False, f"{_asks(*found)}; {text}")
    if rewritten := _rewritten(packet, profile, centre, settings):
        return Finding(True, False, rewritten)
    return Finding(False, False, _nothing(packet, profile, centre, settings))


def _exact(packet: Packet, profile: Profile, centre: int, source: bytes) -> tuple[int, Request] | None:
    """Return counter and request of a packet whose every bit is right; the lowest counter, if two match."""
    scheme = seal
    if (sealed := scheme.carried(profile.format, packet)) is None:
        return None
    first, end = max(0, centre - REACH), min(centre + REACH, MAX_COUNTER + 1)
    match = scheme.matcher(profile, sealed, source, scheme.kinds(profile.format))
    for counter, stream in enumerate(scheme.keystreams(profile, first, end - first), first):
        if request := match(counter, stream):
            return counter, request
    return None


def _judged(profile: Profile, counter: int, request: Request, next: int, settings: Settings, now: int) -> Finding:
    asks = _asks(counter, request)
    if counter < next:
        text = f"its counter is behind: the server accepts {next} and later. It was obeyed before, or the client has"
        return Finding(True, False, f"{asks}; {text} an old copy of its profile (a backup, or two machines)")
    if profile.clock and abs(counter - now) > settings.skew:
        late = "behind" if counter < now else "ahead of"
        text = f"the client's clock is {abs(counter - now)} s {late} the server's, and clock_skew is {settings.skew}"
        return Finding(True, False, f"{asks}; {text}")
    if not profile.clock and counter >= next + settings.window:
        text = f"its counter is too far ahead: of {next} and the {settings.window} counters from there (error_window)"
        again = "; a second knock brings it back" if counter < next + settings.window + settings.resync else ""
        return Finding(True, False, f"{asks}; {text}{again}")
    if not profile.permits(request):
        return Finding(True, False, f"{asks}; not permitted, it may: {', '.join(map(str, profile.ports))}")
    if profile.expires is not None and now >= profile.expires:
        return Finding(True, False, f"{asks}; the profile expired on {dates.show(profile.expires)}")
    return Finding(True, True, f"{asks}; it is good")


def _asks(counter: int, request: Request) -> str:
    return f"asks to {request}, counter {counter}"


def _window(profile: Profile, centre: int, settings: Settings) -> range:
    """The counters to seal again: the window, and as many before it."""
    size = settings.skew if profile.clock else settings.window
    return range(max(0, centre - size), min(centre + size, MAX_COUNTER) + 1)


def _requests(profile: Profile) -> Iterator[Request]:
    kinds = seal.kinds(profile.format)
    for run in profile.ports:
        for port in range(run.first, min(run.last, run.first + REQUESTS) + 1):
            yield from (Request(verb, run.protocol, port) for verb in Verb if (verb, run.protocol) in kinds)


def _rewritten(packet: Packet, profile: Profile, centre: int, settings: Settings) -> str:
    """Describe the rewritten fields of a knock, if enough of the others match; else return ""."""
    scheme = seal
    asked = [request for request, _ in zip(_requests(profile), range(REQUESTS), strict=False)]
    for counter in _window(profile, centre, settings):
        for request in asked:
            sent = scheme.carry(profile.format, scheme.seal(profile, counter, request, packet.source))._asdict()
            if profile.format != "classic":
                del sent["acknowledgment"]
            came = _came(packet)
            right = [name for name, value in sent.items() if value is not None and came[name] == value]
            wrong = [name for name, value in sent.items() if value is not None and came[name] != value]
            if sum(FIELDS[name] for name in right) >= ENOUGH:
                return f"{_asks(counter, request)}; {_changed(packet, came, sent, wrong, profile.format)}"
    return ""


def _came(packet: Packet) -> dict[str, int | None]:
    """Return the fields of a packet that can carry a knock, by their names in core.headers.Carried."""
    return {
        "ident": packet.ident & 0xFFFF,
        "sequence": packet.sequence,
        "acknowledgment": packet.acknowledgment,
        "window": packet.window,
        "timestamp": packet.timestamp,
    }


def _changed(packet: Packet, came: dict[str, int | None], sent: dict[str, int], wrong: list[str], format: str) -> str:
    if not wrong:  # so the field that must be 0 is wrong
        return f"something on the way wrote an acknowledgment number into it ({packet.acknowledgment})"
    names = {"ident": "IP ID" if len(packet.source) == 4 else "flow label", "timestamp": "TCP timestamp"}
    said = ", ".join(f"{names.get(name, name)} (sent {sent[name]}, came {came[name]})" for name in wrong)
    avoid = {"window": "stealth", "timestamp": "compact"}.get(wrong[0] if len(wrong) == 1 else "")
    way = f"; format {avoid} does not use it" if avoid and avoid != format else ""
    return f"all else fits, but something on the way has rewritten: {said}{way}"


def _nothing(packet: Packet, profile: Profile, centre: int, settings: Settings) -> str:
    if packet.acknowledgment and profile.format != "classic":
        return f"no knock: its acknowledgment number is {packet.acknowledgment}, that of a knock is 0"
    if profile.format == "stealth" and packet.timestamp is None:
        return "no knock, or something on the way took its TCP timestamp away, which format stealth needs"
    scheme = seal
    sealed = scheme.carried(profile.format, packet)
    if profile.bind_source and sealed:
        counters = _window(profile, centre, settings)
        for counter, stream in enumerate(scheme.keystreams(profile, counters.start, len(counters)), counters.start):
            port = int.from_bytes(sealed[:2], "big") ^ int.from_bytes(stream[:2], "big")
            if any(one.first <= port <= one.last and one.last - one.first < REQUESTS for one in profile.ports):
                return (
                    f"perhaps its knock with counter {counter}, for port {port}, from another address: the profile "
                    "binds the source. Give --sent-from the source that knockknock --doctor says on the client"
                )
    return (
        f"not its knock: other keys, or a counter further than {REACH} from {centre}, or several fields were rewritten"
    )
