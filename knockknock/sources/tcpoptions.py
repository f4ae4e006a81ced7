"""What of a SYN's TCP options a knock can be carried in. Pure; each length in them is one that the sender chose."""

from struct import Struct

_LINUX = Struct("!H2xII").unpack_from
"""Segment size, "SACK permitted" and timestamps: how the options of nearly every Linux SYN begin."""


def timestamp(data: bytes | bytearray, at: int, end: int) -> int | None:
    """TSval (RFC 7323) from the options between two places; None without one, or where a length leads nowhere."""
    if at + 16 <= end:
        size, more, value = _LINUX(data, at)
        if more == 0x0402080A and size == 0x0204:
            return int(value)  # where the walk below would end too, but sooner
    while at < end and data[at]:
        if data[at] == 1:
            at += 1
            continue
        length = data[at + 1] if at + 1 < end else 0
        if length < 2:
            return None
        if data[at] == 8 and length == 10 and at + 10 <= end:
            return int.from_bytes(data[at + 2 : at + 6], "big")
        at += length
    return None
