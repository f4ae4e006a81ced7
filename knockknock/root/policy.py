"""The root helper's policy: the contents of our table and the helper's limits, as values passed between processes."""

import json
from typing import NamedTuple

from ..errors import FirewallError
from .record_limits import HEAD, MOST, RUN, Limits

LABEL = 75
"""Conntrack label of a connection whose SYN a door let in, unless the configuration names another; the next label is
that of a connection established through a door."""


class Scan(NamedTuple):
    """The settings of the scan guard (root.scan_guard)."""

    ports: int
    """TCP ports that a source may try within `seconds`."""
    seconds: int
    block: int
    """Seconds of a block; 0: for ever."""
    prefix: int
    """Bits of an IPv6 address that make one source."""
    allow: tuple[str, ...]
    """Networks that are never blocked, as ipaddress prints them."""
    everything: bool
    """True if established connections and knocks of a blocked source are dropped, too."""
    public: tuple[tuple[int, int], ...] = ()
    """TCP ports that do not count: first, last."""
    by_daemon: bool = False
    """True if the kernel reports tried ports, and the daemon counts them and asks for a BLOCK."""


class Policy(NamedTuple):
    """The limits of grants, and the contents of our table."""

    knock_ports: tuple[tuple[int, int], ...]
    """Protocol number, port."""
    doors: tuple[tuple[int, int, int], ...]
    """Protocol number, first port, last port."""
    seconds: int
    """Longest time of `doors`."""
    state: str = ""
    """The daemon's state directory, which identifies it."""
    label: int = LABEL
    """The first of two conntrack labels."""
    protect: tuple[tuple[int, int, int], ...] = ()
    """Ports that the gate refuses without a door: protocol number, first port, last port."""
    protect_reject: bool = False
    protect_allow: tuple[str, ...] = ()
    """Networks that need no door, as ipaddress prints them."""
    trial: int = 0
    """Seconds after which the gate stops refusing by itself; 0: never, see firewall.open_gate()."""
    doors_per_minute: int = 600
    nflog_group: int = 0
    """NFLOG group that packets to knock ports are logged to; 0: the kernel's log."""
    any_flags: tuple[int, ...] = ()
    """TCP knock ports at which other packets than SYNs are logged, too."""
    expected_size: int = 100_000
    """Values in each set of expected values; 0: there are no such sets."""
    scan: Scan | None = None
    """The scan guard, None if there is none."""
    timed: tuple[tuple[int, int, int, int], ...] = ()
    """Doors of profiles with a time of their own: protocol number, first port, last port, longest time in seconds."""
    locked_in: bool = True
    """True if Landlock and seccomp are to confine the helper."""


def limits(policy: Policy, answer: bytes = b"") -> Limits:
    """Return the limits of a policy for the helper; answer: Limits.answer."""
    scan = policy.scan
    runs = [*policy.timed, *((*door, policy.seconds) for door in policy.doors)]
    if scan and scan.by_daemon:
        runs.append((0, 0, 0, 0))
    rungs = scan.ports if scan and not scan.by_daemon else 0
    prefix, block = (scan.prefix, scan.block) if scan else (0, 0)
    return Limits(answer, policy.doors_per_minute, prefix, rungs, block, tuple(runs))


def message(limits: Limits) -> bytes:
    """Return limits as a message to the helper. Raises FirewallError if it would be too long."""
    answer, *numbers, runs = limits
    made = b"".join([HEAD.pack(len(runs), *numbers), *(RUN.pack(*run) for run in runs), answer])
    if len(made) > MOST:
        raise FirewallError(
            f"the profiles name {len(runs)} runs of ports, too many for the root helper: name fewer and longer ones"
        )
    return made


def dump(policy: Policy) -> str:
    """Return a policy as text for load()."""
    return json.dumps(policy._asdict() | {"scan": policy.scan and policy.scan._asdict()})


def load(text: str) -> Policy:
    """Return the policy of a text of dump(), from a process of root's own."""
    values = json.loads(text)
    for name in ("knock_ports", "doors", "timed", "protect"):
        values[name] = tuple(tuple(one) for one in values[name])
    for name in ("any_flags", "protect_allow"):
        values[name] = tuple(values[name])
    if values["scan"]:
        scan = Scan(**values["scan"])
        values["scan"] = scan._replace(allow=tuple(scan.allow), public=tuple((one[0], one[1]) for one in scan.public))
    return Policy(**values)
