"""One packet, as any source saw it."""

from typing import NamedTuple


class Packet(NamedTuple):
    """The header fields of a TCP SYN that a knock can be carried in, as host integers."""

    source: bytes
    """Source address, network order: 4 bytes for IPv4, 16 for IPv6."""
    source_port: int
    port: int
    """Destination port, 1 to 65535."""
    ident: int
    """IPv4: the identification field, 16 bits. IPv6: the flow label, 20 bits (RFC 6437)."""
    sequence: int
    acknowledgment: int
    window: int
    """As on the wire, not scaled."""
    timestamp: int | None
    """TSval of the TCP timestamps option (RFC 7323), None without one."""
    payload: bytes = b""
    """What follows the TCP header, as far as the source copied it; always empty from a source that does not give it."""
