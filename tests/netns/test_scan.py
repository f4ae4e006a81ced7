"""The scan guard: who tries too many ports is shut out, nobody else is, and it ends; with each firewall."""

import re
import socket
import struct
import time
from typing import NamedTuple

import pytest
from prometheus_client import parser

from .lab import FIREWALLS, ROOT, Daemon, Lab, inside, until

HOST, HOST6 = "10.77.0.1", "fd77:0::1"
KNOCK_PORT = 4319
"""No other test has it, as the kernel's log is everybody's."""
DOOR, PUBLIC = 22, 900
"""A service behind knocks, and one for all, which both listen."""
SYN, ACK, RST, FIN = 2, 16, 4, 1
SOURCE = 40000
"""The port of what is made here."""


class Case(NamedTuple):
    """Packets of sources that nobody else has, and who is shut out by them."""

    name: str
    packets: tuple[tuple[str, int, int], ...]
    """Source, destination port, TCP flags; 0 for a UDP datagram."""
    blocked: str = ""


def syns(source: str, *ports: int) -> tuple[tuple[str, int, int], ...]:
    return tuple((source, port, SYN) for port in ports)


CASES = [
    Case("as many as may be", syns("10.77.0.11", 1, 2, 3)),
    Case("one more", syns("10.77.0.12", 1, 2, 3, 4), "10.77.0.12"),
    Case("one port many times", syns("10.77.0.13", *[1] * 20)),
    Case("again and again, and one more", syns("10.77.0.14", 1, 2, 1, 2, 3, 3, 1, 65535), "10.77.0.14"),
    Case("a public port", syns("10.77.0.15", 1, 2, 3, PUBLIC, PUBLIC)),
    Case("ports that a profile may open", syns("10.77.0.16", 1, 2, DOOR, 8000), "10.77.0.16"),
    Case("a knock port", syns("10.77.0.17", 1, 2, KNOCK_PORT, 3), "10.77.0.17"),
    Case("two sources", syns("10.77.0.18", 1, 2) + syns("10.77.0.19", 3, 4)),
    Case("UDP", tuple(("10.77.0.20", port, 0) for port in range(1, 9))),
    Case("answers", tuple(("10.77.0.21", port, SYN | ACK) for port in range(1, 9))),
    Case("no SYN", tuple(("10.77.0.22", port, flags) for port in range(1, 9) for flags in (ACK, RST, FIN))),
    Case("allowed address", syns("10.77.0.23", *range(1, 20))),
    Case("allowed network", syns("10.77.0.131", *range(1, 20))),
    Case("IPv6, as many as may be", syns("fd77:0::11", 1, 2, 3)),
    Case("IPv6, one network", syns("fd77:0:0:0::21", 4), "fd77::/64"),
    Case("IPv6, allowed network", syns("fd77:9::1", *range(1, 20))),
    Case("IPv6, link-local", syns("fe80::99", *range(1, 20))),
    Case("IPv6, another network", syns("fd77:a::1", 1, 2) + syns("fd77:a::2", 1, 2, 3)),
]
"""In order: in that of IPv6 the second is of the network of the first."""


def _sum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def packet(source: str, port: int, flags: int, sequence: int = 1, acknowledged: int = 0) -> bytes:
    """An IP packet to the server, made here so that a source need not be an address of ours."""
    family, to = (socket.AF_INET6, HOST6) if ":" in source else (socket.AF_INET, HOST)
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, to)
    protocol = socket.IPPROTO_TCP if flags else socket.IPPROTO_UDP

    def segment(checksum: int) -> bytes:
        if not flags:
            return struct.pack("!HHHH", SOURCE, port, 8, checksum)
        return struct.pack("!HHIIBBHHH", SOURCE, port, sequence, acknowledged, 5 << 4, flags, 1024, checksum, 0)

    data = segment(_sum(ends + struct.pack("!II", len(segment(0)), protocol) + segment(0)))
    if family == socket.AF_INET6:
        return struct.pack("!IHBB", 6 << 28, len(data), protocol, 64) + ends + data
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 1, 0, 64, protocol, 0)
    return header[:10] + struct.pack("!H", _sum(header + ends)) + ends + data


def send(lab: Lab, packets: list[bytes]) -> None:
    """Put packets on the client's wire."""
    server = lab.run("server", "cat", "/sys/class/net/s0/address").stdout.strip()
    client = lab.run("client", "cat", "/sys/class/net/c0/address").stdout.strip()
    ends = bytes.fromhex((server + client).replace(":", ""))
    with inside(lab.ns("client")):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with wire:
        wire.bind(("c0", 0))
        for one in packets:
            wire.send(ends + (b"\x86\xdd" if one[0] >> 4 == 6 else b"\x08\x00") + one)


def ask(lab: Lab, *options: str) -> str:
    command = [*lab.program("knockknock-daemon"), "--config", lab.configure(), *options]
    done = lab.run("server", *command, check=False)
    return done.stdout + done.stderr


def blocked(lab: Lab) -> list[str]:
    return [line.split()[0] for line in ask(lab, "--blocked").splitlines()]


def tries(lab: Lab, host: str) -> None:
    """The client tries two closed ports."""
    for port in (1, 2):
        assert not lab.connects(host, port)


def guarded(lab: Lab, firewall: str, **settings: str) -> Daemon:
    """A daemon with the guard on a server that lets everybody to ports up to 1000, where nothing but two listens."""
    lab.run("server", "nft", "flush", "ruleset")
    lab.guard(firewall)
    if firewall == "protect":
        lab.settings["protect"] = f"tcp/{DOOR}, tcp/1001-65535"
    elif firewall == "nftables":
        lab.run("server", "nft", f"insert rule inet guard input tcp dport 1-1000 tcp dport != {DOOR} accept")
    else:
        for command in (firewall, firewall.replace("ip", "ip6", 1)):
            ports = ["-p", "tcp", "-m", "multiport", "--dports", f"1:{DOOR - 1},{DOOR + 1}:1000"]
            lab.run("server", command, "-I", "INPUT", *ports, "-j", "ACCEPT")
    # Packets from addresses that are nobody's are to arrive.
    for name in ("all", "s0"):
        lab.run("server", "sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter=0")
    lab.configure(scan_guard="on", **{"scan_public": f"tcp/{PUBLIC}"} | settings)
    lab.mint("laptop", "--ports", f"tcp/{DOOR},tcp/8000-8010", port=KNOCK_PORT)
    for port in (DOOR, PUBLIC):
        lab.listen(port)
    return lab.daemon()


@pytest.fixture(params=FIREWALLS)
def firewall(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["nftables", "protect"])
def either(request: pytest.FixtureRequest) -> str:
    """Somebody else's firewall or our own refusal, where it makes no difference which else there is."""
    return str(request.param)


@pytest.mark.parametrize("count", ["kernel", "daemon"])
def test_cases(lab: Lab, firewall: str, count: str) -> None:
    """All at once; the daemon hears by nflog, as the kernel's log is everybody's."""
    allowed = "10.77.0.23, 10.77.0.128/25 fd77:9::/64"
    daemon = guarded(lab, firewall, scan_allow=allowed, scan_count=count, source="nflog")
    send(lab, [packet(*one) for case in CASES for one in case.packets])
    expected = [case.blocked for case in CASES if case.blocked]
    until(lambda: len(blocked(lab)) >= len(expected))
    assert blocked(lab) == expected

    def said() -> list[str]:
        return sorted(re.findall("WARNING (.*) is shut out: it tried more than 3 port", daemon.log()))

    if count == "daemon":  # which reports what the kernel has already done
        until(lambda: len(said()) >= len(expected))
    assert said() == (expected if count == "daemon" else [])


def test_the_daemon_counts_what_the_kernel_logs(lab: Lab, either: str) -> None:
    daemon = guarded(lab, either, scan_count="daemon", scan_block="1")
    send(lab, [packet("10.77.0.12", port, SYN) for port in (5001, 5002, 5003, 5004)])
    daemon.says("[event=blocked source=10.77.0.12 ports=3]")
    assert "10.77.0.12" in blocked(lab)
    until(lambda: "10.77.0.12" not in blocked(lab))


ASKS = """
import sys
from ipaddress import ip_address
from knockknock import errors
from knockknock.root.record import Grant, Order
from knockknock.server import privsep
helper = privsep.Helper(sys.argv[1], sys.argv[2], True)
for address in sys.argv[3:]:
    try:
        helper.obey(Grant(Order.BLOCK, ip_address(address).packed, 0, 0, 0))
        print(address, "done")
    except errors.KnockError as error:
        print(address, error)
helper.stop()
"""


def test_whom_the_helper_shuts_out(lab: Lab, either: str) -> None:
    """Nobody at all where the kernel counts."""
    guarded(lab, either, scan_count="daemon").stop()
    words = [lab.program("knockknock")[0], "-c", ASKS, lab.configure(), lab.settings["state"]]
    asks = ["env", f"PYTHONPATH={ROOT}", *words, "198.51.100.7"]
    assert lab.run("server", *asks).stdout.splitlines() == ["198.51.100.7 done"]
    lab.configure(scan_count="kernel")
    said = lab.run("server", *asks).stdout.splitlines()
    assert said[0] == "198.51.100.7 no profile may open protocol 0 port 0"


def test_ends(lab: Lab, either: str) -> None:
    """Ports are forgotten after their seconds, each by itself, and so is a source that is shut out."""
    guarded(lab, either, scan_seconds="2", scan_block="3")

    def both(*ports: int) -> None:
        send(lab, [packet(source, port, SYN) for source in ("10.77.0.11", "10.77.0.12") for port in ports])

    both(1, 2)
    time.sleep(1.2)
    both(3, 1, 2)
    time.sleep(1.2)
    # 1 and 2 are forgotten, 3 is not: two more are three in all.
    both(4, 5)
    send(lab, [packet("10.77.0.12", 6, SYN)])
    assert blocked(lab) == ["10.77.0.12"]
    until(lambda: not blocked(lab), 4)


def test_shut_out(lab: Lab, firewall: str) -> None:
    """Public ports are closed to the source, an established connection stays, and a knock lets it in."""
    daemon = guarded(lab, firewall, scan_ports="1", scan_block="forever")
    with inside(lab.ns("client")):
        old = socket.create_connection((HOST, PUBLIC), 2)
    with old:
        tries(lab, HOST)
        assert blocked(lab) == ["10.77.0.2"]
        assert "10.77.0.2 for ever" in ask(lab, "--blocked")
        assert not lab.connects(HOST, PUBLIC)
        assert lab.connects("10.77.1.1", PUBLIC, "other"), "somebody else is not"
        assert not lab.connects(HOST6, 1)
        assert lab.connects(HOST6, PUBLIC), "one family is counted by itself"
        assert not lab.connects(HOST6, 2)
        old.send(b"still there")
        with inside(lab.ns("client")):
            time.sleep(0.1)
            assert "FIN" not in lab.run("client", "ss", "-tn", "state", "established").stdout
            unsent = old.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        assert struct.unpack_from("I", unsent, 24)[0] == 0, "what was sent is acknowledged"
    counts = parser.text_string_to_metric_families(ask(lab, "--blocked", "--prometheus"))
    seen = {sample.name.removeprefix("knockknock_scan_"): sample.value for one in counts for sample in one.samples}
    assert seen["blocked_sources"] == 2
    assert seen["packets_dropped_total"] >= 3
    assert seen["connections_new_total"] >= 6
    assert seen["packets_passed_total"] >= 6
    assert "10.77.0.2 is let in again" in ask(lab, "--unblock", "10.77.0.2")
    assert blocked(lab) == ["fd77::/64"]
    assert lab.connects(HOST, PUBLIC)
    assert not lab.connects(HOST, 3)
    assert blocked(lab) == ["fd77::/64"], "it is counted from nothing"
    assert "10.77.0.2 is not shut out" in ask(lab, "--unblock", "10.77.0.2")
    assert "'nonsense' is not an address" in ask(lab, "--unblock", "nonsense")
    assert not lab.connects(HOST, 4)
    assert "10.77.0.2" in blocked(lab)
    lab.knock(HOST)
    assert lab.opens(HOST, DOOR), daemon.log()
    assert lab.connects(HOST, PUBLIC), "who knocks is not let in again"
    assert blocked(lab) == ["fd77::/64"]


@pytest.mark.parametrize("count", ["kernel", "daemon"])
def test_tells_nothing_of_what_is_hidden(lab: Lab, count: str) -> None:
    """From outside: three closed ports and one more, then a ping. What the one more is makes no difference."""
    guarded(lab, "protect", scan_count=count, scan_block="forever")
    lab.listen(999)
    hidden = {"closed": 4, "service": DOOR, "of a profile": 8000, "knock port": KNOCK_PORT, "listens": 999}
    hidden["not tracked"] = 998
    raw = "table inet raw { chain in { type filter hook prerouting priority raw; tcp dport 998 notrack; }; }"
    lab.run("server", "nft", "-f", "-", text=raw)
    ping = ["ping", "-c1", "-W1", "-n", HOST]
    answers = {}
    for number, (kind, port) in enumerate(hidden.items(), 100):
        source = f"10.77.0.{number}"
        lab.run("client", "ip", "address", "add", f"{source}/24", "dev", "c0")
        assert lab.run("client", *ping, "-I", source, check=False).returncode == 0
        send(lab, [packet(source, one, SYN) for one in (1, 2, 3)])
        assert lab.run("client", *ping, "-I", source, check=False).returncode == 0, f"{kind}: shut out too soon"
        send(lab, [packet(source, port, SYN)])
        if count == "daemon":
            time.sleep(0.5)  # it has heard by then, or will not
        answers[kind] = lab.run("client", *ping, "-I", source, check=False).returncode
    assert answers == dict.fromkeys(hidden, 1)


def test_a_port_that_is_not_tracked_is_closed_to_who_is_shut_out(lab: Lab, either: str) -> None:
    """Every SYN, and not just the first."""
    guarded(lab, either, scan_ports="1")
    lab.listen(998)
    raw = "table inet raw {{ chain {0} {{ type filter hook {1} priority raw; tcp {2} 998 notrack; }}; }}"
    for words in (("in", "prerouting", "dport"), ("out", "output", "sport")):
        lab.run("server", "nft", "-f", "-", text=raw.format(*words))
    if either == "nftables":
        lab.run("server", "nft", "insert rule inet guard input tcp dport 998 accept")
    assert lab.connects(HOST, 998)
    for port in (1, 2):
        assert not lab.connects(HOST, port)
    until(lambda: blocked(lab))
    for _ in range(3):
        assert not lab.connects(HOST, 998)


def test_a_guard_that_shuts_out_who_knocks(lab: Lab) -> None:
    """It is refused at the start, by --check too, and a new profile at a reload."""
    words = ["phone", "--sequence", "tcp/2001,udp/2002,tcp/2004", "--ports", "tcp/22", "--config", lab.configure()]
    lab.run("server", *lab.program("knockknock-genprofile"), *words)
    lab.configure(scan_guard="on", scan_ports="1")
    sentence = "profile phone: its knock tries 2 TCP ports, and the scan guard blocks a source that tries more than 1"
    daemon = lab.daemon(ready=False)
    assert daemon.process.wait(10) == 1
    assert sentence in daemon.log()
    assert sentence in ask(lab, "--check")
    lab.configure(scan_ports="2")
    lab.daemon()


def test_all_is_dropped(lab: Lab, either: str) -> None:
    """With scan_drops = all, established connections and knocks, too; neighbours are still found."""
    guarded(lab, either, scan_ports="1", scan_drops="all")
    with inside(lab.ns("client")):
        old = socket.create_connection((HOST6, PUBLIC), 2)
    with old:
        tries(lab, HOST6)
        old.send(b"nobody hears this")
        time.sleep(0.1)
        assert struct.unpack_from("I", old.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)[0] == 1
    lab.knock(HOST6)
    assert not lab.opens(HOST6, DOOR, within=0.5)
    lab.run("client", "ip", "-6", "neigh", "flush", "dev", "c0")
    assert "fd77::/64 is let in again" in ask(lab, "--unblock", "fd77::77")
    assert lab.connects(HOST6, PUBLIC)


def test_nmap(lab: Lab, firewall: str) -> None:
    """A scan sees three ports; meanwhile another host is served, and a third knocks."""
    daemon = guarded(lab, firewall)
    scan = ["nmap", "-sS", "-Pn", "-n", "-r", "-p", "1-1000", "-T4", "--max-retries", "0", "--min-rate", "500"]
    nmap = lab.start("other", *scan, "-oG", str(lab.directory / "seen"), "10.77.1.1")
    until(lambda: blocked(lab) == ["10.77.1.2"])
    assert lab.connects(HOST, PUBLIC)
    lab.knock(HOST)
    assert lab.opens(HOST, DOOR), daemon.log()
    assert nmap.poll() is None, "it is still at it"
    nmap.wait(60)
    seen = (lab.directory / "seen").read_text()
    # The first closed port after three (1, 2, 3) is dropped, and so is 900, which is open.
    assert "open/tcp" not in seen
    assert re.search(r"Ignored State: filtered \(997\)", seen), seen
    assert re.findall(r"(\d+)/closed/tcp", seen) == ["1", "2", "3"]
    assert blocked(lab) == ["10.77.1.2"]


def test_spoofed_flood(lab: Lab, either: str) -> None:
    """It fills what is there for counting and no more; nobody is shut out by it, and whoever is already stays so."""
    guarded(lab, either, scan_allow="10.77.1.2", scan_ports="2")
    send(lab, [packet("10.77.0.99", port, SYN) for port in (1, 2, 3)])
    # 40000 sources that try two ports: more than there is room for.
    flood = [packet(f"172.16.{number >> 8}.{number & 255}", port, SYN) for port in (1, 2) for number in range(40000)]
    send(lab, flood)
    listed = lab.run("server", "nft", "list", "table", "inet", "knockknock").stdout
    sizes = {name: text.count("expires") for name, text in re.findall(r"set (\w+) (\{[^}]*\}?[^}]*\})", listed)}
    assert max(sizes.values()) <= 65536
    assert sum(sizes.values()) >= 60000, "it was a flood"
    assert blocked(lab) == ["10.77.0.99"]
    for port in range(1, 9):
        lab.connects("10.77.1.1", port, "other", 0.02)
        send(lab, [packet("10.77.0.50", port, SYN)])
    assert lab.connects("10.77.1.1", PUBLIC, "other"), "who is allowed is not shut out"
    assert blocked(lab) == ["10.77.0.99"], "whoever finds no room is not counted"


def test_networks(lab: Lab, either: str) -> None:
    """Other than /64, and an allowlist of everything in one family."""
    guarded(lab, either, scan_ipv6_prefix="56", scan_ports="1", scan_allow="0.0.0.0/0")
    sources = ("fd77:0:0:ff01::1", "fd77:0:0:ff02::1", "fd77:0:0:fe00::1", "10.77.0.11", "10.77.0.11")
    send(lab, [packet(source, port, SYN) for port, source in enumerate(sources, 1)])
    assert blocked(lab) == ["fd77:0:0:ff00::/56"]
    assert "fd77:0:0:ff00::/56 is let in again" in ask(lab, "--unblock", "fd77:0:0:ff00::/56")
    assert blocked(lab) == []


def test_reload(lab: Lab, either: str) -> None:
    """The list of whom it spares is read again; the rest takes a restart."""
    daemon = guarded(lab, either, scan_ports="1")
    send(lab, [packet("10.77.0.11", port, SYN) for port in (1, 2)])
    tries(lab, HOST)
    assert blocked(lab) == ["10.77.0.2", "10.77.0.11"]
    lab.configure(scan_allow="10.77.0.2")
    daemon.reload()
    daemon.says("reloaded")
    assert lab.connects(HOST, PUBLIC)
    lab.configure(scan_ports="2")
    daemon.reload()
    daemon.says("a new scan_ports takes a restart")


def test_healed(lab: Lab, firewall: str) -> None:
    """Rules and sets that somebody takes away come back, and shut out as before."""
    daemon = guarded(lab, firewall, scan_ports="1", scan_allow="192.0.2.0/24")
    before = sorted(lab.ruleset().splitlines())
    for command in ("delete table inet knockknock", "flush chain inet knockknock count"):
        lab.run("server", "nft", *command.split())
        until(lambda: sorted(lab.ruleset().splitlines()) == before)
    daemon.says("placed again")
    tries(lab, HOST)
    assert not lab.connects(HOST, PUBLIC)


def test_killed(lab: Lab, firewall: str) -> None:
    """Rules of a killed daemon are gone after the next start, with the guard or without, and at its stop."""
    lab.run("server", "nft", "flush", "ruleset")
    lab.guard(firewall)
    before = lab.ruleset()
    lab.mint("laptop", port=KNOCK_PORT)
    lab.configure(scan_guard="on")
    for settings in ({"scan_ports": "2", "scan_seconds": "5"}, {"scan_guard": "off"}):
        lab.daemon().kill_all()
        lab.configure(**settings)
    daemon = lab.daemon()
    assert "blocked4" not in lab.ruleset()
    assert "there is no scan guard in the kernel" in ask(lab, "--blocked")
    assert daemon.stop() == 0
    assert lab.ruleset() == before
