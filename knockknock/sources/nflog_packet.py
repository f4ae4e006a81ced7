"""Parses a message of the kernel's packet logger (NFLOG) into a Packet; checks each length first. Pure.

The layout is that of net/netfilter/nfnetlink_log.c, __build_packet_message(), and of the header
include/uapi/linux/netfilter/nfnetlink_log.h; the IP and TCP headers inside are untrusted. The parser accepts the same
packets as sources.kernel_line: incoming TCP and UDP, unfragmented.
"""

from collections.abc import Callable, Iterator, Sequence
from struct import Struct

from ..core.packet import TCP, UDP, Packet

PREFIX = "knockknock "
"""The prefix that the NFLOG rule puts before the packet."""
MAX_HEADERS = 8
"""The most IPv6 extension headers before TCP or UDP."""

Reader = Callable[[bytes | bytearray, int, int], Packet | None]

_MESSAGE = Struct("=IH").unpack_from
"""struct nlmsghdr: length of the message with this header, type; flags, sequence number and sender follow."""
_ATTRIBUTE = Struct("=HH").unpack_from
"""struct nlattr: length with this header but without the padding to 4, type."""
_IPV4 = Struct("!BxHHHxB2x4s4x").unpack_from
"""Version and header length, total length, identification, flags and fragment, protocol, source (RFC 791)."""
_IPV6 = Struct("!IHBx16s16x").unpack_from
"""Version, class and flow label, payload length, next header, source (RFC 8200)."""
_TCP = Struct("!HHIIBBH").unpack_from
"""Ports, sequence, acknowledgment, data offset, flags, window (RFC 9293)."""
_UDP = Struct("!HHH2x").unpack_from
"""Ports, length with this header (RFC 768)."""

_pack, _new = Struct("=HH").pack, tuple.__new__

_MESSAGE_SIZE = 16
_PACKET = 4 << 8 | 0  # NFNL_SUBSYS_ULOG, NFULNL_MSG_PACKET
_PACKET_HDR, _TIMESTAMP, _PAYLOAD, _PREFIX = 1, 3, 9, 10  # NFULA_*
_PREROUTING = b"\0\0"  # the hook, and padding
_CONTROL = 0x3F  # flags without ECE and CWR, which a SYN may have
_FRAGMENT = 0x3FFF  # more fragments, offset
_EXTENSIONS = {0, 43, 51, 60}  # hop-by-hop, routing, authentication, destination: no fragment, nothing encrypted
_AUTHENTICATION = 51


class Parser:
    """Parses the messages of one NFLOG group."""

    def __init__(self, group: int) -> None:
        self._beginnings = beginnings(group)
        self._same = b""
        self._read: Reader = ipv4
        """First bytes of the last message, up to its time stamp, and the function that reads its packet.

        Messages of packets from one neighbour on one interface begin alike, and equal bytes need no second check.
        """

    def packets(self, data: bytes | bytearray, at: int, size: int) -> Sequence[Packet]:
        """Return the packets of a datagram, which may hold many messages. Never raises.

        at, size: offset of the datagram in the data, and its bytes.
        """
        if size < _MESSAGE_SIZE:
            return ()
        length, kind = _MESSAGE(data, at)
        if length != size:
            return list(self._many(data, at, at + size))
        # One message, as always with a threshold of 1.
        packet = self._message(data, at + _MESSAGE_SIZE, at + size) if kind == _PACKET else None
        return (packet,) if packet else ()

    def _many(self, data: bytes | bytearray, at: int, last: int) -> Iterator[Packet]:
        while at + _MESSAGE_SIZE <= last:
            length, kind = _MESSAGE(data, at)
            end = at + length
            if length < _MESSAGE_SIZE or end > last:
                return
            if kind == _PACKET and (packet := self._message(data, at + _MESSAGE_SIZE, end)):
                yield packet
            at = end + (-length & 3)

    def _message(self, data: bytes | bytearray, at: int, end: int) -> Packet | None:
        """Return the packet of a message; at, end: offsets behind its header, and of its end."""
        if (same := self._same) and data.startswith(same, at):
            at += len(same)
        elif self._learn(data, at, end):
            at += len(self._same)
        else:
            return None
        while at + 4 <= end:
            length, kind = _ATTRIBUTE(data, at)
            if length < 4 or at + length > end:
                return None
            if kind == _PAYLOAD:
                return self._read(data, at + 4, at + length)
            at += length + (-length & 3)
        return None

    def _learn(self, data: bytes | bytearray, begin: int, end: int) -> bool:
        """Return True if a message begins as one of ours, and keep its beginning for the next."""
        for read, beginning in self._beginnings:
            if data.startswith(beginning, begin):
                self._read, at = read, begin + len(beginning)
                break
        else:
            return False
        while at + 4 <= end:
            length, kind = _ATTRIBUTE(data, at)
            if length < 4 or kind in (_TIMESTAMP, _PAYLOAD):
                break
            at += length + (-length & 3)
        # Bytes beyond the end are left from an older message.
        self._same = bytes(data[begin:at]) if at <= end else b""
        return bool(self._same)


def ipv4(data: bytes | bytearray, at: int, end: int) -> Packet | None:
    """Return the TCP or UDP packet in an IPv4 packet; at, end: the offsets of its copied bytes in the data."""
    if at + 28 > end:
        return None
    first, total, ident, fragment, protocol, source = _IPV4(data, at)
    size = (first & 15) * 4
    if first >> 4 != 4 or size < 20 or fragment & _FRAGMENT:
        return None
    if at + total < end:
        end = at + total  # without padding of the link layer
    if protocol == TCP:
        return _tcp(data, at + size, end, source, ident)
    return _udp(data, at + size, end, source, ident) if protocol == UDP else None


def ipv6(data: bytes | bytearray, at: int, end: int) -> Packet | None:
    """Return the TCP or UDP packet in an IPv6 packet, after the extension headers that sources.kernel_line skips."""
    if at + 48 > end:
        return None
    first, total, following, source = _IPV6(data, at)
    if first >> 28 != 6:
        return None
    end = min(end, at + 40 + total)
    at += 40
    for _ in range(MAX_HEADERS + 1):
        if following == TCP:
            return _tcp(data, at, end, source, first & 0xFFFFF)
        if following == UDP:
            return _udp(data, at, end, source, first & 0xFFFFF)
        if following not in _EXTENSIONS or at + 2 > end:
            return None
        unit = 4 if following == _AUTHENTICATION else 8
        following, at = data[at], at + 8 + data[at + 1] * unit
    return None


def _tcp(data: bytes | bytearray, at: int, end: int, source: bytes, ident: int) -> Packet | None:
    if at + 20 > end:
        return None
    source_port, port, sequence, acknowledgment, offset, flags, window = _TCP(data, at)
    first = at + (offset >> 4) * 4
    if first < at + 20 or first > end:
        return None
    options = bytes(data[at + 20 : first])
    payload = bytes(data[first:end]) if first < end else b""
    # The same as Packet(...), in half the time.
    return _new(
        Packet,
        (
            source,
            source_port,
            port,
            ident,
            sequence,
            acknowledgment,
            window,
            options,
            payload,
            TCP,
            flags & _CONTROL,
        ),
    )


def _udp(data: bytes | bytearray, at: int, end: int, source: bytes, ident: int) -> Packet | None:
    if at + 8 > end:
        return None
    source_port, port, length = _UDP(data, at)
    if length < 8:
        return None
    return Packet(source, source_port, port, ident, 0, 0, 0, b"", bytes(data[at + 8 : min(end, at + length)]), UDP, 0)


def beginnings(group: int) -> list[tuple[Reader, bytes]]:
    """Return by address family: the function that reads its packets, and the bytes of our messages behind nlmsghdr.

    These are the family, the version, the group, the attribute with protocol and hook, and the one with the prefix.
    group: 1 to 65535.
    """
    families = (ipv4, b"\x02", b"\x08\x00"), (ipv6, b"\x0a", b"\x86\xdd")  # AF_INET, AF_INET6; EtherTypes
    prefix = PREFIX.encode() + b"\0"
    named = _pack(4 + len(prefix), _PREFIX) + prefix + bytes(-len(prefix) % 4)
    return [
        (read, family + b"\0" + group.to_bytes(2, "big") + _pack(8, _PACKET_HDR) + protocol + _PREROUTING + named)
        for read, family, protocol in families
    ]
