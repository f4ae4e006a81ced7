"""A stealth SYN is the kernel's own: byte for byte but for the fields that carry, and to p0f."""

import shutil
import socket
import struct
import time
from pathlib import Path

import pytest

from .lab import KNOCK_PORT, Lab, inside, until

SERVER = {4: "10.77.0.1", 6: "fd77:0::1"}
ETHER = {4: 0x0800, 6: 0x86DD}


def syns(lab: Lab, family: int) -> tuple[bytes, bytes]:
    """The kernel's SYN and ours, to the same port, from the IP header on."""
    with inside(lab.ns("server")):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHER[family]))
    with tap:
        tap.bind(("s0", ETHER[family]))
        tap.settimeout(2)
        lab.connects(SERVER[family], KNOCK_PORT, seconds=0.05)
        kernels = next_syn(tap, family)
        lab.knock(SERVER[family])
        return kernels, next_syn(tap, family)


def next_syn(tap: socket.socket, family: int) -> bytes:
    start, protocol = (20, 9) if family == 4 else (40, 6)
    while True:
        packet = tap.recv(2048)
        if packet[protocol] == 6 and struct.unpack_from("!H", packet, start + 2)[0] == KNOCK_PORT:
            return packet


def masked(packet: bytes, family: int, kind: str) -> bytes:
    """A packet with zeros where two SYNs of one machine may differ: source port, checksums, and what carries."""
    data = bytearray(packet)
    start = 20 if family == 4 else 40
    if family == 4:
        data[4:6] = data[10:12] = bytes(2)
    else:
        data[0:4] = (struct.unpack("!I", data[:4])[0] & 0xFFF00000).to_bytes(4, "big")
    data[start : start + 2] = bytes(2)
    data[start + 4 : start + 8] = bytes(4)
    data[start + 16 : start + 18] = bytes(2)
    if kind == "compact":
        data[start + 14 : start + 16] = bytes(2)
    at = data.index(b"\x08\x0a", start + 20)
    data[at + 2 : at + 6] = bytes(4)
    return bytes(data)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind", ["stealth", "compact"])
@pytest.mark.parametrize(
    "sysctl",
    [
        "",
        "net.ipv4.tcp_ecn=1",
        "net.ipv4.ip_default_ttl=128",
        "net.ipv4.tcp_sack=0",
        "net.ipv4.tcp_syncookies=2",
        "net.ipv4.tcp_fastopen=0",
        "net.ipv6.conf.c0.hop_limit=255",  # as a router announces it
        "mtu 1400",
    ],
)
def test_byte_for_byte(lab: Lab, family: int, kind: str, sysctl: str) -> None:
    if sysctl.startswith("mtu"):
        lab.run("client", "ip", "link", "set", "c0", "mtu", "1400")
    elif sysctl:
        lab.run("client", "sysctl", "-w", sysctl)
    lab.mint("laptop", "--format", kind)
    kernels, ours = syns(lab, family)
    assert masked(ours, family, kind).hex() == masked(kernels, family, kind).hex()
    assert kernels != ours
    if family == 6:
        assert struct.unpack("!I", ours[:4])[0] & 0xF0000, "the upper bits of the flow label are all zero"
    parity = [struct.unpack_from("!H", one, 20 if family == 4 else 40)[0] % 2 for one in (kernels, ours)]
    assert parity[0] == parity[1], "connect() takes ports of one parity only"


@pytest.mark.parametrize(
    ("family", "commands"),
    [
        (4, ["sysctl -w net.ipv4.tcp_rmem=4096,16000,6291456"]),
        (4, ["sysctl -w net.ipv4.tcp_rmem=4096,16000,20000 net.ipv4.tcp_syncookies=2"]),
        (6, ["sysctl -w net.ipv4.tcp_rmem=4096,2000,6291456 net.ipv4.tcp_syncookies=2"]),
        (6, ["sysctl -w net.ipv4.tcp_rmem=4096,300000,6291456 net.ipv4.tcp_syncookies=2"]),
        (6, ["ip route add fd77:0::1 dev c0 hoplimit 44"]),
        (6, ["ip route add fd77:0::1 dev c0 hoplimit 44", "sysctl -w net.ipv4.tcp_fastopen=0"]),
    ],
)
def test_window_and_hop_limit_are_those_of_a_connection(lab: Lab, family: int, commands: list[str]) -> None:
    """Also where the kernel keeps no SYN, or defers no connection."""
    for command in commands:
        lab.run("client", *(word.replace(",", " ") for word in command.split()))
    lab.mint("laptop", "--format", "stealth")
    kernels, ours = syns(lab, family)
    assert masked(ours, family, "stealth").hex() == masked(kernels, family, "stealth").hex()


def test_kernel_without_timestamps(lab: Lab) -> None:
    lab.run("client", "sysctl", "-w", "net.ipv4.tcp_timestamps=0")
    lab.mint("laptop", "--format", "stealth")
    done = lab.knock(SERVER[4], check=False)
    assert done.returncode == 1
    assert "sysctl net.ipv4.tcp_timestamps=1" in done.stderr
    assert (lab.home / ".knockknock" / SERVER[4] / "counter").read_text() == "0\n", "no counter is used up for nothing"


def test_p0f_agrees(lab: Lab) -> None:
    """p0f reads both SYNs and must print the same of them."""
    lab.mint("laptop", "--format", "stealth")
    log = lab.directory / "p0f.log"
    fingerprints = Path("/etc/p0f/p0f.fp")
    program = shutil.which("p0f", path="/usr/sbin:/usr/bin")
    assert program, "p0f is not installed"
    lab.start("server", program, "-i", "s0", "-f", str(fingerprints), "-o", str(log))
    until(log.exists)
    time.sleep(0.5)
    syns(lab, 4)

    def signatures() -> list[str]:
        found = [line for line in log.read_text().splitlines() if "mod=syn|" in line]
        return [line.partition("|subj=")[2].partition("|")[2] for line in found]

    until(lambda: len(signatures()) >= 2)
    first, second = signatures()[:2]
    assert first == second
    assert "raw_sig=4:64+0:0:1460:" in first
