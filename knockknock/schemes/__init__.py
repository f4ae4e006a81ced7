"""The table of schemes, and the protocols that they keep; a scheme's module is imported when a profile names it.

docs/DESIGN.md, "How to add a scheme", describes the interface of such a module.
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
"""The most doors that a profile opens in a minute if its config does not set `doors_per_minute`."""

KnockPort = tuple[int, int]
"""Protocol number (6 or 17) and port."""


class Settings(NamedTuple):
    """The daemon's settings that apply to all profiles."""

    delay: int
    """Seconds that a door stays open, for profiles that do not set it."""
    window: int
    """The look-ahead window W, in counters."""
    single_use: bool
    """The default for profiles that do not set it."""
    resync: int = 0
    """Counters beyond the window in which two knocks in a row are accepted (PROTOCOL.md step 9a)."""
    skew: int = 60
    """Seconds that a client's clock may be off, either way."""


class Sending(NamedTuple):
    """A packet that any program may send: the SYN of a connect(), or a UDP datagram."""

    protocol: int
    port: int
    payload: bytes = b""
    """Empty for TCP."""


class Carried(NamedTuple):
    """Values of the header fields that carry a knock; None leaves the kernel's value."""

    ident: int
    """16 bits: the IPv4 identification, or the low bits of the IPv6 flow label."""
    sequence: int
    acknowledgment: int = 0
    window: int | None = None
    timestamp: int | None = None


class Next(NamedTuple):
    """The sealed fields that a profile's next knocks can have, for a set of the kernel."""

    set: str
    """The name of a set in grant.EXPECTED."""
    each: int
    """Values for each counter."""
    first: int
    """The next counter that the server accepts."""
    values: "Callable[[int, int], Iterator[bytes]]"
    """Makes the values of the counters from one up to another, which is excluded."""


class Profile(Protocol):
    """The interface of every profile: one client of one server. Its repr shows no secret."""

    @property
    def name(self) -> str: ...
    @property
    def scheme(self) -> str:
        """A key of SCHEMES."""

    @property
    def kind(self) -> str:
        """The format or the scheme, for people."""

    @property
    def ports(self) -> "tuple[Ports, ...]":
        """The allow-list: the ports that it may open."""

    @property
    def knock_ports(self) -> Collection[KnockPort]:
        """The ports of its knocks: SYNs (RFC 9293) and UDP datagrams to them are logged."""

    @property
    def tries(self) -> int:
        """The most TCP ports that one knock sends SYNs to."""

    @property
    def where(self) -> str:
        """The knock ports, for people and logs, without anything secret."""

    @property
    def any_flags(self) -> bool:
        """True if TCP packets with other control bits than a SYN's can be knocks, too."""

    @property
    def needs(self) -> frozenset[str]:
        """The data that its knocks need from a source (sources.Source.GIVES)."""

    @property
    def file(self) -> str:
        """The name of a further file in its directory, for Scheme.complete(); empty if it needs none."""

    @property
    def single_use(self) -> bool | None:
        """True if a door is for one connection; None for the daemon's default."""

    @property
    def delay(self) -> int | None:
        """Seconds that a door stays open; None for the daemon's default."""

    @property
    def doors_per_minute(self) -> int | None:
        """The most doors that it opens in a minute; None for SHARE."""

    @property
    def expires(self) -> int | None:
        """The time from which the server refuses its knocks, in seconds since 1970; None for never."""

    @property
    def legacy(self) -> bool:
        """True if knockknock 0.8 made it, and left a counter in its directory."""


class Listener(Protocol):
    """Recognises the knocks of all profiles of one scheme. Pure: no I/O, no clock."""

    settings: Settings

    def add(self, profile: Any, memory: Any) -> None:
        """Add a profile, or replace the one of its name.

        memory: the result of Scheme.recall(); None keeps that of the replaced profile.
        """

    def remove(self, name: str) -> None:
        """Remove a profile. Raises KeyError if there is none of that name."""

    def move(self, clock: int) -> None:
        """Set the time of day, in seconds since 1970."""

    def next(self, name: str) -> Next | None:
        """The fields of a profile's next knocks, None if not listable. May raise KeyError for an unknown name."""

    def hear(self, packet: "Packet", now: float) -> "Event | None":
        """The event of a packet to a knock port, None if there is none. now: seconds on a monotonic clock."""


class Scheme(Protocol):
    """The interface of a scheme's module. All of it is pure."""

    KEYS: "Keys"
    """The keys that a profile's config may have besides `scheme`."""
    SECRETS: tuple[str, ...]
    """The key files of a profile: `mac_key` is a field of the profile and the file mac.key. If empty, the config itself
    is the secret, and others may not read it."""

    KEY: str
    """The form of a valid secret, for messages about one in a database."""

    def read_key(self, text: str, where: str) -> bytes:
        """Return the secret in the text of its file. Raises ProfileError, which does not show the text."""

    def write_key(self, key: bytes) -> str:
        """The text that read_key() reads back."""

    RAW: bool
    """True if a knock needs a raw socket (client.py); otherwise sends() makes its packets (plain.py)."""
    BOUND: bool
    """True if sends() depends on the source, so that a client behind NAT may name one. Not read if RAW."""

    def parse(self, values: Mapping[str, Any], where: str) -> Profile:
        """Return a profile without name and keys from its config's values. Raises ConfigError, which names `where`."""

    def complete(self, draft: Any, text: str, where: str) -> Profile:
        """Return a profile completed by the text of its file. Raises ConfigError. Not called if `file` is empty."""

    def listing(self, profile: Any) -> str:
        """The text of a profile's file, which complete() reads back."""

    def write(self, profile: Any) -> Iterable[str]:
        """The lines of a config that parse() reads back, without `scheme`."""

    def unshared(self, profile: Any) -> Iterable[Hashable]:
        """The secrets that no other profile may have, because each of them would accept the same knock once."""

    def first(self, profile: Any) -> str | None:
        """The memory of an unused profile, as text for the state directory; None if it needs none."""

    def recall(self, profile: Any, text: str | None, where: str, latest: int) -> Any:
        """Return the memory for Listener.add(). Raises CounterError, ProfileError.

        text: of the file in the state directory, None without one. latest: a time above every client's clock, in
        seconds since 1970.
        """

    def counter(self, profile: Any) -> str | None:
        """The first counter of a client, as the text of its file; None if clients keep none."""

    def sends(self, profile: Any, verb: "Verb", counter: int, source: bytes, clock: int) -> list[Sending]:
        """The packets of a knock, in order. Raises KnockError. Not called if RAW.

        counter: 0 if the scheme has none. source: the address that the server will see. clock: seconds since 1970, UTC.
        """

    def listener(self, settings: Settings, expected: int) -> Listener:
        """Return a listener of this scheme; expected: the number of profiles that are about to be added."""


@lru_cache
def load(scheme: str) -> Scheme:
    """The module of a scheme. Raises KeyError for a word that is not in SCHEMES."""
    return cast(Scheme, import_module(SCHEMES[scheme]))
