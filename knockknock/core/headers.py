"""Builds the bytes of a SYN: the kernel's own SYN as a template, with the header fields of a knock. Pure."""

import struct
from typing import NamedTuple

from ..errors import SendError

_TIMESTAMPS = 8
"""TCP option kind (RFC 7323)."""


class Carried(NamedTuple):
    """Values of the header fields that carry a knock; None leaves the kernel's value."""

    ident: int
    """16 bits: the IPv4 identification, or the low bits of the IPv6 flow label."""
    sequence: int
    acknowledgment: int = 0
    window: int | None = None
    timestamp: int | None = None


def knock(template: bytes, source: bytes, destination: bytes, port: int, fields: Carried, label: int = 1) -> bytes:
    """Return the IP packet of a knock. Raises SendError if the template lacks a field that must carry a value.

    template: a SYN of this machine's kernel, from the IP header on; its TTL, flags, options and source port stay.
    source, destination: 4 or 16 bytes each, of the template's family. label: the upper 4 bits of an IPv6 flow label, 1
    to 15 (PROTOCOL.md step 6).
    """
    start = 20 if len(source) == 4 else 40
    packet = bytearray(template)
    if len(source) == 4:
        struct.pack_into("!H", packet, 4, fields.ident)
        packet[12:20] = source + destination
        packet[10:12] = bytes(2)
        struct.pack_into("!H", packet, 10, _checksum(packet[:20]))
        pseudo = source + destination + struct.pack("!BBH", 0, 6, len(packet) - 20)
    else:
        word = struct.unpack_from("!I", packet)[0] & 0xFFF00000
        struct.pack_into("!I", packet, 0, word | label << 16 | fields.ident)
        packet[8:40] = source + destination
        pseudo = source + destination + struct.pack("!II", len(packet) - 40, 6)
    struct.pack_into("!HII", packet, start + 2, port, fields.sequence, fields.acknowledgment)
    if fields.window is not None:
        struct.pack_into("!H", packet, start + 14, fields.window)
    if fields.timestamp is not None:
        if not (at := _timestamp(packet, start)):
            raise SendError(
                "this kernel's SYNs carry no timestamps, which format stealth needs: sysctl net.ipv4.tcp_timestamps=1"
            )
        struct.pack_into("!I", packet, at + 2, fields.timestamp)
    packet[start + 16 : start + 18] = bytes(2)
    struct.pack_into("!H", packet, start + 16, _checksum(pseudo + packet[start:]))
    return bytes(packet)


def like(template: bytes, port: int, hops: int, timestamp: int) -> bytes:
    """Return a SYN with the values of another connection; its checksums are no longer right.

    port: the source port, 0 to leave that of the template. hops: TTL or hop limit. timestamp: TSval, if there is one.
    """
    packet = bytearray(template)
    start = 20 if packet[0] >> 4 == 4 else 40
    packet[8 if start == 20 else 7] = hops
    if port:
        struct.pack_into("!H", packet, start, port)
    if at := _timestamp(packet, start):
        struct.pack_into("!I", packet, at + 2, timestamp)
    return bytes(packet)


def _timestamp(packet: bytes | bytearray, start: int) -> int:
    """The offset of the TCP timestamps option in a packet whose TCP header begins at start; 0 if there is none."""
    at, end = start + 20, start + (packet[start + 12] >> 4) * 4
    while at < end and packet[at]:
        if packet[at] == _TIMESTAMPS:
            return at
        at += 1 if packet[at] == 1 else packet[at + 1]
    return 0


def _checksum(data: bytes | bytearray) -> int:
    """The Internet checksum (RFC 1071)."""
    data = bytes(data) + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def total_length(packet: bytes) -> int:
    """Return a packet's length from its first 6 bytes. Raises SendError unless it can be a SYN of ours."""
    start = {4: 20, 6: 40}.get(packet[0] >> 4, 0) if len(packet) >= 6 else 0
    length = int.from_bytes(packet[2:4] if start == 20 else packet[4:6], "big") + (start if start == 40 else 0)
    if not start or not start + 20 <= length <= start + 60:
        raise SendError("this is no IP packet that a knock can be")
    return length


def check_syn(packet: bytes) -> tuple[bytes, bytes]:
    """Return the source and destination of a packet, from the IP header on. Raises SendError if it is not a lone SYN.

    It must be TCP to and from a unicast address, not a fragment, with no IP options or extension headers and no data,
    and with no other flag than SYN and those of ECN (RFC 3168 section 6.1.1).
    """
    if len(packet) != (length := total_length(packet)):
        raise SendError("this is not a whole packet")
    four = packet[0] >> 4 == 4
    start, size, protocol = (20, 4, packet[9]) if four else (40, 16, packet[6])
    if protocol != 6 or (four and (packet[0] != 0x45 or packet[6] & 0xBF or packet[7])):
        raise SendError("this is no plain TCP packet")
    if packet[start + 13] & 0x3F != 2 or start + (packet[start + 12] >> 4) * 4 != length:
        raise SendError("this is no SYN without data")
    source, destination = packet[start - 2 * size : start - size], packet[start - size : start]
    for address in (source, destination):
        if address[0] == 0xFF or (four and (address[0] == 0 or address[0] >= 224)) or not any(address):
            raise SendError("this is not from one host to another")
    return source, destination
