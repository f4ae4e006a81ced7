"""The table of schemes, and the protocols that they keep; a scheme's module is imported when a profile names it.

docs/DESIGN.md, "How to add a scheme", goes through what such a module offers.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from ..events import Event
    from ..ini import Keys
    from ..packet import Packet
    from ..request import Ports, Verb

SCHEMES = {
    "syn": "knockknock.schemes.synprofile",
    "sequence": "knockknock.schemes.sequence",
    "otp": "knockknock.schemes.otp",
}
DEFAULT = "syn"
SHARE = 60
"""Doors that one profile opens in a minute, unless it says another number."""

KnockPort = tuple[int, int]
"""Protocol number (6 or 17) and port."""


class Settings(NamedTuple):
    """Settings that all profiles have in common."""

    delay: int
    """Seconds that a door stays open."""
    window: int
    """The look-ahead W, in counters."""
    single_use: bool
    """Seconds that doors stay open, for profiles that do not say."""
    resync: int = 0
    """Counters beyond the window in which two knocks in a row are obeyed."""
    skew: int = 60
    """Seconds by which the clock of a client may be off."""


class Sending(NamedTuple):
    """A packet that any program may send: what the kernel makes of a connect, or of a datagram."""

    protocol: int
    port: int
    payload: bytes = b""
    """Payload of a datagram."""


class Carried(NamedTuple):
    """Values for the header fields that carry a knock; None: as the kernel sends it."""

    ident: int
    """16 bits: the IPv4 identification, or the low bits of the IPv6 flow label."""
    sequence: int
    acknowledgment: int = 0
    window: int | None = None
    timestamp: int | None = None


class Next(NamedTuple):
    """The values that a profile's knocks can bear next, if the kernel can be told of all of them."""

    set: str
    """One of grant.EXPECTED."""
    each: int
    """Values for each counter."""
    first: int
    """The next counter that is acceptable."""
    values: "Callable[[int, int], Iterator[bytes]]"
    """The values for the counters from one to before another."""


class Profile(Protocol):
    """A profile: one client of one server. Its repr shows no secret."""

    @property
    def name(self) -> str: ...
    @property
    def scheme(self) -> str:
        """A word of SCHEMES."""

    @property
    def kind(self) -> str:
        """Its format, or else its scheme, for people."""

    @property
    def ports(self) -> "tuple[Ports, ...]":
        """Ports that it may open."""

    @property
    def knock_ports(self) -> Collection[KnockPort]:
        """Ports at which its knocks arrive: SYNs (RFC 9293) and UDP datagrams to these are logged."""

    @property
    def tries(self) -> int:
        """TCP ports that one knock sends SYNs to, at most."""

    @property
    def where(self) -> str:
        """Its knock ports, for people and logs: nothing secret."""

    @property
    def any_flags(self) -> bool:
        """Whether it hears TCP packets with other control bits than a SYN's, too."""

    @property
    def needs(self) -> frozenset[str]:
        """Features that a source must give (sources.GIVES) for it to be heard."""

    @property
    def file(self) -> str:
        """A further file in its directory, with which Scheme.complete() makes it whole; empty: none."""

    @property
    def single_use(self) -> bool | None:
        """Whether a door is for one connection; None: as the daemon's configuration says."""

    @property
    def delay(self) -> int | None:
        """Seconds that a door stays open; None: as the daemon's configuration says."""

    @property
    def doors_per_minute(self) -> int | None:
        """Doors that it opens in a minute at most; None: SHARE."""

    @property
    def expires(self) -> int | None:
        """Seconds since 1970 from which on the server obeys it no more; None: never."""

    @property
    def legacy(self) -> bool:
        """Whether knockknock 0.8 made it, and left a counter in its directory."""


class Listener(Protocol):
    """Hears the knocks of all profiles of one scheme. Pure: no I/O, no clock."""

    settings: Settings

    def add(self, profile: Any, memory: Any) -> None:
        """Hear a profile from now on, in the place of one of its name.

        memory: what recall() made; None: as the one of its name has it.
        """

    def remove(self, name: str) -> None:
        """Hear a profile no more. Raises KeyError if there is none of that name."""

    def move(self, clock: int) -> None:
        """Take notice of the time of day, in seconds since 1970."""

    def next(self, name: str) -> Next | None:
        """Values that knocks of a profile can bear next; None if they cannot be listed. Raises KeyError."""

    def hear(self, packet: "Packet", now: float) -> "Event | None":
        """The event of a packet to a knock port of some of its profiles; now: seconds on a monotonic clock."""


class Scheme(Protocol):
    """The protocol of a scheme's module. All of it is pure."""

    KEYS: "Keys"
    """The keys that a profile's config may have besides `scheme`."""
    SECRETS: tuple[str, ...]
    """Key files of a profile: `mac_key` is a field of the profile and the file mac.key. Without any the config is
    itself the secret, and not everybody may read it."""

    KEY: str
    """Form of a secret, for people who put one in a database."""

    def read_key(self, text: str, where: str) -> bytes:
        """A secret from the text of its file. Raises ProfileError, without the text."""

    def write_key(self, key: bytes) -> str:
        """The text that read_key() reads back."""

    RAW: bool
    """Whether its knock takes a raw socket (client.py); if not, sends() says what it is (plain.py)."""
    BOUND: bool
    """Whether what sends() says depends on the source, so that one behind NAT may be named. Not asked for where RAW."""

    def parse(self, values: Mapping[str, Any], where: str) -> Profile:
        """A profile without name and keys from what its config sets. Raises ConfigError; where: for its sentence."""

    def complete(self, draft: Any, text: str, where: str) -> Profile:
        """A profile made whole by the text of its file. Raises ConfigError. Not asked of who names none."""

    def listing(self, profile: Any) -> str:
        """The text of that file, which complete() reads back."""

    def write(self, profile: Any) -> Iterable[str]:
        """The lines of a config that parse() reads back, without `scheme`."""

    def unshared(self, profile: Any) -> Iterable[Hashable]:
        """The secrets that no other profile may have, because a knock by them would be good once for each."""

    def first(self, profile: Any) -> str | None:
        """The memory of a profile that was never used, as text for the state directory; None: it needs none."""

    def recall(self, profile: Any, text: str | None, where: str, latest: int) -> Any:
        """The memory for Listener.add() from that text; None: there is no such file. Raises CounterError.

        latest: seconds since 1970, which no client's clock shows yet.
        """

    def counter(self, profile: Any) -> str | None:
        """The counter of a client that never knocked, as the text of its file; None: it keeps none."""

    def sends(self, profile: Any, verb: "Verb", counter: int, source: bytes, clock: int) -> list[Sending]:
        """The packets that say a verb, in order. Raises KnockError. Not asked for where RAW.

        counter: if it has one. source: the address that the server will see. clock: seconds since 1970, UTC.
        """

    def listener(self, settings: Settings, expected: int) -> Listener:
        """Make the listener of this scheme; expected: the number of profiles that are about to be added."""


@lru_cache
def load(scheme: str) -> Scheme:
    """The module of a scheme. Raises KeyError for a word that is not in SCHEMES."""
    return cast(Scheme, import_module(SCHEMES[scheme]))
