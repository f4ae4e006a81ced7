"""What the other side may ask for: made from root's own files by root's own process, checked for every record."""

import ipaddress
import json
import socket
from typing import NamedTuple

from ..errors import GrantError
from ..grant import Grant, Order


class Policy(NamedTuple):
    """The limits of a grant, and what the firewall is to be."""

    knock_ports: tuple[int, ...]
    doors: tuple[tuple[int, int, int], ...]
    """Protocol number, first port, last port."""
    seconds: int
    """Longest time for a door."""
    firewall: str = "auto"
    nft_table: str = ""
    nft_chain: str = ""
    nflog_group: int = 0
    """Where SYNs to knock ports are logged to; 0: the kernel's log."""

    def check(self, grant: Grant) -> None:
        """Raises GrantError if a grant, sane in itself, is not within the policy."""
        if grant.order is Order.RELOAD:
            return
        if not any(grant.protocol == protocol and first <= grant.port <= last for protocol, first, last in self.doors):
            raise GrantError(f"no profile may open protocol {grant.protocol} port {grant.port}")
        if grant.seconds > self.seconds:
            raise GrantError(f"{grant.seconds} seconds are more than the {self.seconds} that the configuration allows")
        check_source(grant.address)


def check_source(address: bytes) -> None:
    """Raises GrantError for an address that no other host can send from, and for one of our own."""
    ip = ipaddress.ip_address(address)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    first = address[0] if isinstance(ip, ipaddress.IPv4Address) else 1
    if ip.is_multicast or ip.is_loopback or ip.is_unspecified or mapped or first == 0 or first >= 240:
        raise GrantError(f"{ip} is not the unicast address of a host")
    if _is_own(ip):
        raise GrantError(f"{ip} is this machine itself")


def _is_own(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is this host's, or the broadcast address of a network of its. Sends nothing."""
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as bound, socket.socket(family, socket.SOCK_DGRAM) as routed:
        try:
            bound.bind((str(ip), 0))
            with open(f"/proc/sys/net/ipv{ip.version}/ip_nonlocal_bind") as file:
                if file.read() == "0\n":
                    return True
            # Any address can be bound here, as some load balancers want it: ask the routing table instead.
            routed.connect((str(ip), 9))
        except OSError:
            return False
        return bool(routed.getsockname()[0] == str(ip))


def dump(policy: Policy) -> str:
    """The text that load() reads back."""
    return json.dumps(policy._asdict())


def load(text: str) -> Policy:
    """A policy from what a process of root's own printed."""
    values = json.loads(text)
    values["knock_ports"] = tuple(values["knock_ports"])
    values["doors"] = tuple(tuple(door) for door in values["doors"])
    return Policy(**values)
