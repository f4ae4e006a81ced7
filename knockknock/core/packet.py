"""Packet: the fields of one received packet, in the same form whichever source read it."""

from typing import NamedTuple

TCP, UDP = 6, 17
"""Protocol numbers (IANA)."""
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
"""Control bits of TCP (RFC 9293 section 3.1); those of ECN are not told apart."""


class Packet(NamedTuple):
    """The header fields of a packet that can carry a knock, as host integers; for UDP those of TCP are 0."""

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
    """The value on the wire, not scaled."""
    options: bytes = b""
    """The TCP options as received: at most 40 bytes, all chosen by the sender."""
    payload: bytes = b""
    """The bytes after the TCP or UDP header, or the first of them; empty from a source that does not give it."""
    protocol: int = TCP
    """6 (TCP) or 17 (UDP)."""
    flags: int = SYN
    """The six control bits of TCP, 0 for UDP."""

    @property
    def timestamp(self) -> int | None:
        """The TSval of the TCP timestamps option (RFC 7323), None without one."""
        return tcp_timestamp(self.options)


def tcp_timestamp(options: bytes) -> int | None:
    """The TSval of the timestamps option (RFC 7323); None without one, or after an invalid length.

    No length in the options is trusted.
    """
    at, end = 0, len(options)
    while at < end and options[at]:
        if options[at] == 1:
            at += 1
            continue
        length = options[at + 1] if at + 1 < end else 0
        if length < 2:
            return None
        if options[at] == 8 and length == 10 and at + 10 <= end:
            return int.from_bytes(options[at + 2 : at + 6], "big")
        at += length
    return None
