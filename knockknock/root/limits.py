"""What a record may ask for: made by the set-up from root's own files, checked by the helper for every record."""

import ipaddress
import struct
from collections import deque
from typing import NamedTuple

from ..errors import FirewallError, GrantError
from ..grant import Grant, Order

MOST = 1 << 20
"""Bytes of the longest message from the set-up, so of 100,000 runs of ports."""
HEAD, RUN = struct.Struct("!HHIBBI"), struct.Struct("!BHHH")


class Limits(NamedTuple):
    """What the helper knows of the policy."""

    answer: bytes
    """To be passed on to the daemon, once this is in force; b"": nothing."""
    late: bytes
    """Chains that may refuse what a door lets in, as text."""
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
        """Raises GrantError if a grant, sane in itself, is more than the policy allows."""
        order, address, protocol, port, seconds = grant
        if order in (Order.STATUS, Order.LOGGED):
            return
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
    answer, late, *numbers = HEAD.unpack_from(message)
    first, last = HEAD.size + answer, HEAD.size + answer + late
    return Limits._make(
        [message[HEAD.size : first], message[first:last], *numbers, tuple(RUN.iter_unpack(message[last:]))]
    )


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
