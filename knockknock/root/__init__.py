"""All that keeps root. Each firewall is a module; detect.make() imports the one that is needed."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..grant import Grant

MARK, MASK = 0x4B000000, 0xFF000000
"""The connection mark of a connection that a door let in, and the bits of the mark that are ours."""
PREFIX = "knockknock "
"""What the rule that logs writes before a packet (sources.logline and sources.nfpacket read it)."""
COPY = 512
"""Bytes of a packet that a rule hands to an NFLOG group (sources.nflog.COPY)."""
NAME = "knockknock"
"""Our nftables table, and the comment on every rule of ours in somebody else's chain."""
PER_SOURCE, BURST = 20, 40
"""Knocks a second, and at once, that are logged of one IPv4 address or IPv6 /64: a flooder silences itself alone."""
SET_SIZE = 65536
"""Elements in each of our sets at most."""


class Firewall(Protocol):
    """What each module's Firewall class does. All of its methods raise FirewallError."""

    def prepare(self) -> None:
        """Place sets and rules; to do it again changes nothing, and rules of others are never touched."""

    def watch(self, ports: Collection[tuple[int, int]], any_flags: Collection[int]) -> None:
        """Log SYNs and UDP datagrams to these ports and to no others.

        ports: protocol number and port. any_flags: TCP ports of which other packets are logged, too, unless they belong
        to a connection.
        """

    def heal(self, chains: Collection[tuple[str, str, str]]) -> str:
        """Place again what somebody else took away; what was done, in a sentence, or "" if nothing was missing.

        chains: nftables: family, table and name of each chain that filters input now; else empty.
        """

    def open(self, grant: "Grant") -> None:
        """Let the grant's source in: the kernel ends it after its seconds or, with OPEN_ONCE, after one connection."""

    def close(self, grant: "Grant") -> None:
        """Take a door away; no error where there is none."""

    def status(self) -> "list[Grant]":
        """The doors that are open now, from the kernel, each with the seconds that are left, 0: for ever."""

    def logged(self) -> int:
        """How many packets our rule has logged since it was placed."""

    def remove(self) -> None:
        """Take away all that was placed."""
