"""Every sample message of the kernel's packet logger gives the result that stands beside it."""

import ipaddress
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from knockknock.sources.nfpacket import Parser

GROUP = 19275
SAMPLES = json.loads((Path(__file__).parent / "vectors" / "nflog.json").read_text())["messages"]


pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the samples are a little-endian machine's")


@pytest.mark.parametrize("sample", SAMPLES, ids=[sample["name"] for sample in SAMPLES])
def test_sample(sample: dict[str, Any]) -> None:
    message = bytes.fromhex(sample["hex"])
    found = list(Parser(GROUP).packets(message, len(message)))
    if sample["expect"] is None:
        assert found == []
        return
    (packet,) = found
    heard = packet._asdict() | {"source": str(ipaddress.ip_address(packet.source)), "payload": packet.payload.hex()}
    assert heard == {"protocol": 6, "flags": 2} | sample["expect"]
