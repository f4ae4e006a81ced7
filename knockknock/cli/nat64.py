"""Asks DNS for this network's NAT64 prefixes, and waits for an answer for two seconds at most; for --doctor."""

import contextlib
import ipaddress
import socket

from ..client import route

PATIENCE = 2.0
"""Seconds to wait for the resolver."""
WELL_KNOWN = [ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48")]
"""RFC 6052, RFC 8215."""
_EMBEDDED = {bytes((192, 0, 0, 170)), bytes((192, 0, 0, 171))}
"""The addresses of ipv4only.arpa (RFC 7050)."""
_PLACES = {
    96: (12, 13, 14, 15),
    64: (9, 10, 11, 12),
    56: (7, 9, 10, 11),
    48: (6, 7, 9, 10),
    40: (5, 6, 7, 9),
    32: (4, 5, 6, 7),
}
"""Length of a prefix -> the bytes in which the IPv4 address is (RFC 6052 section 2.2)."""


def nat64() -> list[ipaddress.IPv6Network]:
    """Return the prefixes that translate to IPv4, as the network announces them. Raises SendError if the resolver is
    dead."""
    found: list[tuple[object, ...]] = []
    with contextlib.suppress(OSError):  # most networks have none
        answers = route.within(
            PATIENCE, lambda: socket.getaddrinfo("ipv4only.arpa", None, socket.AF_INET6, socket.SOCK_STREAM)
        )
        found = [answer[4] for answer in answers]
    return WELL_KNOWN + [prefix for address in found if (prefix := prefix_of(str(address[0])))]


def prefix_of(address: str) -> ipaddress.IPv6Network | None:
    """Return the prefix in an IPv6 address of ipv4only.arpa; None if it embeds no IPv4 address of that name."""
    packed = ipaddress.IPv6Address(address).packed
    for length, places in _PLACES.items():
        if (length == 96 or not packed[8]) and bytes(packed[place] for place in places) in _EMBEDDED:
            return ipaddress.IPv6Network((packed, length), strict=False)
    return None
