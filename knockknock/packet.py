"""Packet: the fields of one packet, as any source saw it."""

from typing import NamedTuple

from .tcpoptions import timestamp

TCP, UDP = 6, 17
"""Protocol numbers (IANA)."""
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
"""Control bits of TCP (RFC 9293 section 3.1); those of ECN are not told apart."""


class Packet(NamedTuple):
    """The header fields of a packet that a knock can be carried in, as host integers; for UDP those of TCP are 0."""

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
    """The window as on the wire, not scaled."""
    options: bytes = b""
    """TCP options as they came: at most 40 bytes, each of the sender's choice."""
    payload: bytes = b""
    """Bytes after the TCP or UDP header, as many as the source copied; empty from a source that gives none."""
    protocol: int = TCP
    """6 (TCP) or 17 (UDP)."""
    flags: int = SYN
    """The six control bits of TCP, 0 for UDP."""

    @property
    def timestamp(self) -> int | None:
        """TSval of the TCP timestamps option (RFC 7323), None without one."""
        return timestamp(self.options)
