"""The scan guard: who tries too many ports is shut out, by counting in the kernel alone.

For each source the first SYN to a port puts (source, port) into the set `seen`, and the source into the first of the
sets rung1, rung2 ... that it is not in. Elements of both live for the same time, so how many rungs a source is in is
how many ports it tried in that time, exactly. When it is in all, the next port puts it into `blocked`. A set that is
full takes nothing more: then a source is not counted, and nobody is shut out. Every port counts but those that the
configuration calls public: else who tries ports could see by what counts which ones are hidden.
"""

import ipaddress
from typing import NamedTuple

from ..errors import FirewallError
from . import NAME
from .netlink import INET, SETS, Change, Kernel, add, delete, text
from .policy import Scan

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_SET_TABLE, _SET_NAME = 1, 2
"""NFTA_SET_*."""


class Blocked(NamedTuple):
    """A source that is shut out."""

    source: Address
    """IPv6: of the network that is one source, the rest is zero."""
    seconds: int | None
    """Left, rounded up; None: for ever."""


class Counts(NamedTuple):
    """Packets that the guard has seen since it was placed: not those from the machine itself."""

    packets: int
    new: int
    """Those that began a connection."""
    dropped: int


def source(address: bytes, prefix: int) -> Address:
    """What stands for an address, network order, in the sets. prefix: bits of an IPv6 address that make one source."""
    return ipaddress.ip_network((address, prefix if len(address) == 16 else 32), strict=False).network_address


def block(kernel: Kernel, scan: Scan, one: Address) -> None:
    """Shut a source out, or have its time begin anew. Raises OSError."""
    name = f"blocked{one.version}"
    kernel.change(add(name, one.packed), delete(name, one.packed), add(name, one.packed, scan.block))


def forgiven(scan: Scan, one: Address) -> list[Change]:
    """What lets a source in again, and counts it from nothing."""
    rungs = [] if scan.by_daemon else [f"rung{number}_{one.version}" for number in range(1, scan.ports + 1)]
    return _taken(f"blocked{one.version}", *rungs, key=one.packed)


def _taken(*names: str, key: bytes) -> list[Change]:
    # To delete what is not there would be an error.
    return [change(name, key) for name in names for change in (add, delete)]


def blocked(kernel: Kernel) -> list[Blocked] | None:
    """Who is shut out now; None if there is no guard. Raises FirewallError."""
    try:
        return [
            Blocked(ipaddress.ip_address(element.key), element.seconds)
            for family in (4, 6)
            for element in kernel.elements(f"blocked{family}")
        ]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FirewallError(f"nftables does not list who is shut out: {error.strerror}") from None


def unblock(kernel: Kernel, one: Address) -> None:
    """Let a source in again, as blocked() names it, and count it from nothing. Raises FirewallError."""
    try:
        asked = kernel.dump(SETS, INET, text(_SET_TABLE, NAME))
        names = [found[_SET_NAME].rstrip(b"\0").decode() for _, found in asked]
        kinds = [name for name in names if name.startswith(("blocked", "rung")) and name.endswith(str(one.version))]
        kernel.change(*_taken(*kinds, key=one.packed))
    except OSError as error:
        raise FirewallError(f"nftables refused: {error.strerror}") from None


def counts(kernel: Kernel) -> Counts:
    """What came by. Raises FirewallError."""
    try:
        return Counts(*[kernel.packets(NAME, name) for name in ("packets_seen", "connections_new", "packets_dropped")])
    except OSError as error:
        raise FirewallError(f"nftables does not tell what the scan guard counted: {error.strerror}") from None
