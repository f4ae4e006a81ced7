"""The interface of the profiles of every scheme, and the daemon's settings that apply to all profiles."""

from collections.abc import Collection
from typing import NamedTuple, Protocol

from .request import Ports

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


class Profile(Protocol):
    """The interface of every profile: one client of one server. Its repr shows no secret."""

    @property
    def name(self) -> str: ...
    @property
    def scheme(self) -> str:
        """One of schemes.SCHEMES."""

    @property
    def kind(self) -> str:
        """The format or the scheme, for people."""

    @property
    def ports(self) -> tuple[Ports, ...]:
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
