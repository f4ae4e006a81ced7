"""Every sample log line gives the result that stands beside it."""

import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest

from knockknock.sources.logline import parse

SAMPLES = json.loads((Path(__file__).parent / "vectors" / "loglines.json").read_text())["lines"]


@pytest.mark.parametrize("sample", SAMPLES, ids=[sample["name"] for sample in SAMPLES])
def test_sample(sample: dict[str, Any]) -> None:
    line = bytes.fromhex(sample["hex"]) if "hex" in sample else sample["line"].encode()
    packet = parse(line)
    if sample["expect"] is None:
        assert packet is None
        return
    assert packet is not None
    heard = packet._asdict() | {"source": str(ipaddress.ip_address(packet.source))}
    assert heard == {"payload": b"", "protocol": 6, "flags": 2} | sample["expect"]
