"""The privilege line: what is left of root in the daemon, and what a daemon that was taken over can ask for."""

import contextlib
import os
import select
import socket
import subprocess
from pathlib import Path

import pytest

from knockknock.root import record
from knockknock.root.record import RECORD, Grant, Order

from .lab import ROOT, Lab, start_watch, until

V4 = socket.inet_aton
OWN = ("10.77.0.1", "fd77:0::1")
"""Addresses of the server."""


def asks(
    order: int = 1, family: int = 4, protocol: int = 6, port: int = 22, seconds: int = 2, address: bytes = b""
) -> bytes:
    return RECORD.pack(order, family, protocol, port, seconds, address or V4("10.77.0.2"))


def v6(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, text)


GARBAGE = {
    "nothing but noise": os.urandom(24),
    "too short": asks()[:-1],
    "too long": asks() + b"\0",
    "one byte": b"\1",
    "text for a shell": b"; nft flush ruleset #".ljust(24),
    "unknown order": asks(order=12),
    "unknown family": asks(family=5),
    "family of the other length": asks(family=4, address=v6("fd77::2")),
    "padding set": asks()[:3] + b"\1" + asks()[4:],
    "icmp": asks(protocol=1),
    "port 0": asks(port=0),
    "no time": asks(seconds=0),
    "reload with a door": asks(order=4),
    "status of a door": asks(order=5),
}
BEYOND = {
    "port that no profile may open": asks(port=23),
    "udp where only tcp may be": asks(protocol=17),
    "a second too long": asks(seconds=3),
    "for ever": asks(seconds=65535),
    "shut out where nobody counts": asks(order=6, protocol=0, port=0, seconds=0),
    "everybody": asks(address=V4("0.0.0.0")),
    "zero network": asks(address=V4("0.1.2.3")),
    "broadcast": asks(address=V4("255.255.255.255")),
    "multicast": asks(address=V4("224.0.0.1")),
    "loopback": asks(address=V4("127.0.0.1")),
    "every IPv6 host": asks(family=6, address=v6("::")),
    "IPv6 multicast": asks(family=6, address=v6("ff02::1")),
    "IPv6 loopback": asks(family=6, address=v6("::1")),
    "IPv4 as IPv6": asks(family=6, address=v6("::ffff:10.77.0.2")),
}


@pytest.fixture
def pair(lab: Lab) -> socket.socket:
    """The unprivileged end of the pair to a helper that may open tcp/22 for two seconds."""
    lab.mint("laptop")
    lab.listen(22)
    lab.listen(23)
    ours = start_watch(lab, ROOT, lab.configure())
    assert answer(ours).startswith(record.DONE)
    return ours


def answer(pair: socket.socket) -> bytes:
    """Return the answer to an order, without the surveys of the firewall before it."""
    while (said := pair.recv(1 << 16)).startswith(record.SURVEYED):
        pass
    return said


def doors(lab: Lab) -> str:
    """The elements of our table that are addresses."""
    table = lab.run("server", "nft", "list", "table", "inet", "knockknock", check=False).stdout
    return "".join(line for line in table.splitlines() if "expires" in line)


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_no_record_opens_nothing_and_ends_the_helper(lab: Lab, pair: socket.socket, name: str) -> None:
    pair.send(GARBAGE[name])
    assert answer(pair) == b"", "the helper must end"
    assert lab.processes[-1].wait(5) != 0
    assert doors(lab) == ""
    assert "guard" in lab.ruleset()
    assert "knockknock" not in lab.ruleset(), "the helper takes its rules along"
    assert not lab.connects("10.77.0.1", 22)
    assert not lab.connects("10.77.0.1", 23)


@pytest.mark.parametrize("name", BEYOND)
def test_what_the_policy_does_not_allow_is_refused_and_no_reason_to_end(
    lab: Lab, pair: socket.socket, name: str
) -> None:
    """A packet can make a daemon that is sound ask for it, and no packet may end a process."""
    pair.send(BEYOND[name])
    assert answer(pair).startswith(record.FAILED)
    assert doors(lab) == ""
    pair.send(asks())
    assert answer(pair) == record.DONE
    assert lab.connects("10.77.0.1", 22)
    assert not lab.connects("10.77.0.1", 23)


def test_the_kernel_logs_no_knock_of_the_machine_itself(lab: Lab) -> None:
    """Neither one with an expected value, nor one to a port whose every SYN is logged."""
    for number, host in enumerate(OWN):
        lab.mint(f"local{number}", *(["--bind-source"] if number else []), port=4242 + number, hosts=(host,))
    lab.run("server", "nft", "insert rule inet guard input iif lo accept")
    lab.listen(22)
    daemon = lab.daemon()
    for host in OWN:
        lab.run("server", *lab.program("knockknock"), "-p", "22", host)
    counter = "nft list counter inet knockknock told"
    assert "packets 0 " in lab.run("server", *counter.split()).stdout
    for host in OWN:
        lab.knock(host)
        assert lab.opens(host), "from elsewhere they are good"
    assert "packets 2 " in lab.run("server", *counter.split()).stdout
    assert daemon.stop() == 0


VALUES = {
    "of a set that is none": bytes([12, 0, 0, 1]) + bytes(20),
    "without their number": bytes([9, 0, 0]),
    "more than a message of the kernel's holds": bytes([8, 0, 0, 0]) + bytes(100_000),
}


@pytest.mark.parametrize("name", VALUES)
def test_what_are_no_values_end_the_helper(lab: Lab, pair: socket.socket, name: str) -> None:
    pair.send(VALUES[name])
    assert answer(pair) == b""
    assert lab.processes[-1].wait(5) != 0
    assert "knockknock" not in lab.ruleset()


def test_a_stranger_who_fills_the_sets_has_junk_logged_and_nothing_else(lab: Lab, pair: socket.socket) -> None:
    """Their size is the kernel's own bound; what is refused changes nothing, and doors open as before."""
    for which, size in ((8, 2), (9, 12), (10, 12), (11, 16)):
        answers = []
        for number in range(60):
            values = b"".join((number * 2000 + one).to_bytes(16, "big")[-size:] for one in range(2000))
            pair.send(bytes([which, 0]) + (2000).to_bytes(2, "big") + values)
            answers.append(answer(pair)[:1])
        assert answers[0] == record.DONE
        assert (record.FAILED in answers) == (which != 8)
    pair.send(bytes([9, 0, 0, 1]) + b"cut off")
    assert answer(pair).startswith(record.FAILED)
    assert doors(lab) == ""
    assert not lab.connects("10.77.0.1", 22)
    pair.send(asks())
    assert answer(pair) == record.DONE
    assert lab.opens("10.77.0.1")


def test_who_asks_and_does_not_listen_holds_nothing_up(lab: Lab, pair: socket.socket) -> None:
    pair.setblocking(False)
    for _ in range(2000):
        with contextlib.suppress(BlockingIOError):
            pair.send(record.pack(Grant(Order.STATUS, b"", 0, 0, 0)))
    lab.run("server", "nft", "delete table inet knockknock")
    until(lambda: "knockknock" in lab.ruleset())
    pair.settimeout(5)
    while select.select([pair], [], [], 0.3)[0]:
        answer(pair)
    pair.send(asks())
    assert answer(pair) == record.DONE


def test_sane_record_opens(lab: Lab, pair: socket.socket) -> None:
    pair.send(asks())
    assert answer(pair) == record.DONE
    assert lab.connects("10.77.0.1")


def test_reload_reads_only_roots_files(lab: Lab, pair: socket.socket) -> None:
    pair.send(record.pack(record.RELOAD))
    assert answer(pair) == record.DONE
    pair.send(record.pack(Grant(Order.OPEN, V4("10.77.0.2"), 6, 23, 2)))
    assert answer(pair).startswith(record.FAILED)


def test_what_only_the_policy_before_a_reload_allowed_is_refused(lab: Lab, pair: socket.socket) -> None:
    """A daemon that goes over to the new profiles, or could not read them, may ask for it."""
    config = Path(lab.settings["profiles"]) / "laptop" / "config"
    config.write_text(config.read_text().replace("tcp/22", "tcp/23"))
    lab.configure(delay="1")
    pair.send(record.pack(record.RELOAD))
    assert answer(pair) == record.DONE
    for asked in (asks(seconds=1), asks(port=23, seconds=2)):
        pair.send(asked)
        assert answer(pair).startswith(record.FAILED)
    assert doors(lab) == ""
    pair.send(record.pack(record.RELOAD))
    assert answer(pair) == record.DONE
    pair.send(asks(seconds=1))
    assert answer(pair).startswith(record.FAILED)
    pair.send(asks(port=23, seconds=1))
    assert answer(pair) == record.DONE


def test_nothing_of_root_is_left(lab: Lab) -> None:
    lab.mint("laptop")
    daemon = lab.daemon()
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines())
    ids = subprocess.run(["id", "-u", "knockknock"], capture_output=True, text=True, check=True).stdout.strip()
    assert status["Uid"].split() == [ids] * 4
    assert "0" not in status["Gid"].split()
    assert status["Groups"].split() == []
    assert status["NoNewPrivs"].strip() == "1"
    assert all(int(status[f"Cap{kind}"], 16) == 0 for kind in ("Inh", "Prm", "Eff", "Amb"))
    limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
    assert any(line.split()[4:6] == ["0", "0"] for line in limits.splitlines() if line.startswith("Max core file size"))
    # What belongs to root here, although the process is another user's, cannot be dumped or traced by that user.
    assert os.stat(f"/proc/{daemon.process.pid}/environ").st_uid == 0
    maps = Path(f"/proc/{daemon.helper}/maps").read_text()
    assert "_rust" not in maps, "the helper loads no cryptography"
    names = [os.readlink(f"/proc/{daemon.process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{daemon.process.pid}/fd")]
    assert not [name for name in names if "raw" in name or "netlink" in name]


def test_counters_are_not_read_as_root(lab: Lab) -> None:
    """They are the daemon's own, so what is there may be somebody's who had taken it over."""
    for name in ("laptop", "phone"):
        lab.mint(name, port=4242 if name == "laptop" else 4243)
    lab.daemon().stop()
    counter = Path(lab.settings["state"]) / "laptop"
    counter.write_text("0\n")
    os.chown(counter, 0, 0)
    counter.chmod(0o600)
    daemon = lab.daemon()
    daemon.says(f"profile laptop: {counter} cannot be read: Permission denied")
    daemon.says("1 profile(s)")
    assert daemon.stop() == 0


def test_no_listening_socket(lab: Lab) -> None:
    lab.mint("laptop")
    lab.daemon()
    assert lab.run("server", "ss", "-Htuln").stdout == ""


def test_second_daemon_is_refused(lab: Lab) -> None:
    lab.mint("laptop")
    lab.daemon()
    second = lab.daemon(ready=False)
    assert second.process.wait(10) == 1
    second.says("has the state directory")
