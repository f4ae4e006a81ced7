"""Every sample message of the kernel's packet logger gives the result that stands beside it."""

import ipaddress
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from knockknock.sources.nflog_packet import Parser

GROUP = 19275
SAMPLES = json.loads((Path(__file__).parents[1] / "vectors" / "nflog.json").read_text())["messages"]


pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the samples are a little-endian machine's")


@pytest.mark.parametrize("sample", SAMPLES, ids=[sample["name"] for sample in SAMPLES])
def test_sample(sample: dict[str, Any]) -> None:
    message = bytes.fromhex(sample["hex"])
    found = list(Parser(GROUP).packets(message, 0, len(message)))
    if sample["expect"] is None:
        assert found == []
        return
    (packet,) = found
    heard = packet._asdict() | {"source": str(ipaddress.ip_address(packet.source)), "payload": packet.payload.hex()}
    heard["timestamp"] = packet.timestamp
    del heard["options"]  # the samples have what is in them
    assert heard == {"protocol": 6, "flags": 2} | sample["expect"]


@pytest.mark.parametrize("length", [0, 7, 8, 9, 40, 65535])
def test_length_of_a_datagram(length: int) -> None:
    """The payload ends where the datagram says or the copy does; a length below that of the header is no datagram."""
    sample = next(one for one in SAMPLES if one["name"] == "UDP")
    message = bytes.fromhex(sample["hex"])
    payload = bytes.fromhex(sample["expect"]["payload"])
    at = message.index((8 + len(payload)).to_bytes(2, "big") + message[message.index(payload) - 2 :][:2])
    found = list(Parser(GROUP).packets(message[:at] + length.to_bytes(2, "big") + message[at + 2 :], 0, len(message)))
    assert [packet.payload for packet in found] == ([payload[: length - 8]] if length >= 8 else [])
