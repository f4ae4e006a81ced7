"""Limits on what a record may ask for: the set-up derives them from root's files, the helper enforces them."""

import socket
import struct
from collections import deque
from typing import NamedTuple

from ..errors import FirewallError, GrantError
from .record import Grant

MOST, LONGEST = 1 << 20, 1 << 15
"""Bytes of the longest message from the set-up, enough for 100,000 runs of ports, and from the daemon, enough for 2,000
values. The daemon's is the smaller, because a larger buffer takes 20 microseconds more, while a client waits."""
HEAD, RUN = struct.Struct("!IIBBI"), struct.Struct("!BHHH")


class Limits(NamedTuple):
    """The part of the policy that the helper knows."""

    answer: bytes
    """Message to pass on to the daemon once these limits are in force; b"": none."""
    doors_per_minute: int
    prefix: int
    """Bits of an IPv6 address that the scan guard takes for one source; 0: there is no scan guard."""
    rungs: int
    """Number of the guard's sets that count ports (root.scan_guard); 0: the kernel does not count."""
    block: int
    """Seconds of a block; 0: for ever."""
    runs: tuple[tuple[int, int, int, int], ...]
    """Allowed doors: protocol number, first port, last port, longest time in seconds; four zeros: allowed to block."""

    def check(self, grant: Grant) -> None:
        """Raise GrantError if the policy does not allow a door or a block, or the address is not that of a host."""
        _, address, protocol, port, seconds = grant
        allowed = [longest for one, first, last, longest in self.runs if one == protocol and first <= port <= last]
        if not allowed:
            raise GrantError(f"no profile may open protocol {protocol} port {port}")
        if seconds > max(allowed):
            raise GrantError(f"{seconds} seconds are more than the {max(allowed)} that the configuration allows")
        first, number, four = address[0], int.from_bytes(address, "big"), len(address) == 4
        # Not of this network, loopback, multicast or reserved; not ::, ::1, multicast or an IPv4 address (RFC 6890).
        if not (0 < first < 224 and first != 127 if four else 1 < number < 0xFF << 120 and number >> 32 != 0xFFFF):
            text = socket.inet_ntop(socket.AF_INET if four else socket.AF_INET6, address)
            raise GrantError(f"{text} is not the unicast address of a host")


def unpack(message: bytes) -> Limits:
    """Return the limits in a message of root.policy.message()."""
    count, *numbers = HEAD.unpack_from(message)
    end = HEAD.size + count * RUN.size
    return Limits._make([message[end:], *numbers, tuple(RUN.iter_unpack(message[HEAD.size : end]))])


def admit(opened: deque[float], limit: int, now: float) -> None:
    """Count one more door. Raises FirewallError, and counts nothing, if the rate limit is reached.

    opened: the times of the last doors, kept over a reload. now: seconds on a monotonic clock.
    """
    while opened and now - opened[0] >= 60:
        opened.popleft()
    if len(opened) >= limit:
        raise FirewallError(f"{limit} doors were opened within a minute, no more may be: raise doors_per_minute")
    opened.append(now)
