"""Every sample log line gives the result that stands beside it."""

import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest

from knockknock.sources.kernel_line import parse

SAMPLES = json.loads((Path(__file__).parents[1] / "vectors" / "kernel_lines.json").read_text())["lines"]


@pytest.mark.parametrize("sample", SAMPLES, ids=[sample["name"] for sample in SAMPLES])
def test_sample(sample: dict[str, Any]) -> None:
    line = bytes.fromhex(sample["hex"]) if "hex" in sample else sample["line"].encode()
    packet = parse(line)
    if sample["expect"] is None:
        assert packet is None
        return
    assert packet is not None
    heard = packet._asdict() | {"source": str(ipaddress.ip_address(packet.source)), "timestamp": packet.timestamp}
    del heard["options"]  # the samples have what is in them
    assert heard == {"payload": b"", "protocol": 6, "flags": 2} | sample["expect"]


LINE4 = "knockknock IN=eth0 OUT= MAC= SRC=192.0.2.7 DST=192.0.2.1 LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO="
LINE6 = (
    "knockknock IN=eth0 OUT= MAC= SRC=2001:0db8:0000:0000:0000:0000:0000:0007 "
    "DST=2001:0db8:0000:0000:0000:0000:0000:0001 LEN=60 TC=0 HOPLIMIT=64 FLOWLBL=9 PROTO="
)
WRITERS = {
    "rsyslog, RSYSLOG_TraditionalFileFormat": "Nov 26 08:14:14 host kernel: [  412.345678] ",
    "rsyslog, RSYSLOG_FileFormat": "2026-11-26T08:14:14.693976+01:00 host kernel: [  412.345678] ",
    "rsyslog, keepKernelTimestamp=off": "2026-11-26T08:14:14.693976+01:00 host kernel: ",
    "rsyslog, RSYSLOG_ForwardFormat": "<7>2026-11-26T08:14:14.693976+01:00 host kernel: [  412.345678] ",
    "rsyslog, SyslogProtocol23Format": "<7>1 2026-11-26T08:14:14.693976+01:00 host kernel - - - [  412.345678] ",
    "sysklogd, RFC 5424": "2026-11-26T08:14:14.693976+01:00 host kernel - - - [  412.345678] ",
    "busybox syslogd": "Nov 26 08:14:14 host kern.debug kernel: [  412.345678] ",
    "OpenWrt logd": "Thu Nov 26 08:14:14 2026 kern.debug kernel: [  412.345678] ",
    "metalog": "Nov 26 08:14:14 [kernel] [  412.345678] ",
    "without the host's name": "Nov 26 08:14:14 kernel: [  412.345678] ",
    "host name in UTF-8": "Nov 26 08:14:14 bücher kernel: [  412.345678] ",
    "host name that is an address": "Nov 26 08:14:14 fe80::1 kernel: [  412.345678] ",
    "CONFIG_PRINTK_CALLER, a processor": "Nov 26 08:14:14 host kernel: [  412.345678][    C0] ",
    "CONFIG_PRINTK_CALLER, a task": "Nov 26 08:14:14 host kernel: [  412.345678][ T1234] ",
    "journalctl -o short": "Nov 26 08:14:14 host kernel: ",
    "journalctl -o short, cs_CZ": "lis 26 08:14:14 host kernel: ",
    "journalctl -o short, de_DE": "Mär 26 08:14:14 host kernel: ",
    "journalctl -o short, fr_FR": "févr. 26 08:14:14 host kernel: ",
    "journalctl -o short, ja_JP": " 1月 26 08:14:14 host kernel: ",
    "journalctl -o short, et_EE": "nov   26 08:14:14 host kernel: ",
    "journalctl -o short, vi_VN": "Thg 11 26 08:14:14 host kernel: ",
    "journalctl -o short-precise": "Nov 26 08:14:14.545053 host kernel: ",
    "journalctl -o short-iso": "2026-11-26T08:14:14+0100 host kernel: ",
    "journalctl -o short-iso-precise": "2026-11-26T08:14:14.655028+01:00 host kernel: ",
    "journalctl -o short-full": "Thu 2026-11-26 08:14:14 CET host kernel: ",
    "journalctl -o short-monotonic": "[  412.345678] host kernel: ",
    "journalctl --no-hostname": "Nov 26 08:14:14 kernel: ",
    "dmesg": "[  412.345678] ",
    "dmesg of util-linux 2.40, CONFIG_PRINTK_CALLER": "[  412.345678] [      C0] ",
    "dmesg -T": "[Thu Nov 26 08:14:14 2026] ",
    "dmesg --time-format iso": "2026-11-26T08:14:14,559615+01:00 ",
    "dmesg -t": "",
    "/proc/kmsg": "<7>[  412.345678] ",
    "/proc/kmsg, printk.time=0": "<7>",
    "/dev/kmsg": "7,555,412345678,-,caller=C0;",
}


@pytest.mark.parametrize("front", WRITERS.values(), ids=WRITERS)
def test_what_stands_in_front(front: str) -> None:
    """As the syslog daemons and the tools of a system write it."""
    expected = parse(LINE4.encode() + b"TCP SPT=1 DPT=2 SEQ=3 ACK=4 WINDOW=5 RES=0x00 SYN URGP=0 ")
    assert expected
    assert parse(f"{front}{LINE4}TCP SPT=1 DPT=2 SEQ=3 ACK=4 WINDOW=5 RES=0x00 SYN URGP=0 ".encode()) == expected


@pytest.mark.parametrize("front", ["GET Nov 26 08:14:14 host kernel: ", "Nov Nov 26 08:14:14 host kernel: ", "a b c "])
def test_what_does_not_stand_in_front(front: str) -> None:
    """A syslog daemon's date behind another word, as where it has broken a message into two lines."""
    assert parse(f"{front}{LINE4}TCP SPT=1 DPT=2 SEQ=3 ACK=4 WINDOW=5 RES=0x00 SYN URGP=0 ".encode()) is None


WORDS = ("URG", 32), ("ACK", 16), ("PSH", 8), ("RST", 4), ("SYN", 2), ("FIN", 1)
"""In the order of dump_tcp_header() in net/netfilter/nf_log_syslog.c; values of RFC 9293."""


@pytest.mark.parametrize("bits", range(64))
def test_every_combination_of_control_bits(bits: int) -> None:
    words = "".join(f"{word} " for word, bit in WORDS if bits & bit)
    for head in (LINE4, LINE6):
        found = parse(f"{head}TCP SPT=1 DPT=2 SEQ=3 ACK=4 WINDOW=5 RES=0x00 {words}URGP=0 ".encode())
        assert found
        assert (found.protocol, found.flags, found.sequence) == (6, bits, 3)
    backwards = "".join(f"{word} " for word, bit in reversed(WORDS) if bits & bit)
    found = parse(f"{LINE4}TCP SPT=1 DPT=2 SEQ=3 ACK=4 WINDOW=5 RES=0x00 {backwards}URGP=0 ".encode())
    assert (found is not None) == (backwards == words)


@pytest.mark.parametrize(
    ("end", "good"),
    [
        ("UDP SPT=7 DPT=65535 LEN=8 ", True),
        ("UDP SPT=7 DPT=65535 LEN=8 UID=0 GID=0 MARK=0x1 ", True),
        ("UDP SPT=7 DPT=65535 LEN=8", True),
        ("UDP SPT=7 DPT=65536 LEN=8 ", False),
        ("UDP SPT=65536 DPT=7 LEN=8 ", False),
        ("UDP SPT=7 DPT=65535 ", False),
        ("UDP SPT=7 DPT=65535 LEN=65536 ", False),
        ("UDP SPT=7 DPT=65535 LEN=8 SYN ", False),
        ("UDP SPT=7 DPT=65535 SEQ=3 ACK=4 WINDOW=5 RES=0x00 SYN URGP=0 ", False),
        ("UDPLITE SPT=7 DPT=65535 LEN=8 ", False),
        ("TCP SPT=7 DPT=65535 LEN=8 ", False),
        ("UDP INCOMPLETE [4 bytes] ", False),
    ],
)
def test_udp(end: str, good: bool) -> None:
    for head in (LINE4, LINE6):
        found = parse((head + end).encode())
        assert (found is not None) == good
        if found:
            assert (found.source_port, found.port, found.protocol, found.flags) == (7, 65535, 17, 0)
            assert (found.sequence, found.acknowledgment, found.window, found.timestamp) == (0, 0, 0, None)
