"""What the other side may ask for: made from root's own files by root's own process, checked for every record."""

import ipaddress
import json
from collections import deque
from typing import NamedTuple

from ..errors import FirewallError, GrantError
from ..grant import Grant, Order


class Policy(NamedTuple):
    """The limits of a grant, and what the firewall is to be."""

    knock_ports: tuple[tuple[int, int], ...]
    """Protocol number, port."""
    doors: tuple[tuple[int, int, int], ...]
    """Protocol number, first port, last port."""
    seconds: int
    """Longest time for a door."""
    firewall: str = "auto"
    nft_table: str = ""
    nft_chain: str = ""
    doors_per_minute: int = 600
    nflog_group: int = 0
    """Where packets to knock ports are logged to; 0: the kernel's log."""
    any_flags: tuple[int, ...] = ()
    """TCP knock ports of which not SYNs alone are logged."""

    def check(self, grant: Grant) -> None:
        """Raises GrantError if a grant, sane in itself, is not within the policy."""
        if grant.order in (Order.RELOAD, Order.STATUS):
            return
        if not any(grant.protocol == protocol and first <= grant.port <= last for protocol, first, last in self.doors):
            raise GrantError(f"no profile may open protocol {grant.protocol} port {grant.port}")
        if grant.seconds > self.seconds:
            raise GrantError(f"{grant.seconds} seconds are more than the {self.seconds} that the configuration allows")
        check_address(grant.address)


def check_address(address: bytes) -> None:
    """Raises GrantError for an address that is not the unicast address of a host. Pure: the daemon asks it as well."""
    ip = ipaddress.ip_address(address)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    first = address[0] if isinstance(ip, ipaddress.IPv4Address) else 1
    if ip.is_multicast or ip.is_loopback or ip.is_unspecified or mapped or first == 0 or first >= 240:
        raise GrantError(f"{ip} is not the unicast address of a host")


class Meter:
    """How many doors were opened in the last minute, whoever asked: a reload does not begin it anew."""

    def __init__(self) -> None:
        self._opened: deque[float] = deque()

    def admit(self, limit: int, now: float) -> None:
        """Count one more door. now: seconds on a monotonic clock. Raises FirewallError, with it not counted."""
        while self._opened and now - self._opened[0] >= 60:
            self._opened.popleft()
        if len(self._opened) >= limit:
            raise FirewallError(f"{limit} doors were opened within a minute, no more may be: raise doors_per_minute")
        self._opened.append(now)


def dump(policy: Policy) -> str:
    """The text that load() reads back."""
    return json.dumps(policy._asdict())


def load(text: str) -> Policy:
    """A policy from what a process of root's own printed."""
    values = json.loads(text)
    for name in ("knock_ports", "doors"):
        values[name] = tuple(tuple(one) for one in values[name])
    values["any_flags"] = tuple(values["any_flags"])
    return Policy(**values)
