"""Limits of what a record may ask for: made by the set-up from root's files, checked by the helper."""

import ipaddress
import struct
from collections import deque
from typing import NamedTuple

from ..errors import FirewallError, GrantError
from ..grant import Grant

MOST, LONGEST = 1 << 20, 1 << 15
"""Bytes of the longest message from the set-up, so of 100,000 runs of ports; from the daemon, so of 2,000 values. To
make room for more takes 20 microseconds, while somebody waits at the door."""
HEAD, RUN = struct.Struct("!IIBBI"), struct.Struct("!BHHH")


class Limits(NamedTuple):
    """The policy as the helper knows it."""

    answer: bytes
    """To be passed on to the daemon, once this is in force; b"": nothing."""
    doors_per_minute: int
    prefix: int
    """Bits of an IPv6 address that the scan guard takes for one source; 0: there is none."""
    rungs: int
    """Ports that the guard's sets count to."""
    block: int
    """Seconds that a source is shut out; 0: for ever."""
    runs: tuple[tuple[int, int, int, int], ...]
    """Doors: protocol number, first port, last port, longest time in seconds; four zeros: to shut sources out."""

    def check(self, grant: Grant) -> None:
        """Raises GrantError if a door, or a source to shut out, is more than the policy allows."""
        _, address, protocol, port, seconds = grant
        allowed = [longest for one, first, last, longest in self.runs if one == protocol and first <= port <= last]
        if not allowed:
            raise GrantError(f"no profile may open protocol {protocol} port {port}")
        if seconds > max(allowed):
            raise GrantError(f"{seconds} seconds are more than the {max(allowed)} that the configuration allows")
        ip = ipaddress.ip_address(address)
        odd = not 0 < address[0] < 240 if len(address) == 4 else address.startswith(bytes(10) + b"\xff\xff")
        if odd or ip.is_multicast or ip.is_loopback or ip.is_unspecified:
            raise GrantError(f"{ip} is not the unicast address of a host")


def unpack(message: bytes) -> Limits:
    """Limits from the message that the set-up made of them."""
    count, *numbers = HEAD.unpack_from(message)
    end = HEAD.size + count * RUN.size
    return Limits._make([message[end:], *numbers, tuple(RUN.iter_unpack(message[HEAD.size : end]))])


def admit(opened: deque[float], limit: int, now: float) -> None:
    """Count one more door. Raises FirewallError, with it not counted, if there were too many within a minute.

    opened: when the last ones were; a reload does not begin it anew. now: seconds on a monotonic clock.
    """
    while opened and now - opened[0] >= 60:
        opened.popleft()
    if len(opened) >= limit:
        raise FirewallError(f"{limit} doors were opened within a minute, no more may be: raise doors_per_minute")
    opened.append(now)
