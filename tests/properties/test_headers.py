"""The bytes of a SYN: sums that are right, and fields that are where they belong."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from knockknock.core import headers
from knockknock.core.headers import Carried

from .strategies import addresses4, addresses6, ports, u16, u32

STAMP = b"\x08\x0a" + bytes(8)


@st.composite
def templates(draw: st.DrawFn, family: int) -> tuple[bytes, int]:
    """A SYN with a timestamps option, its sums not yet right, and where the option is."""
    before = b"".join(draw(st.lists(st.sampled_from([b"\x01", b"\x02\x04\x05\xb4", b"\x04\x02"]), max_size=4)))
    options = before + STAMP + draw(st.sampled_from([b"", b"\x01\x03\x03\x0a", b"\x00"]))
    options += bytes(-len(options) % 4)
    payload = draw(st.binary(max_size=9))
    size = 20 + len(options)
    tcp = struct.pack(
        "!HHIIBBHHH", draw(u16), 0, 0, 0, size // 4 << 4, draw(st.sampled_from([2, 0xC2])), draw(u16), 0, 0
    )
    segment = tcp + options + payload
    if family == 4:
        head = struct.pack("!BBHHHBBH8x", 0x45, 0, 20 + len(segment), 0, 0x4000, draw(st.integers(1, 255)), 6, 0)
    else:
        head = struct.pack("!IHBB32x", 6 << 28 | draw(st.integers(0, 255)) << 20, len(segment), 6, 64)
    return head + segment, len(head) + 20 + len(before)


def sums_to_nothing(data: bytes) -> bool:
    """Return True if the checksum in some bytes is right: with it, all words add up to 0 modulo 65535 (RFC 1071)."""
    return int.from_bytes(data + bytes(len(data) % 2), "big") % 0xFFFF == 0


fields = st.builds(Carried, u16, u32, u32, st.none() | u16, st.none() | u32)


@given(st.data(), st.sampled_from([4, 6]), ports, fields, st.integers(1, 15))
def test_knock(data: st.DataObject, family: int, port: int, carried: Carried, label: int) -> None:
    template, stamp = data.draw(templates(family))
    address = addresses4 if family == 4 else addresses6
    ends = data.draw(address), data.draw(address)
    packet = headers.knock(template, *ends, port, carried, label)
    start = 20 if family == 4 else 40
    length = len(packet) - start
    pseudo = ends[0] + ends[1] + (struct.pack("!HH", 6, length) if family == 4 else struct.pack("!II", length, 6))
    assert sums_to_nothing(pseudo + packet[start:])
    if family == 4:
        assert sums_to_nothing(packet[:20])
        assert struct.unpack_from("!H", packet, 4)[0] == carried.ident
        assert packet[12:20] == ends[0] + ends[1]
    else:
        assert struct.unpack_from("!I", packet)[0] & 0xFFFFF == label << 16 | carried.ident
        assert packet[8:40] == ends[0] + ends[1]
    assert struct.unpack_from("!HII", packet, start + 2) == (port, carried.sequence, carried.acknowledgment)
    window, stamped = struct.unpack_from("!H", packet, start + 14)[0], struct.unpack_from("!I", packet, stamp + 2)[0]
    assert window == (struct.unpack_from("!H", template, start + 14)[0] if carried.window is None else carried.window)
    assert stamped == (carried.timestamp or 0)
    assert packet[start + 12 : start + 14] == template[start + 12 : start + 14]
    assert packet[stamp + 6 :] == template[stamp + 6 :]
