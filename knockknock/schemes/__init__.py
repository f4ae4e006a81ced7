"""How a knock is said and heard: a profile's `format` -> the module that knows it, imported when asked for."""

from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from ..packet import Packet
    from ..profile import Profile
    from ..request import Kind, Request

FORMATS = {
    "compact": "knockknock.schemes.syn",
    "classic": "knockknock.schemes.syn",
    "stealth": "knockknock.schemes.syn",
}


class Carried(NamedTuple):
    """Values for the header fields that carry a knock; None: as the kernel sends it."""

    ident: int
    """16 bits: the IPv4 identification, or the low bits of the IPv6 flow label."""
    sequence: int
    acknowledgment: int = 0
    window: int | None = None
    timestamp: int | None = None


class Scheme(Protocol):
    """What each of these modules offers. All of it is pure."""

    def needs(self, format: str) -> frozenset[str]:
        """What a source must give (sources.GIVES) for a format to be heard."""

    def kinds(self, format: str) -> "list[Kind]":
        """The verbs and protocols that a format can ask for."""

    def seal(self, profile: "Profile", counter: int, request: "Request", source: bytes) -> bytes:
        """The sealed bytes of one request; source: 4 or 16 bytes, the address that it will come from."""

    def heads(self, profile: "Profile", first: int, count: int, requests: "Sequence[Request]") -> Iterator[int]:
        """The first 32 bits of each of some requests, sealed with each of count counters from first on."""

    def carry(self, format: str, sealed: bytes) -> Carried:
        """Sealed bytes -> header fields."""

    def carried(self, format: str, packet: "Packet") -> bytes | None:
        """Header fields -> sealed bytes, or None where a packet cannot carry the format."""

    def keystreams(self, profile: "Profile", first: int, count: int) -> list[bytes]:
        """The keystreams of count counters from first on."""

    def match(
        self, profile: "Profile", counter: int, keystream: bytes, sealed: bytes, source: bytes, kinds: "Iterable[Kind]"
    ) -> "Request | None":
        """The request of one of some kinds that sealed bytes hold with a right tag, compared in constant time."""


def load(format: str) -> Scheme:
    """The module of a format. Raises KeyError for a word that is not in FORMATS."""
    return cast(Scheme, import_module(FORMATS[format]))
