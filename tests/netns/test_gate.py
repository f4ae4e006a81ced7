"""Protected ports: knockknock itself refuses them, with no other firewall, before, while and after a daemon runs."""

import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from .lab import DELAY, ROOT, Lab, inside, until
from .syn_answers import Asker, Knocker, noise
from .test_scan import ACK, SOURCE, SYN, packet, send

SERVER = {4: "10.77.0.1", 6: "fd77:0::1"}
OTHER = {4: "10.77.1.1", 6: "fd77:1::1"}


@pytest.fixture
def bare() -> Iterator[Lab]:
    """Three hosts without any firewall; tcp/22 of the server is protected."""
    lab = Lab()
    try:
        lab.settings["protect"] = "tcp/22"
        lab.mint("laptop")
        lab.listen(22)
        lab.listen(80)
        yield lab
    finally:
        lab.close()


def refused(lab: Lab, address: str, port: int = 22, host: str = "client") -> str:
    """Return the answer to a connection: "reset", "silence", or "" if it comes in."""
    with inside(lab.ns(host)):
        caller = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    with caller:
        caller.settimeout(0.3)
        try:
            caller.connect((address, port))
        except ConnectionRefusedError:
            return "reset"
        except TimeoutError:
            return "silence"
        return ""


def told(lab: Lab, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the daemon's command on the server."""
    command = [*lab.program("knockknock-daemon"), "--config", lab.configure(), *options]
    return lab.run("server", *command, check=check)


@pytest.mark.parametrize("family", [4, 6])
def test_refuses_and_opens(bare: Lab, family: int) -> None:
    address = SERVER[family]
    assert bare.connects(address)
    daemon = bare.daemon()
    daemon.says("it refuses tcp/22")
    assert "pointless" not in daemon.log()
    assert refused(bare, address) == "silence"
    assert bare.connects(address, 80), "a port that nobody protects is refused"
    assert bare.connects("127.0.0.1", host="server"), "the machine itself is refused"
    bare.knock(address)
    assert bare.opens(address)
    assert not bare.connects(address), "a second connection came in"
    assert not bare.connects(OTHER[family], host="other"), "another host came in"


def test_refuses_in_words(bare: Lab) -> None:
    bare.settings |= {"protect": "tcp/22, udp/53", "protect_reject": "yes"}
    bare.daemon()
    assert [refused(bare, address) for address in SERVER.values()] == ["reset", "reset"]
    with inside(bare.ns("client")):
        caller = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with caller:
        caller.settimeout(2)
        caller.connect((SERVER[4], 53))
        caller.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            caller.recv(1)


def test_networks_that_need_no_door(bare: Lab) -> None:
    bare.settings["protect_allow"] = "10.77.1.0/24, fd77:1::/64"
    bare.daemon()
    for family in (4, 6):
        assert bare.connects(OTHER[family], host="other")
        assert not bare.connects(SERVER[family])


@pytest.mark.parametrize("address", ["10.77.0.1", "10.77.0.255", "255.255.255.255", "224.0.0.1", "ff02::1%c0"])
def test_a_neighbour_does_not_get_in_by_another_address(bare: Lab, address: str) -> None:
    """Packets to all on the link arrive at the same service."""
    bare.settings["protect"] = "udp/5353"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(bare.ns("server")):
        service = socket.socket(family, socket.SOCK_DGRAM)
    with inside(bare.ns("client")):
        sender = socket.socket(family, socket.SOCK_DGRAM)
        to = socket.getaddrinfo(address, 5353, family, socket.SOCK_DGRAM)[0][4]
    with service, sender:
        service.bind(("", 5353))
        service.settimeout(0.3)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"c0")
        sender.sendto(b"before", to)
        assert service.recv(10) == b"before"
        bare.daemon()
        sender.sendto(b"after", to)
        with pytest.raises(TimeoutError):
            service.recv(10)


@pytest.mark.parametrize("family", [4, 6])
def test_who_is_in_stays(bare: Lab, family: int) -> None:
    with inside(bare.ns("client")):
        caller = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_STREAM)
    with inside(bare.ns("server")):
        listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    with caller, listener:
        listener.bind(("::", 2222))
        listener.listen()
        bare.settings["protect"] = "tcp/22, tcp/2222"
        caller.settimeout(2)
        caller.connect((SERVER[family], 2222))
        service, _ = listener.accept()
        with service:
            daemon = bare.daemon()
            for step in ("while it runs", "after it"):
                caller.send(b"?")
                service.settimeout(2)
                assert service.recv(1) == b"?", step
                if step == "while it runs":
                    daemon.process.terminate()
                    assert daemon.process.wait(10) == 0
        assert not bare.connects(SERVER[family], 2222)


@pytest.mark.parametrize("end", ["stop", "crash"])
def test_stays_when_the_daemon_ends(bare: Lab, end: str) -> None:
    daemon = bare.daemon()
    bare.knock(SERVER[4])
    with inside(bare.ns("client")):
        caller = socket.create_connection((SERVER[4], 22), 2)
    with caller:
        if end == "stop":
            daemon.process.terminate()
            assert daemon.process.wait(10) == 0
        else:
            daemon.kill_all()
        assert refused(bare, SERVER[4]) == "silence"
        assert refused(bare, SERVER[6]) == "silence"
        queue = ("ss", "-Htin", "sport = :22", "dport = :" + str(caller.getsockname()[1]))
        caller.send(b"still here")
        until(lambda: "10 " in bare.run("server", "ss", "-Htn", *queue[2:]).stdout.split("\n")[0])
    again = bare.daemon()
    assert refused(bare, SERVER[4]) == "silence"
    bare.knock(SERVER[4])
    assert bare.opens(SERVER[4]), again.log()


def test_is_never_open_while_it_starts_anew(bare: Lab) -> None:
    daemon = bare.daemon()
    stop = False

    def try_it() -> int:
        tried = 0
        while not stop:
            assert not bare.connects(SERVER[4], seconds=0.02), f"open at try {tried}"
            tried += 1
        return tried

    with ThreadPoolExecutor() as pool:
        tries = [pool.submit(try_it) for _ in range(3)]
        for _ in range(3):
            daemon.process.terminate()
            assert daemon.process.wait(10) == 0
            daemon = bare.daemon()
        stop = True
        assert all(one.result() > 10 for one in tries)


def test_boots_closed_and_opens_in_words(bare: Lab) -> None:
    daemon = bare.daemon()
    daemon.process.terminate()
    daemon.process.wait(10)
    kept = bare.gate  # wherever the state directory is
    assert kept.stat().st_mode & 0o077 == 0
    bare.run("server", "nft", "flush", "ruleset")  # what a reboot does
    assert bare.connects(SERVER[4])
    bare.run("server", "nft", "-f", str(kept))
    assert refused(bare, SERVER[4]) == "silence"
    assert "nothing is refused by knockknock now" in told(bare, "--open-gate").stdout
    assert bare.connects(SERVER[4])
    assert not kept.exists()
    assert "knockknock" not in bare.ruleset()


def test_the_unit_does_what_is_wanted(bare: Lab) -> None:
    """Nothing without the file, refuse if all tables went, and leave alone what a daemon has."""
    unit = (ROOT / "config/knockknock-gate.service").read_text()
    (words,) = [line.partition("=")[2] for line in unit.splitlines() if line.startswith("ExecStart=")]
    command = shlex.split(words.replace("/var/lib/knockknock.gate", str(bare.gate)))
    bare.run("server", *command)
    assert "knockknock" not in bare.ruleset()
    daemon = bare.daemon()
    before = bare.ruleset()
    bare.run("server", *command)
    assert bare.ruleset() == before
    daemon.kill_all()
    bare.run("server", "nft", "flush", "ruleset")
    bare.run("server", *command)
    assert refused(bare, SERVER[4]) == "silence"


def test_is_not_opened_behind_a_daemon(bare: Lab) -> None:
    bare.daemon()
    done = told(bare, "--open-gate", check=False)
    assert done.returncode == 1
    assert "stop it first" in done.stderr
    assert refused(bare, SERVER[4]) == "silence"


def test_protects_no_more(bare: Lab) -> None:
    daemon = bare.daemon()
    del bare.settings["protect"]
    bare.configure()
    daemon.reload()
    until(lambda: bare.connects(SERVER[4]))
    until(lambda: not bare.gate.exists())
    bare.settings["protect"] = "tcp/20-30"
    bare.configure()
    daemon.reload()
    until(lambda: not bare.connects(SERVER[4]))
    until(lambda: bare.gate.exists())


@pytest.mark.parametrize("killed", [False, True])
def test_a_trial_ends_by_itself(bare: Lab, killed: bool) -> None:
    command = [*bare.program("knockknock-daemon"), "--config", bare.configure(), "--try", "3"]
    process = bare.start("server", *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=bare.environment())
    until(lambda: refused(bare, SERVER[4]) == "silence")
    if killed:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in (process.pid, *map(int, children)):
            os.kill(int(pid), signal.SIGKILL)
        assert refused(bare, SERVER[4]) == "silence"
    until(lambda: bare.connects(SERVER[4]), 6)
    if not killed:
        assert "the trial is over" in process.communicate(timeout=5)[0]
        assert process.returncode == 0
        assert "knockknock" not in bare.ruleset()
    assert not bare.gate.exists()


def test_says_what_nobody_could_open(bare: Lab) -> None:
    bare.settings["protect"] = "tcp/22, tcp/443"
    daemon = bare.daemon()
    daemon.says("no profile may open any of tcp/443: nobody can log in there anew")
    bare.settings["protect"] = "tcp/20-25"
    bare.configure()
    daemon.reload()
    daemon.says("no profile may open any of tcp/20-21, tcp/23-25: nobody can log in there anew")


def test_two_daemons(bare: Lab) -> None:
    first = bare.daemon()
    bare.settings["state"] += "-other"
    bare.settings["nflog_group"] = "4244"
    second = bare.daemon(ready=False)
    assert second.process.wait(10) == 1
    state = bare.settings["state"].removesuffix("-other")
    assert f"another knockknock-daemon, with the state directory {state}, has the table" in second.log()
    assert first.process.poll() is None


def test_is_put_back(bare: Lab) -> None:
    daemon = bare.daemon()
    switched_off = "table inet knockknock { flags dormant; }"
    commands = ["delete table inet knockknock", "flush ruleset", "flush chain inet knockknock prerouting", switched_off]
    for number, command in enumerate(commands, 2):
        bare.run("server", "nft", command)
        daemon.says_times("the kernel expects the next", number)  # of a new table; the healing is not said each time
        until(lambda: not bare.connects(SERVER[4]))


@pytest.mark.parametrize("family", [4, 6])
def test_forged_syns_leave_the_door(bare: Lab, family: int) -> None:
    """SYNs in the client's name, which its kernel answers with resets, use nothing up."""
    daemon = bare.daemon()
    asker = Asker(bare, family, 22)
    bare.knock(SERVER[family])
    daemon.says("open tcp/22")
    for _ in range(200):
        asker.ask(asker.syn(noise("compact"), 22), 0)
    assert bare.opens(SERVER[family])
    assert not bare.connects(SERVER[family])
    assert asker.ask(asker.syn(noise("compact"), 22), 0.2) is None, "a forged SYN is answered after the door is used"
    asker.close()


def test_a_forged_syn_of_a_live_connection_leaves_the_door(bare: Lab) -> None:
    daemon = bare.daemon()
    bare.knock(SERVER[4])
    daemon.says("open tcp/22")
    with inside(bare.ns("client")):
        live = socket.create_connection((SERVER[4], 22), 2, ("10.77.0.2", SOURCE))
    with live:
        bare.knock(SERVER[4])
        until(lambda: daemon.log().count("open tcp/22") == 2)
        send(bare, [packet("10.77.0.2", 22, SYN)] * 3)
        assert bare.connects(SERVER[4])


def test_forged_acknowledgements_leave_the_door(bare: Lab) -> None:
    """Behind a forged SYN, whose answer the client's kernel resets: so many that one is what the server has sent."""
    bare.settings["delay"] = "60"
    daemon = bare.daemon()
    bare.knock(SERVER[4])
    daemon.says("open tcp/22")
    send(bare, [packet("10.77.0.2", 22, SYN)])
    time.sleep(0.05)  # for the reset
    send(bare, [packet("10.77.0.2", 22, ACK, 2, acknowledged) for acknowledged in range(0, 1 << 32, 60000)])
    assert bare.connects(SERVER[4])


def test_data_of_fast_open_needs_a_handshake(bare: Lab) -> None:
    """Else one door is for as many requests as SYNs. Who asks for it gets in without."""
    bare.run("server", "sysctl", "-qw", "net.ipv4.tcp_fastopen=3")
    with inside(bare.ns("server")):
        service = socket.create_server((SERVER[4], 2222))
    service.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
    bare.settings["protect"] = "tcp/22, tcp/2222"
    bare.mint("fast", "--ports", "tcp/2222", port=4244)
    daemon = bare.daemon()
    service.settimeout(5)
    with service:
        for number in (1, 2):
            bare.knock(SERVER[4], ports=("2222",))
            until(lambda number=number: daemon.log().count("open tcp/2222") == number)  # type: ignore[misc]  # bound now
            with inside(bare.ns("client")):
                caller = socket.socket()
            with caller:
                caller.sendto(b"?", socket.MSG_FASTOPEN, (SERVER[4], 2222))
                accepted, _ = service.accept()
                with accepted:
                    assert accepted.recv(1) == b"?"
    names, values = [
        line.split()
        for line in bare.run("server", "cat", "/proc/net/netstat").stdout.splitlines()
        if line.startswith("TcpExt:")
    ]
    assert values[names.index("TCPFastOpenPassive")] == "0"


def test_nothing_comes_in_again_from_the_same_port(bare: Lab) -> None:
    """A service that resets the connection leaves its entry in conntrack."""
    daemon = bare.daemon()
    bare.settings["delay"] = str(DELAY)
    bare.knock(SERVER[4])
    daemon.says("open tcp/22")
    with inside(bare.ns("client")):
        caller = socket.create_connection((SERVER[4], 22), 2)
    port = caller.getsockname()[1]
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    caller.close()  # by a reset
    for _ in range(5):
        with inside(bare.ns("client")):
            caller = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            caller.bind(("10.77.0.2", port))
            caller.settimeout(0.1)
            assert caller.connect_ex((SERVER[4], 22)) != 0, "it came in again"


@pytest.mark.parametrize("number", [20, 40])
def test_as_many_connections_as_knocks(bare: Lab, number: int) -> None:
    """Knocks at the same moment, for the same port: each opens one connection."""
    bare.settings["delay"] = "30"
    bare.mint("laptop2", port=4243, many=True)
    daemon = bare.daemon()
    knocker = Knocker(bare, "laptop2", 4)
    asker = Asker(bare, 4, 4243)

    def heard(wanted: int) -> bool:
        return daemon.log().count("laptop2: open tcp/22") >= wanted

    for start in range(0, number, 10):
        for _ in range(10):
            asker.ask(asker.syn(knocker.next(), 4243), 0)
        until(partial(heard, start + 10))
        opened = [bare.connects(SERVER[4]) for _ in range(10)]
        assert all(opened), opened
    assert not bare.connects(SERVER[4])


def scanned(lab: Lab) -> list[list[str]]:
    """The table that nmap prints, in words."""
    said = lab.run("client", "nmap", "-sS", "-Pn", "-n", "-p", "22,80,4242", "10.77.0.1").stdout.splitlines()
    begin = next(number for number, line in enumerate(said) if line.startswith("PORT"))
    return [line.split() for line in said[begin : begin + 4]]


def test_what_nmap_sees(bare: Lab) -> None:
    """Before and after, as README shows it, side by side."""
    page = (ROOT / "README.md").read_text()
    shown = page[page.index("    PORT     STATE") :].splitlines()[:4]
    assert scanned(bare) == [line[:37].split() for line in shown]
    bare.daemon()
    assert scanned(bare) == [line[37:].split() for line in shown]
