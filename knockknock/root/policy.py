"""The policy: contents of our table and limits of the daemon, as values that one process hands to another."""

import json
from typing import NamedTuple

from ..errors import FirewallError
from .limits import HEAD, MOST, RUN, Limits

LABEL = 75
"""Conntrack label of a connection whose SYN a door let in, if the configuration names no other; the next one is that of
a connection that was established through it."""


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
    """The NFLOG group that packets to knock ports are logged to; 0: the kernel's log."""
    any_flags: tuple[int, ...] = ()
    """TCP knock ports of which not SYNs alone are logged."""
    expected_size: int = 100_000
    """Elements in each set of values that knocks can bear."""
    scan: Scan | None = None
    """The scan guard, if there is to be one."""
    timed: tuple[tuple[int, int, int, int], ...] = ()
    """Doors of profiles that have a time of their own: protocol number, first port, last port, longest time."""
    locked_in: bool = True
    """Whether the helper is to be held to its job by the kernel."""


def limits(policy: Policy, answer: bytes = b"") -> Limits:
    """The limits of a policy, for the helper; answer: see Limits."""
    scan = policy.scan
    runs = [*policy.timed, *((*door, policy.seconds) for door in policy.doors)]
    if scan and scan.by_daemon:
        runs.append((0, 0, 0, 0))
    rungs = scan.ports if scan and not scan.by_daemon else 0
    prefix, block = (scan.prefix, scan.block) if scan else (0, 0)
    return Limits(answer, policy.doors_per_minute, prefix, rungs, block, tuple(runs))


def message(limits: Limits) -> bytes:
    """Pack limits for the helper. Raises FirewallError if the message would be too long."""
    answer, *numbers, runs = limits
    made = b"".join([HEAD.pack(len(runs), *numbers), *(RUN.pack(*run) for run in runs), answer])
    if len(made) > MOST:
        raise FirewallError(f"{len(runs)} runs of ports are too many for what keeps root: name fewer, and longer ones")
    return made


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
