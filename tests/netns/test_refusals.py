"""Packets that open no port: replays, those of strangers, what is not permitted, and what only looks like a knock."""

import contextlib
import json
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from knockknock.core.headers import Carried
from knockknock.core.headers import knock as packet_of

from .lab import KNOCK_PORT, Daemon, Lab, inside, until

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "syn.json").read_text())["cases"]
HOST = "10.77.0.1"


@pytest.fixture
def daemon(lab: Lab) -> Daemon:
    lab.listen(22)
    lab.listen(23)
    lab.tell_all()
    lab.mint("laptop")
    return lab.daemon()


def profile(lab: Lab) -> Path:
    return lab.home / ".knockknock" / HOST


def counter(lab: Lab) -> int:
    return int((profile(lab) / "counter").read_text())


def set_counter(lab: Lab, value: int) -> None:
    (profile(lab) / "counter").write_text(f"{value}\n")


def record(lab: Lab, *options: str) -> bytes:
    """Knock; the packet that left, from the IP header on."""
    with inside(lab.ns("client")):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    with tap:
        tap.bind(("c0", 3))
        tap.settimeout(2)
        lab.knock(HOST, *options)
        while True:
            packet = tap.recv(2048)
            if (
                packet[0] == 0x45
                and packet[9] == socket.IPPROTO_TCP
                and struct.unpack_from("!H", packet, 22)[0] == KNOCK_PORT
            ):
                return packet


@contextlib.contextmanager
def held_back(lab: Lab) -> Iterator[None]:
    """Let no knock of the client through to the server's log."""
    lab.run("server", "nft", "add table ip held; add chain ip held in { type filter hook prerouting priority raw; }")
    lab.run("server", "nft", "add rule ip held in ip saddr 10.77.0.2 tcp dport 4242 drop")
    yield
    lab.run("server", "nft", "delete table ip held")


def send_raw(lab: Lab, packet: bytes, host: str = "client") -> None:
    """Put any IPv4 packet on the wire."""
    with inside(lab.ns(host)):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw:
        raw.sendto(packet, (HOST, 0))


def test_replay_is_refused(lab: Lab, daemon: Daemon) -> None:
    packet = record(lab)
    assert lab.opens(HOST)
    send_raw(lab, packet)
    daemon.says("refused replay: knock from 10.77.0.2 at port 4242, laptop asked to open tcp/22")
    assert not lab.connects(HOST)


def test_replay_is_refused_after_a_restart(lab: Lab, daemon: Daemon) -> None:
    packet = record(lab)
    assert lab.opens(HOST)
    daemon.kill_all()
    second = lab.daemon()
    send_raw(lab, packet)
    second.says("refused replay")
    assert not lab.connects(HOST)


def test_replay_from_another_host_is_refused(lab: Lab, daemon: Daemon) -> None:
    packet = bytearray(record(lab))
    assert lab.opens(HOST)
    fields = Carried(
        *struct.unpack_from("!H", packet, 4),
        *struct.unpack_from("!II", packet, 24),
        *struct.unpack_from("!H", packet, 34),
    )
    thief = packet_of(bytes(packet), socket.inet_aton("10.77.1.2"), socket.inet_aton(HOST), KNOCK_PORT, fields)
    send_raw(lab, thief, "other")
    daemon.says("refused replay: knock from 10.77.1.2")
    assert not lab.connects("10.77.1.1", host="other")


def test_stolen_bound_knock_is_refused(lab: Lab, daemon: Daemon) -> None:
    lab.mint("bound", "--bind-source")
    daemon.reload()
    daemon.says("2 profile(s)")
    with held_back(lab):
        packet = bytearray(record(lab))
    fields = Carried(
        *struct.unpack_from("!H", packet, 4),
        *struct.unpack_from("!II", packet, 24),
        *struct.unpack_from("!H", packet, 34),
    )
    thief = packet_of(bytes(packet), socket.inet_aton("10.77.1.2"), socket.inet_aton(HOST), KNOCK_PORT, fields)
    send_raw(lab, thief, "other")
    daemon.says("refused unknown: knock from 10.77.1.2")
    assert not lab.connects("10.77.1.1", host="other")


def test_old_counter_is_refused(lab: Lab, daemon: Daemon) -> None:
    lab.knock(HOST)
    lab.knock(HOST)
    until(lambda: daemon.log().count("open tcp/22 for") == 2)
    assert lab.opens(HOST)
    assert lab.opens(HOST), "two knocks are two connections"
    set_counter(lab, 0)
    lab.knock(HOST)
    daemon.says("refused replay")
    assert not lab.connects(HOST)


@pytest.mark.parametrize(("lost", "opens"), [(19, True), (20, False)])
def test_lost_knocks(lab: Lab, daemon: Daemon, lost: int, opens: bool) -> None:
    set_counter(lab, lost)
    lab.knock(HOST)
    daemon.says("open tcp/22 for" if opens else "refused ahead")
    assert lab.connects(HOST) is opens


def test_wrong_key(lab: Lab, daemon: Daemon) -> None:
    key = profile(lab) / "mac.key"
    key.write_text("A" + key.read_text()[1:] if key.read_text()[0] != "A" else "B" + key.read_text()[1:])
    lab.knock(HOST)
    daemon.says("refused unknown: knock from 10.77.0.2 at port 4242")
    assert not lab.connects(HOST)


def test_port_that_is_not_permitted(lab: Lab, daemon: Daemon) -> None:
    done = lab.knock(HOST, ports=("23",), check=False)
    assert done.returncode == 1
    assert "may not open tcp/23; it may: tcp/22" in done.stderr
    config = profile(lab) / "config"
    config.write_text(config.read_text().replace("tcp/22", "tcp/22, tcp/23"))
    lab.knock(HOST, ports=("23",))
    daemon.says("refused not permitted: knock from 10.77.0.2 at port 4242, laptop asked to open tcp/23")
    assert not lab.connects(HOST, 23)
    lab.knock(HOST)
    assert lab.opens(HOST), "a refused request must use up its counter and no more"


def test_counter_that_seals_to_identification_0(lab: Lab) -> None:
    """A raw socket would replace the 0, so the sender skips the counter; the receiver's window takes it."""
    known = next(case for case in VECTORS if case["format"] == "compact" and case["counter"] == 36629)
    lab.listen(22)
    lab.mint("laptop")
    for key in ("cipher", "mac"):
        text = subprocess.run(
            ["base64", "-w0"], input=bytes.fromhex(known[f"{key}_key"]), capture_output=True, check=True
        ).stdout
        for directory in (profile(lab), Path(lab.settings["profiles"]) / "laptop"):
            (directory / f"{key}.key").write_bytes(text + b"\n")
    (Path(lab.settings["state"]) / "laptop").write_text("36629\n")
    set_counter(lab, 36629)
    lab.daemon()
    packet = record(lab)
    assert packet[4:6] != b"\0\0"
    assert counter(lab) == 36631
    assert lab.opens(HOST)


def test_icmp_error_that_quotes_a_knock(lab: Lab, daemon: Daemon) -> None:
    """The kernel logs the packet that an ICMP error answers in brackets; it must not count as its sender's."""
    lab.run(
        "server",
        "nft",
        'insert rule inet guard input icmp type destination-unreachable log prefix "knockknock " flags all',
    )
    with held_back(lab):
        inner = record(lab)
    icmp = struct.pack("!BBHI", 3, 3, 0, 0) + inner
    total = sum(struct.unpack(f"!{len(icmp) // 2}H", icmp))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    icmp = icmp[:2] + struct.pack("!H", ~total & 0xFFFF) + icmp[4:]
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(icmp), 1, 0, 64, 1, 0, *map(socket.inet_aton, ("10.77.0.2", HOST))
    )
    send_raw(lab, header + icmp)
    send_raw(
        lab,
        struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 7, 0, 64, 6, 0, *map(socket.inet_aton, ("10.77.0.2", HOST)))
        + syn_to(KNOCK_PORT),
    )
    daemon.says("refused unknown")  # the SYN behind it, so the ICMP error has been read by now
    assert "open tcp/22" not in daemon.log()
    assert not lab.connects(HOST)


def syn_to(port: int) -> bytes:
    """A TCP header that is no knock, with a right checksum for 10.77.0.2 to 10.77.0.1."""
    header = struct.pack("!HHIIBBHHH", 4000, port, 1, 0, 0x50, 2, 1024, 0, 0)
    pseudo = socket.inet_aton("10.77.0.2") + socket.inet_aton(HOST) + struct.pack("!BBH", 0, 6, 20) + header
    total = sum(struct.unpack("!16H", pseudo))
    total = (total & 0xFFFF) + (total >> 16)
    return header[:16] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + header[18:]


def test_flood_at_the_knock_port_does_not_hide_a_knock(lab: Lab, daemon: Daemon) -> None:
    with inside(lab.ns("other")):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    junk = packet_of(
        struct.pack("!BBHHHBBH8x", 0x45, 0, 40, 7, 0, 64, 6, 0)
        + struct.pack("!HHIIBBHHH", 4000, 1, 1, 0, 0x50, 2, 1024, 0, 0),
        socket.inet_aton("10.77.1.2"),
        socket.inet_aton("10.77.1.1"),
        KNOCK_PORT,
        Carried(7, 7, 0, 7),
    )
    with raw:
        for _ in range(2000):
            raw.sendto(junk, ("10.77.1.1", 0))
    lab.knock(HOST)
    assert lab.opens(HOST)
    assert daemon.log().count("refused unknown") <= 60, "one flooder's packets are limited by the LOG rule"
