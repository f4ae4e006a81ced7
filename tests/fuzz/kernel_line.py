"""A line of the kernel's packet log."""

import json
from pathlib import Path

from knockknock.core.packet import SYN, TCP, UDP
from knockknock.sources.kernel_line import MAX_LINE, parse

_SAMPLES = json.loads((Path(__file__).parent.parent / "vectors" / "kernel_lines.json").read_text())["lines"]
CORPUS = [bytes.fromhex(sample["hex"]) if "hex" in sample else sample["line"].encode() for sample in _SAMPLES]


def target(data: bytes) -> None:
    """A line is no knock, or begins and ends as one and has every number that was found in it, within its field."""
    packet = parse(data)
    if packet is None:
        return
    assert len(data) <= MAX_LINE
    assert data.count(b"knockknock IN=") >= 1
    assert b"\n" not in data.removesuffix(b"\n"), "one line, with its end or without"
    assert (b" PROTO=UDP " if packet.protocol == UDP else b" PROTO=TCP ") in data
    assert (b" SYN " in data) or not packet.flags & SYN
    assert len(packet.source) in (4, 16)
    assert packet.ident <= (0xFFFF if len(packet.source) == 4 else 0xFFFFF)
    tcp: list[tuple[str, int, int]] = [
        ("SEQ", packet.sequence, 0xFFFFFFFF),
        ("ACK", packet.acknowledgment, 0xFFFFFFFF),
        ("WINDOW", packet.window, 0xFFFF),
    ]
    for word, number, limit in (
        ("SPT", packet.source_port, 0xFFFF),
        ("DPT", packet.port, 0xFFFF),
        ("ID" if len(packet.source) == 4 else "FLOWLBL", packet.ident, 0xFFFFF),
        *(tcp if packet.protocol == TCP else ()),
    ):
        assert 0 <= number <= limit
        assert f" {word}={number} ".encode() in data
    if packet.timestamp is not None:
        assert f"080A{packet.timestamp:08X}".encode() in data
