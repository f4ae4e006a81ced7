"""A datagram of the kernel's packet logger."""

import json
from pathlib import Path

from knockknock.core.packet import TCP
from knockknock.sources.nflog_packet import Parser

_GROUP = 19275
_SAMPLES = json.loads((Path(__file__).parent.parent / "vectors" / "nflog.json").read_text())["messages"]
CORPUS = [bytes.fromhex(sample["hex"]) for sample in _SAMPLES]
_warm = Parser(_GROUP)
"""It has seen all inputs before; what it learns from one must not change what it makes of the next."""


def target(data: bytes) -> None:
    """Whatever comes out has its values in the data, behind our prefix, and does not depend on what came before."""
    found = list(Parser(_GROUP).packets(data, 0, len(data)))
    assert list(_warm.packets(data, 0, len(data))) == found
    assert list(_warm.packets(bytearray(data) + CORPUS[0], 0, len(data))) == found
    assert list(_warm.packets(CORPUS[0] + data, len(CORPUS[0]), len(data))) == found
    assert len(found) <= data.count(b"knockknock \0")
    for packet in found:
        assert len(packet.source) in (4, 16)
        assert packet.source in data
        assert packet.ident <= (0xFFFF if len(packet.source) == 4 else 0xFFFFF)
        words = packet.source_port.to_bytes(2, "big") + packet.port.to_bytes(2, "big")
        if packet.protocol == TCP:
            words += packet.sequence.to_bytes(4, "big") + packet.acknowledgment.to_bytes(4, "big")
        assert words in data
        assert packet.window.to_bytes(2, "big") in data
        assert packet.payload in data
        assert packet.options in data
        assert packet.timestamp is None or b"\x08\x0a" + packet.timestamp.to_bytes(4, "big") in packet.options
