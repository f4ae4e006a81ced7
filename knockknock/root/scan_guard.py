"""Lists and unblocks the sources that the scan guard blocks, and reads its packet counts.

The guard counts in the kernel alone, by the rules of root.ruleset, unless scan_count = daemon (server.scan_counter).

The first SYN of a source to a port puts (source, port) into the set `seen`, and the source into the first of the sets
rung1, rung2 ... that it is not in. Elements of both live for the same time, so the number of rungs with a source is
exactly the number of ports that it tried in that time. If all rungs have it, the next port puts it into `blocked`. A
full set takes no more elements: then a source is not counted, and nobody is blocked. Every port counts but those that
the configuration calls public: otherwise a scan could tell hidden ports by what counts.
"""

import ipaddress
from typing import NamedTuple

from ..errors import FirewallError
from . import NAME
from .listing import SETS, dump
from .netlink import INET, Kernel, taken, text

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_SET_TABLE, _SET_NAME = 1, 2
"""NFTA_SET_*."""


class Blocked(NamedTuple):
    """A blocked source."""

    source: Address
    """For IPv6 the address of the network that is one source."""
    seconds: int
    """Seconds left, rounded up; 0: for ever."""


class Counts(NamedTuple):
    """The packets that the guard has counted since it was placed, without those from the machine itself."""

    packets: int
    new: int
    """Packets that began a connection."""
    dropped: int


def blocked(kernel: Kernel) -> list[Blocked] | None:
    """Return the sources that are blocked now; None if there is no guard. Raises FirewallError."""
    try:
        return [
            Blocked(ipaddress.ip_address(key), seconds)
            for family in (4, 6)
            for key, seconds in kernel.elements(f"blocked{family}")
        ]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FirewallError(f"the blocked sources cannot be listed: {error.strerror}") from None


def unblock(kernel: Kernel, one: Address) -> None:
    """Unblock a source, as blocked() names it, and empty the kernel's count of it. Raises FirewallError.

    The count of server.scan_counter stays.
    """
    try:
        asked = dump(kernel, SETS, INET, text(_SET_TABLE, NAME))
        names = [found[_SET_NAME].rstrip(b"\0").decode() for _, found in asked]
        kinds = [name for name in names if name.startswith(("blocked", "rung")) and name.endswith(str(one.version))]
        kernel.change(*taken(kinds, one.packed))
    except OSError as error:
        raise FirewallError(f"nftables refused: {error.strerror}") from None


def counts(kernel: Kernel) -> Counts:
    """Return the guard's packet counts. Raises FirewallError."""
    try:
        return Counts(*[kernel.packets(NAME, name) for name in ("packets_seen", "connections_new", "packets_dropped")])
    except OSError as error:
        raise FirewallError(f"the scan guard's counts cannot be read: {error.strerror}") from None
