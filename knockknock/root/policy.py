"""What the other side may ask for: made from root's own files by root's own process, checked for every record."""

import ipaddress
import json
from collections import deque
from typing import NamedTuple

from ..errors import FirewallError, GrantError
from ..grant import Grant, Order
from . import LABEL


class Scan(NamedTuple):
    """When a source is shut out for a scan (root.scan)."""

    ports: int
    """TCP ports that it may try within the seconds."""
    seconds: int
    block: int
    """Seconds; 0: for ever."""
    prefix: int
    """Bits of an IPv6 address that make one source."""
    allow: tuple[str, ...]
    """Networks that are never shut out, as ipaddress prints them."""
    everything: bool
    """Whether established connections and knocks of a source that is shut out are dropped, too."""
    public: tuple[tuple[int, int], ...] = ()
    """First and last of TCP ports that do not count."""
    by_daemon: bool = False
    """Whether the kernel reports what is tried, and the daemon counts and asks for a BLOCK."""


class Policy(NamedTuple):
    """The limits of a grant, and what our table is to hold."""

    knock_ports: tuple[tuple[int, int], ...]
    """Protocol number, port."""
    doors: tuple[tuple[int, int, int], ...]
    """Protocol number, first port, last port."""
    seconds: int
    """Longest time for a door."""
    state: str = ""
    """The daemon's state directory, by which it is known."""
    label: int = LABEL
    """The first of two conntrack labels."""
    protect: tuple[tuple[int, int, int], ...] = ()
    """Ports that are refused to all without a door: protocol number, first port, last port."""
    protect_reject: bool = False
    protect_allow: tuple[str, ...] = ()
    """Networks that need no door, as ipaddress prints them."""
    trial: int = 0
    """Seconds after which the kernel refuses nothing more by itself; 0: it does until it is asked for in words."""
    doors_per_minute: int = 600
    nflog_group: int = 0
    """Where packets to knock ports are logged to; 0: the kernel's log."""
    any_flags: tuple[int, ...] = ()
    """TCP knock ports of which not SYNs alone are logged."""
    scan: Scan | None = None
    """The scan guard, if there is to be one."""
    timed: tuple[tuple[int, int, int, int], ...] = ()
    """Doors of profiles that have a time of their own: protocol number, first port, last port, longest time."""

    def check(self, grant: Grant) -> None:
        """Raises GrantError if a grant, sane in itself, is not within the policy."""
        if grant.order in (Order.RELOAD, Order.STATUS, Order.LOGGED):
            return
        if grant.order is Order.BLOCK:
            if not self.scan or not self.scan.by_daemon:
                raise GrantError("by the configuration nobody is shut out at the daemon's wish")
            check_address(grant.address)
            return
        doors = [*self.timed, *((*door, self.seconds) for door in self.doors)]
        allowed = [
            seconds
            for protocol, first, last, seconds in doors
            if grant.protocol == protocol and first <= grant.port <= last
        ]
        if not allowed:
            raise GrantError(f"no profile may open protocol {grant.protocol} port {grant.port}")
        if grant.seconds > max(allowed):
            raise GrantError(f"{grant.seconds} seconds are more than the {max(allowed)} that the configuration allows")
        check_address(grant.address)


def check_address(address: bytes) -> None:
    """Raises GrantError for an address that is not the unicast address of a host."""
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
    return json.dumps(policy._asdict() | {"scan": policy.scan and policy.scan._asdict()})


def load(text: str) -> Policy:
    """A policy from what a process of root's own printed."""
    values = json.loads(text)
    for name in ("knock_ports", "doors", "timed", "protect"):
        values[name] = tuple(tuple(one) for one in values[name])
    for name in ("any_flags", "protect_allow"):
        values[name] = tuple(values[name])
    if values["scan"]:
        scan = Scan(**values["scan"])
        values["scan"] = scan._replace(allow=tuple(scan.allow), public=tuple((one[0], one[1]) for one in scan.public))
    return Policy(**values)
