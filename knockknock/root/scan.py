"""The scan guard: who tries too many closed ports is shut out, by counting in the kernel alone.

A closed port is one that nobody listens at, on the address that was asked. For each source the first SYN to a closed
port puts (source, port) into the set `seen`, and the source into the first of the sets rung1, rung2 ... that it is not
in. Elements of both live for the same time, so how many rungs a source is in is how many ports it tried in that time,
exactly. When it is in all, the next port puts it into `blocked`. A set that is full takes nothing more: then a source
is not counted, and nobody is shut out.
"""

import ipaddress
from collections.abc import Collection
from typing import Any, NamedTuple, Protocol

from ..errors import FirewallError
from ..grant import Grant
from . import Firewall, detect
from .policy import Policy, Scan

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
TCP = 6
SEEN = 32768
"""Elements in `seen` at most, for each family; the other sets have more room, so that this one is full first."""


class Spared(NamedTuple):
    """What is exempt, and may change by a reload."""

    ports: tuple[tuple[int, int], ...]
    """First and last of TCP ports that never count, in order, apart from each other."""
    networks: tuple[str, ...]


class Blocked(NamedTuple):
    """A source that is shut out."""

    source: Address
    """IPv6: of the network that is one source, the rest is zero."""
    seconds: int | None
    """Left, rounded down; None: for ever."""


class Counts(NamedTuple):
    """Packets that the guard has seen since it was placed: not those from the machine itself."""

    packets: int
    new: int
    """Those that began a connection."""
    dropped: int


class Guard(Protocol):
    """What the guard of each firewall does. All of its methods raise FirewallError."""

    def prepare(self) -> None:
        """Place sets and rules; to do it again changes nothing."""

    def heal(self, moved: bool) -> bool:
        """Place again what somebody else took away; whether that was done. moved: the firewall has just done so."""

    def spare(self, spared: Spared) -> None:
        """From now on exempt this and nothing else; of networks, who is shut out already is let in again."""

    def there(self) -> bool:
        """Whether a guard is in the kernel."""

    def blocked(self) -> list[Blocked]:
        """Who is shut out now."""

    def counts(self) -> Counts:
        """What came by; of a guard that is in the kernel."""

    def block(self, source: Address) -> None:
        """Shut a source out, or have its time begin anew."""

    def unblock(self, source: Address) -> None:
        """Let a source in again, as blocked() names it, and count it from nothing; no error if it is not shut out."""

    def remove(self) -> None:
        """Take away all that was placed, by us or by one before us that was killed; no error where there is nothing."""


def spared(limits: Policy) -> Spared:
    """The knock ports and what profiles may open; a profile that may open every port exempts none."""
    runs = [*limits.doors, *(door[:3] for door in limits.timed)]
    doors = [(first, last) for protocol, first, last in runs if protocol == TCP and (first, last) != (1, 65535)]
    merged: list[tuple[int, int]] = []
    for first, last in sorted([*doors, *((port, port) for _, port in limits.knock_ports)]):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return Spared(tuple(merged), limits.scan.allow if limits.scan else ())


def of_family(networks: Collection[str], family: int) -> list[str]:
    """Those of family 4 or 6."""
    return [network for network in networks if ipaddress.ip_network(network).version == family]


def make(choice: detect.Choice, scan: Scan | None, nflog_group: int) -> Guard:
    """The guard that goes with a firewall, nothing placed yet.

    scan: None where there is to be none. nflog_group: where the daemon hears of SYNs, 0 for the kernel's log.
    """
    if choice.name == "nftables":
        from . import scan_nftables

        return scan_nftables.Guard(scan, nflog_group)
    from . import scan_iptables

    return scan_iptables.Guard(scan, nflog_group, choice.command)


class Guarded:
    """A firewall (root.Firewall) and the guard that lives and is healed with it."""

    def __init__(self, firewall: Firewall, guard: Guard, limits: Policy) -> None:
        self._firewall, self._guard, self._spared = firewall, guard, spared(limits)

    def prepare(self) -> None:
        self._firewall.prepare()
        self._guard.prepare()
        self._guard.spare(self._spared)

    def spare(self, limits: Policy) -> None:
        """Go over to what another policy exempts."""
        self._spared = spared(limits)
        self._guard.spare(self._spared)

    def watch(self, ports: Collection[tuple[int, int]], any_flags: Collection[int]) -> None:
        self._firewall.watch(ports, any_flags)

    def heal(self, chains: Collection[tuple[str, str, str]]) -> str:
        text = self._firewall.heal(chains)
        if self._guard.heal(bool(text)):
            self._guard.spare(self._spared)
            return text or "somebody took rules of the scan guard out of the firewall: placed again"
        return text

    def block(self, grant: Grant) -> None:
        source = ipaddress.ip_address(grant.address)
        if any(source in ipaddress.ip_network(network) for network in self._spared.networks):
            raise FirewallError(f"{source} is never shut out, by scan_allow")
        self._guard.block(source)

    def open(self, grant: Grant) -> None:
        self._firewall.open(grant)

    def close(self, grant: Grant) -> None:
        self._firewall.close(grant)

    def status(self) -> Any:
        return self._firewall.status()

    def logged(self) -> int:
        return self._firewall.logged()

    def remove(self) -> None:
        try:
            self._guard.remove()
        finally:
            self._firewall.remove()
