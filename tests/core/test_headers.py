"""The bytes of a SYN, dissected and summed again by scapy."""

import socket
import struct
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from knockknock.client.syn_template import kernel_syn, usual_syn
from knockknock.core import headers
from knockknock.core.headers import Carried
from knockknock.errors import SendError

from ..helpers import SOURCE, SOURCE6

DESTINATION, DESTINATION6 = bytes([198, 51, 100, 9]), bytes.fromhex("20010db8000000000000000000000009")
FIELDS = {
    "compact": Carried(0x1234, 0xDEADBEEF, window=0xABCD),
    "classic": Carried(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, window=0xFFFF),
    "stealth": Carried(1, 0, timestamp=0xCAFEBABE),
    "zeros": Carried(0, 0, 0, window=0, timestamp=0),
}
OPTIONS: dict[str, list[tuple[str, Any]]] = {
    "linux": [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 10)],
    "timestamps last": [("MSS", 536), ("WScale", 7), ("NOP", None), ("NOP", None), ("Timestamp", (7, 0))],
    "nothing but timestamps": [("NOP", None), ("NOP", None), ("Timestamp", (0xFFFFFFFF, 0))],
}


def template(family: int, options: str, payload: bytes = b"") -> bytes:
    """A SYN by scapy; family: 4 or 6."""
    head = IP(src="127.0.0.1", dst="127.0.0.1", ttl=61, tos=2, flags="DF", id=77) if family == 4 else None
    head = head or IPv6(src="::1", dst="::1", hlim=61, tc=2, fl=0xBEEF1)
    return bytes(head / TCP(sport=50000, dport=1, seq=5, window=6, flags="S", options=OPTIONS[options]) / payload)


def made(original: bytes, fields: Carried, label: int = 9) -> bytes:
    """A knock from a template of either family."""
    ends = (SOURCE, DESTINATION) if original[0] >> 4 == 4 else (SOURCE6, DESTINATION6)
    return headers.knock(original, *ends, 4242, fields, label)


FAMILIES = pytest.mark.parametrize("family", [4, 6])
ALL_FIELDS = pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)


@FAMILIES
@ALL_FIELDS
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("payload", [b"", b"\xff", b"odd", b"even"])
def test_scapy_agrees(family: int, fields: Carried, options: str, payload: bytes) -> None:
    packet = made(template(family, options, payload), fields)
    parsed = (IP if family == 4 else IPv6)(packet)
    assert (parsed.src, parsed.dst) == (
        ("192.0.2.7", "198.51.100.9") if family == 4 else ("2001:db8::7", "2001:db8::9")
    )
    assert (parsed.id if family == 4 else parsed.fl) == (fields.ident if family == 4 else 9 << 16 | fields.ident)
    tcp = parsed[TCP]
    assert (tcp.sport, tcp.dport, tcp.seq, tcp.ack) == (50000, 4242, fields.sequence, fields.acknowledgment)
    assert tcp.flags == "S"
    assert tcp.window == (6 if fields.window is None else fields.window)
    before = dict(OPTIONS[options])["Timestamp"]
    after = before if fields.timestamp is None else (fields.timestamp, before[1])
    assert dict(tcp.options)["Timestamp"] == after
    assert bytes(tcp.payload) == payload
    if family == 4:
        del parsed.chksum
    del tcp.chksum
    assert bytes(parsed) == packet


@FAMILIES
@ALL_FIELDS
@pytest.mark.parametrize("payload", [b"", b"odd"])
def test_nothing_else_changes(family: int, fields: Carried, payload: bytes) -> None:
    original = template(family, "linux", payload)
    packet = made(original, fields)
    start = 20 if family == 4 else 40
    free = {start + 2, start + 3, *range(start + 4, start + 12), start + 16, start + 17}
    free |= {4, 5, 10, 11, *range(12, 20)} if family == 4 else {1, 2, 3, *range(8, 40)}
    if fields.window is not None:
        free |= {start + 14, start + 15}
    if fields.timestamp is not None:
        free |= set(range(start + 28, start + 32))
    assert len(packet) == len(original)
    assert {at for at in range(len(packet)) if packet[at] != original[at]} <= free
    if family == 6:
        assert packet[1] & 0xF0 == original[1] & 0xF0  # the traffic class ends in the same byte


@pytest.mark.parametrize("label", [1, 15])
def test_label(label: int) -> None:
    packet = made(template(6, "linux"), Carried(0xFFFF, 1, window=2), label)
    assert struct.unpack_from("!I", packet)[0] == 6 << 28 | 2 << 20 | label << 16 | 0xFFFF


@FAMILIES
@pytest.mark.parametrize(
    "options",
    [
        [("MSS", 1460), ("SAckOK", b""), ("NOP", None), ("WScale", 10)],
        [],
        [("MSS", 1460), ("EOL", None), ("Timestamp", (1, 0))],
    ],
    ids=["none", "no options", "behind the end"],
)
def test_no_timestamps(family: int, options: list[tuple[str, object]]) -> None:
    head = IP() if family == 4 else IPv6()
    original = bytes(head / TCP(flags="S", options=options))
    with pytest.raises(SendError, match="tcp_timestamps=1"):
        made(original, FIELDS["stealth"])
    made(original, FIELDS["compact"])


@pytest.mark.parametrize("segment", [536, 1440, 8960])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_the_kernels_own_syn_is_a_template(family: int, segment: int) -> None:
    if family == socket.AF_INET6 and not socket.has_ipv6:
        pytest.skip("no IPv6")
    original = kernel_syn(family, segment)
    parsed = (IP if family == socket.AF_INET else IPv6)(original)
    assert parsed[TCP].flags.value & 0x3F == 2
    assert dict(parsed[TCP].options)["MSS"] == segment
    packet = (IP if family == socket.AF_INET else IPv6)(made(original, FIELDS["compact"]))
    assert (packet[TCP].seq, packet[TCP].window, packet[TCP].dport) == (0xDEADBEEF, 0xABCD, 4242)
    assert packet[TCP].options == parsed[TCP].options


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_stranger_on_the_loopback_decides_nothing(family: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody is faster than we at our own listener; the SYN is ours all the same."""
    strangers = []

    class Watched(socket.socket):
        def listen(self, backlog: int = 8) -> None:
            super().listen(8)
            stranger = socket.socket(family, socket.SOCK_STREAM)
            stranger.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 700)
            stranger.connect(self.getsockname())
            strangers.append(stranger)

    monkeypatch.setattr("knockknock.client.syn_template.socket.socket", Watched)
    saved = kernel_syn(family, 1200)
    for stranger in strangers:
        stranger.close()
    assert strangers
    assert dict((IP if family == socket.AF_INET else IPv6)(saved)[TCP].options)["MSS"] == 1200


@pytest.mark.parametrize(
    ("family", "segment"), [(socket.AF_INET, 1460), (socket.AF_INET, 1200), (socket.AF_INET6, 1440)]
)
def test_the_usual_syn_is_what_this_kernel_sends(family: int, segment: int) -> None:
    """SYN for a kernel that keeps none: as this kernel's own, but for ports, numbers and addresses."""
    kernels, ours = (
        (IP if family == socket.AF_INET else IPv6)(headers.like(made, 1, 64, 0))
        for made in (kernel_syn(family, segment), usual_syn(family, segment))
    )
    for packet in kernels, ours:
        packet[TCP].seq = packet[TCP].dport = 0
        del packet[TCP].chksum
    assert bytes(ours[TCP])[:16] + bytes(ours[TCP])[18:] == bytes(kernels[TCP])[:16] + bytes(kernels[TCP])[18:]
