"""Requests, each an action on one TCP or UDP port, and the lists of ports that they may name."""

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from ..errors import ConfigError
from .packet import TCP as TCP
from .packet import UDP as UDP

PROTOCOLS = {"tcp": TCP, "udp": UDP}
PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


class Verb(Enum):
    """The action on a port; the value is its byte in the authenticated message (PROTOCOL.md step 4)."""

    OPEN = b"O"
    CLOSE = b"C"


Kind = tuple[Verb, int]
"""A verb and a protocol number: a request without its port."""


class Request(NamedTuple):
    """One request, as a client makes it."""

    verb: Verb
    protocol: int
    """6 (TCP) or 17 (UDP)."""
    port: int
    """1 to 65535."""

    def __str__(self) -> str:
        return f"{self.verb.name.lower()} {PROTOCOL_NAMES[self.protocol]}/{self.port}"


class Ports(NamedTuple):
    """A run of ports of one protocol that a profile may ask for, both ends included."""

    protocol: int
    first: int
    last: int

    def __str__(self) -> str:
        run = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        return f"{PROTOCOL_NAMES[self.protocol]}/{run}"


ANY_TCP = (Ports(TCP, 1, 65535),)
"""The allow-list of a profile that names none, as in knockknock 0.8."""


def port_number(text: str) -> int:
    """Return a port number, 1 to 65535, from decimal text. Raises ConfigError."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        raise ConfigError(f"{text!r} is not a port number (1 to 65535)")
    return int(text)


def protocol_number(text: str) -> int:
    """Return 6 or 17 from a protocol's name. Raises ConfigError."""
    try:
        return PROTOCOLS[text.lower()]
    except KeyError:
        raise ConfigError(f"{text!r} is not a protocol that a port can be opened for (tcp or udp)") from None


def parse_port(text: str) -> tuple[int, int]:
    """Return a protocol number and a port from text such as `22`, `tcp/22` or `51820/udp`. Raises ConfigError."""
    protocol, port = _parts(text)
    return protocol_number(protocol), port_number(port)


def _parts(text: str) -> tuple[str, str]:
    """The words for protocol and port in `22`, `tcp/22` or `22/tcp`, not checked."""
    one, slash, other = (word.strip() for word in text.partition("/"))
    if not slash:
        return "tcp", one
    return (one, other) if one.lower() in PROTOCOLS or not one[:1].isdigit() else (other, one)


def parse_ports(text: str) -> tuple[Ports, ...]:
    """Return an allow-list from text such as `tcp/22, udp/51820, tcp/8000-8010`. Raises ConfigError."""
    found = []
    for item in text.split(","):
        protocol, run = _parts(item)
        first, dash, last = run.partition("-")
        low = port_number(first.strip())
        high = port_number(last.strip()) if dash else low
        if high < low:
            raise ConfigError(f"{item.strip()!r} ends before it begins")
        found.append(Ports(protocol_number(protocol.strip()), low, high))
    return tuple(found)


def permitted(ports: Iterable[Ports], protocol: int, port: int) -> bool:
    """Return True if an allow-list names a port."""
    return any(one.protocol == protocol and one.first <= port <= one.last for one in ports)
