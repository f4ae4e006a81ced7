"""Properties that a knock shares with a connection of the same machine: clock, source port, hop limit, route, order."""

import contextlib
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from knockknock.core.packet import tcp_timestamp

from ..helpers import NOBODY
from .lab import KNOCK_PORT, Lab, inside, until
from .test_stealth import ETHER, SERVER, next_syn

OTHER = {4: "10.77.1.1", 6: "fd77:1::1"}
"""A second server, as far as the client knows."""
SO_TIMESTAMPNS = 35
"""include/uapi/asm-generic/socket.h"""
FAMILIES = pytest.mark.parametrize("family", [4, 6])


class Tap:
    """Sees the SYNs to the knock port that arrive at the server, each with the kernel's time in milliseconds."""

    def __init__(self, lab: Lab, family: int) -> None:
        with inside(lab.ns("server")):
            self._tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHER[family]))
        lab.on_close(self._tap.close)
        self._tap.bind(("s0", ETHER[family]))
        self._tap.settimeout(2)
        self._tap.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._family, self._start = family, 20 if family == 4 else 40

    def after(self, send: Callable[[], object]) -> tuple[int, int, int]:
        """The source port and TSval of what something sends, and when it came."""
        send()
        came = port = 0
        while port != KNOCK_PORT:
            packet, extra, _, _ = self._tap.recvmsg(2048, 64)
            seconds, nanoseconds = struct.unpack("qq", extra[0][2])
            came = seconds * 1000 + nanoseconds // 1_000_000
            port = struct.unpack_from("!H", packet, self._start + 2)[0]
        at = packet.index(b"\x08\x0a", self._start + 20)
        (port,), (stamp,) = struct.unpack_from("!H", packet, self._start), struct.unpack_from("!I", packet, at + 2)
        return port, stamp, came


def connecting(lab: Lab, family: int, port: int = 0) -> Callable[[], object]:
    """Make a function that sends a real SYN to the knock port; port: the source port, or 0 for the kernel's choice."""

    def send() -> None:
        with inside(lab.ns("client")):
            caller = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        with caller:
            caller.setblocking(False)
            if port:
                caller.bind(("10.77.0.2" if family == 4 else "fd77:0::2", port))
            caller.connect_ex((SERVER[family], KNOCK_PORT))

    return send


@FAMILIES
@pytest.mark.parametrize("kind", ["compact", "classic"])
def test_the_clock_is_that_of_a_connection(lab: Lab, family: int, kind: str) -> None:
    """From the same port the kernel's own SYN goes on where the knock was; to another server it is another clock."""
    lab.mint("laptop", "--format", kind, hosts=(SERVER[family], OTHER[family]))
    tap = Tap(lab, family)
    port, stamp, came = tap.after(lambda: lab.knock(SERVER[family]))
    _, real, later = tap.after(connecting(lab, family, port))
    assert abs((real - stamp) % 2**32 - (later - came)) <= 50, "milliseconds"
    _, other, later = tap.after(lambda: lab.knock(OTHER[family]))
    assert abs((other - stamp) % 2**32 - (later - came)) > 50, "one clock for all servers names the machine"


@FAMILIES
def test_ports_are_the_next_that_a_connection_would_have(lab: Lab, family: int) -> None:
    """The kernel begins elsewhere every 10 seconds (EPHEMERAL_PORT_SHUFFLE_PERIOD in net/core/secure_seq.c)."""
    lab.mint("laptop")
    tap = Tap(lab, family)
    ports, began = [], time.monotonic()
    for _ in range(4):
        ports += [tap.after(connecting(lab, family))[0], tap.after(lambda: lab.knock(SERVER[family]))[0]]
    steps = [(after - before) % 28232 for before, after in pairwise(ports)]
    jumps = [step for step in steps if step % 2 or not 0 < step < 400]
    assert len(jumps) <= 1 + (time.monotonic() - began) // 10, ports


@FAMILIES
@pytest.mark.parametrize(
    "setting",
    [
        "net.ipv4.tcp_fastopen=0",
        "net.ipv4.tcp_fastopen_blackhole_timeout_sec=3600",
        "net.ipv4.tcp_syncookies=2",
    ],
)
def test_a_kernel_that_tells_less(lab: Lab, family: int, setting: str) -> None:
    """It defers no connection, or keeps no SYN: the knock is obeyed all the same."""
    lab.run("client", "sysctl", "-w", setting)
    lab.mint("laptop", hosts=(SERVER[family],))
    lab.listen(22)
    daemon = lab.daemon()
    lab.knock(SERVER[family])
    assert lab.opens(SERVER[family]), daemon.log()
    done = lab.run("client", *lab.program("knockknock"), "--doctor", SERVER[family], check=False)
    assert "would leave as a SYN" in done.stdout


@contextlib.contextmanager
def tapped(lab: Lab, family: int) -> Iterator[socket.socket]:
    """A socket that gets the packets of an address family at the server's end."""
    with inside(lab.ns("server")):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHER[family]))
    with tap:
        tap.bind(("s0", ETHER[family]))
        tap.settimeout(2)
        yield tap


def test_timestamps_are_random_where_the_kernel_tells_none(lab: Lab) -> None:
    """Those of a clock would be the machine's own, whatever server and network: four are a few seconds apart."""
    lab.run("client", "sysctl", "-w", "net.ipv4.tcp_fastopen=0")
    lab.mint("laptop")
    with tapped(lab, 4) as tap:
        lab.knock(SERVER[4], ports=("22",) * 4)
        packets = [next_syn(tap, 4) for _ in range(4)]
    stamps = [tcp_timestamp(packet[40 : 20 + (packet[32] >> 4) * 4]) for packet in packets]
    known = [stamp for stamp in stamps if stamp is not None]
    assert len(known) == 4
    assert max(known) - min(known) > 1_000_000


def test_flow_labels_stay_in_the_range_for_connections_without_state(lab: Lab) -> None:
    lab.run("client", "sysctl", "-w", "net.ipv6.flowlabel_state_ranges=1")
    lab.mint("laptop")
    with tapped(lab, 6) as tap:
        for _ in range(2):
            lab.knock(SERVER[6], ports=("22",) * 8)
        labels = [int.from_bytes(next_syn(tap, 6)[1:4], "big") & 0xFFFFF for _ in range(16)]
    assert all(label & 0x80000 for label in labels), "RFC 6437, include/net/ipv6.h"
    assert len({label >> 16 for label in labels}) > 1


def test_a_link_local_address(lab: Lab) -> None:
    listed = lab.run("server", "ip", "-6", "-brief", "address", "show", "dev", "s0", "scope", "link").stdout
    host = re.findall(r"fe80:[0-9a-f:]+", listed)[0] + "%c0"
    lab.mint("laptop", hosts=(host,))
    lab.listen(22)
    until(lambda: "tentative" not in lab.run("client", "ip", "-6", "address", "show", "dev", "c0").stdout)
    until(lambda: "tentative" not in lab.run("server", "ip", "-6", "address", "show", "dev", "s0").stdout)
    daemon = lab.daemon()
    words = ["-p", "22", "--stdio", host]
    lab.start("client", *lab.program("knockknock"), *words, env=lab.environment())
    daemon.says("open tcp/22 for fe80:")
    until(lambda: lab.run("client", "ss", "-Htn", "state", "connected", "dport = :22").stdout)


def test_sudo_takes_the_route_of_the_user(lab: Lab) -> None:
    """Rules by user (`ip rule uidrange`): root has no way to the server here, the user has."""
    lab.mint("laptop", hosts=("10.77.0.1",))
    lab.listen(22)
    daemon = lab.daemon()
    for words in (
        "rule add uidrange 65534-65534 lookup 77",
        "route add 10.77.0.0/24 dev c0 src 10.77.0.2 table 77",
        "route add blackhole 10.77.0.1/32",
    ):
        lab.run("client", "ip", *words.split())
    home = Path(lab.home)
    lab.run("client", "chown", "-R", f"{NOBODY}:{NOBODY}", str(home))
    code = (
        # All that is imported, as this Python may be root's own.
        "import hmac, pwd, subprocess, sys; from knockknock.client import send_client, syn_template;"
        "from knockknock.profiles import counters, legacy; from knockknock.schemes.syn import seal;"
        "from knockknock.cli import knock_dispatch; from knockknock.cli.knockknock import main;"
        f"one = pwd.getpwuid({NOBODY}); pwd.getpwuid = lambda uid: type(one)((*one[:5], {str(home)!r}, one[6]));"
        "sys.argv[0] = 'knockknock'; main()"
    )
    python = lab.program("knockknock")[0]
    sudo = ["env", f"SUDO_UID={NOBODY}", f"PYTHONPATH={Path(__file__).parents[2]}", python, "-c", code]
    assert lab.run("client", *lab.program("knockknock"), "-p", "22", "10.77.0.1", check=False).returncode == 1
    lab.run("client", *sudo, "-p", "22", "10.77.0.1")
    daemon.says("open tcp/22 for 10.77.0.2")


def test_a_knock_takes_the_route_of_its_source(lab: Lab) -> None:
    """Rules by source (`ip rule from`): without its source there is no way to the server here."""
    lab.mint("laptop", hosts=("10.77.0.1",))
    daemon = lab.daemon()
    for words in (
        "rule add from 10.77.0.2 lookup 78",
        "route add 10.77.0.0/24 dev c0 src 10.77.0.2 table 78",
        "route add blackhole 10.77.0.1/32",
    ):
        lab.run("client", "ip", *words.split())
    lab.knock("10.77.0.1", "--source", "10.77.0.2")
    daemon.says("open tcp/22 for 10.77.0.2")


def test_many_knocks_at_once_arrive_in_their_order(lab: Lab) -> None:
    lab.mint("laptop")
    daemon = lab.daemon()
    one = [*lab.program("knockknock"), "-p", "22", "10.77.0.1"]
    started = [lab.start("client", *one, env=lab.environment()) for _ in range(20)]
    assert [process.wait(20) for process in started] == [0] * 20
    until(lambda: daemon.log().count("open tcp/22") == 20)
    assert "refused" not in daemon.log()


def test_a_name_with_several_addresses_is_knocked_at_each(lab: Lab) -> None:
    """Nobody knows which of them a program will connect to."""
    lab.mint("laptop", hosts=("server.test",))
    lab.listen(22)
    daemon = lab.daemon()
    names = lab.directory / "hosts"
    names.write_text("10.77.0.1 server.test\nfd77:0::1 server.test\n")
    command = " ".join([*lab.program("knockknock"), "-p", "22", "server.test"])
    lab.run("client", "unshare", "--mount", "sh", "-ec", f"mount --bind {names} /etc/hosts; exec {command}")
    for family in (4, 6):
        assert lab.opens(SERVER[family]), daemon.log()
