"""Formats events as text and fields, for the log, the control socket and hooks."""

import ipaddress
import json
from collections.abc import Mapping

from ..core.events import Accepted, Quiet, Refused
from ..core.request import PROTOCOL_NAMES, Request
from ..root.record import Grant, Order

Facts = dict[str, str | int]
"""An event by its fields, `event` first. Never holds a key or the bytes of a knock."""


def of(event: Accepted | Refused | Quiet) -> Facts:
    """Describe an event at a knock port: `accepted`, `refused` or `ignored`."""
    if isinstance(event, Quiet):
        return {"event": "ignored", "packets": event.packets}
    if isinstance(event, Accepted):
        source, counter = str(ipaddress.ip_address(event.grant.address)), event.counter
        asked = _asked(event.request)
        known: Facts = {"event": "accepted", "profile": event.profile, "source": source, **asked}
        return known if counter is None else {**known, "counter": counter}
    packet = event.packet
    facts: Facts = {
        "event": "refused",
        "reason": event.reason.value,
        "source": str(ipaddress.ip_address(packet.source)),
    }
    facts["knock_port"] = packet.port
    if event.profile:
        facts["profile"] = event.profile
    return facts | (_asked(event.request) if event.request else {})


def _asked(request: Request) -> Facts:
    return {"verb": request.verb.name.lower(), "protocol": PROTOCOL_NAMES[request.protocol], "port": request.port}


def obeyed(profile: str, grant: Grant, but: str = "") -> Facts:
    """Describe the result of an accepted knock: `opened`, or `closed` if it asked for that.

    but: chains of other programs that may refuse the connections of the door.
    """
    facts: Facts = {"event": "opened", "profile": profile, **door(grant), **({"but": but} if but else {})}
    if grant.order is Order.CLOSE:
        return {**facts, "event": "closed", "reason": "asked"}
    return facts


def door(grant: Grant) -> Facts:
    """Describe a door, without seconds and use if it is shut. 0 seconds: for ever."""
    source = str(ipaddress.ip_address(grant.address))
    facts: Facts = {"source": source, "protocol": PROTOCOL_NAMES.get(grant.protocol, str(grant.protocol))}
    facts["port"] = grant.port
    if grant.order is Order.CLOSE:
        return facts
    return {**facts, "seconds": grant.seconds, "use": "one" if grant.order is Order.OPEN_ONCE else "any"}


def failed(heard: Facts, problem: str) -> Facts:
    """Describe a knock that was not obeyed, and why."""
    return {**heard, "event": "failed", "problem": problem}


def revoked(profile: str, grant: Grant) -> Facts:
    """Describe a door that was shut because its profile was removed."""
    return {"event": "closed", "reason": "revoked", "profile": profile, **door(grant)}


def ended(opened: Facts) -> Facts:
    """Describe a door whose time is over: it is shut, and was earlier if it was used up."""
    left_out = ("event", "seconds", "use", "but")
    return {"event": "closed", "reason": "ended"} | {key: opened[key] for key in opened if key not in left_out}


def blocked(source: str, ports: int) -> Facts:
    """Describe a source that the scan guard blocked because it tried more than this number of ports."""
    return {"event": "blocked", "source": source, "ports": ports}


def line(facts: Facts) -> str:
    """Return a line for a log: a sentence for people, then key=value for programs."""
    pairs = " ".join(f"{key}={_value(value)}" for key, value in facts.items() if key not in ("problem", "but"))
    return f"{_sentence(facts)} [{pairs}]"


def _value(value: str | int) -> str:
    """Return a number or a word unchanged, anything else as a JSON string."""
    text = str(value)
    plain = text.isascii() and text.isprintable() and not set(text) & set(' "=[]\\')
    return text if text and plain else json.dumps(text)


def _sentence(facts: Mapping[str, str | int]) -> str:
    if facts["event"] == "ignored":
        return f"{facts['packets']} more packets at knock ports opened nothing"
    if facts["event"] == "failed":
        return f"knock of {facts['profile']} not obeyed: {facts['problem']}"
    if facts["event"] == "blocked":
        return f"{facts['source']} is shut out: it tried more than {facts['ports']} port(s)"
    where = f"{facts['protocol']}/{facts['port']}" if "protocol" in facts else ""
    if facts["event"] == "refused":
        asked = f" asked to {facts['verb']} {where}" if where else ""
        whose = f", {facts['profile']}{asked}" if "profile" in facts else ""
        return f"refused {facts['reason']}: knock from {facts['source']} at port {facts['knock_port']}{whose}"
    if facts["event"] == "closed":
        why = ", as the profile was removed" if facts["reason"] == "revoked" else ""
        return f"{facts['profile']}: close {where} for {facts['source']}{why}"
    use = f"{facts['use']} connection"
    but = f", but {facts['but']} may still refuse it" if "but" in facts else ""
    return f"{facts['profile']}: open {where} for {facts['source']}, {facts['seconds']} s, {use}{but}"
