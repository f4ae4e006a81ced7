"""Tools that are compared: knockknock by each of its sources, and its peers."""

import contextlib
from collections.abc import Callable
from typing import Protocol

from .lab import Lab
from .own import Own
from .peers import Fwknop, Knockd, Peer

PEERS: dict[str, Callable[[Lab], Peer]] = {
    "fwknop": lambda lab: Fwknop(lab, udp=False),
    "fwknop, UDP server": lambda lab: Fwknop(lab, udp=True),
    "knockd, 1 port": lambda lab: Knockd(lab, 1),
    "knockd, 3 ports": lambda lab: Knockd(lab, 3),
}


class Tool(Protocol):
    """A daemon and its client."""

    name: str
    kind: str
    """Of a knock's packets: syn or udp."""
    port: int
    """Of a knock's first packet."""
    last: int
    """Of its last one."""
    floods: bool
    """Whether a flood of junk makes sense: not where each packet is a knock."""
    drain: float
    """Seconds after a flood until the daemon has done with what is in its buffers."""
    environment: dict[str, str]
    """Of the client."""

    def running(self, guard: bool = True) -> contextlib.AbstractContextManager[list[int]]:
        """A daemon that listens, behind a firewall that refuses; the process ids that are there all the time.

        guard: the firewall is a new one, else as it was left.
        """

    def client(self, source: str) -> list[str]:
        """The command line of a knock from an address, which is the one that the route to the server names."""

    def losses(self) -> str:
        """Return what the daemon has lost since its start, by its own log or the counts of its sockets."""


def tools(lab: Lab) -> list[Tool]:
    own: list[Tool] = [Own(lab, "kmsg"), Own(lab, "file", syslog=True), Own(lab, "nflog")]
    peers: list[Tool] = [make(lab) for make in PEERS.values()]
    return own + peers
