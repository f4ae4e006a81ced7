"""The source nflog: doors by every firewall, a silent kernel's log, overruns, links that go, groups that are taken."""

import contextlib
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from knockknock.core.headers import Carried
from knockknock.core.headers import knock as packet_of
from knockknock.server.config import Config

from .lab import DELAY, Daemon, Lab, inside

SERVER = {4: "10.77.0.1", 6: "fd77:0::1"}
HOST = SERVER[4]
PORT = 4711
"""The knock port here alone: the kernel's log is one for all who test on a machine."""
FORMATS = ("compact", "classic", "stealth")


def ready(lab: Lab, *formats: str) -> Daemon:
    """A daemon that listens by NFLOG, a profile for each format."""
    lab.configure(source="nflog")
    for kind in formats or FORMATS[:1]:
        lab.mint(kind, "--format", kind, port=PORT)
    lab.listen(22)
    daemon = lab.daemon()
    daemon.says(f"reading NFLOG group {Config().nflog_group}")
    return daemon


@contextlib.contextmanager
def kernel_log() -> Iterator[list[bytes]]:
    """Records of the knock port that the kernel logs during the body; the list is filled after it."""
    heard: list[bytes] = []
    ring = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    os.lseek(ring, 0, os.SEEK_END)
    yield heard
    with contextlib.suppress(BlockingIOError):
        while True:
            with contextlib.suppress(BrokenPipeError):
                record = os.read(ring, 8192)
                heard += [record] if f"DPT={PORT} ".encode() in record else []
    os.close(ring)


def flood(lab: Lab, packets: int) -> None:
    """Junk at the knock port, each from another address: the limit in the rule counts per source."""
    with inside(lab.ns("client")), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        template = struct.pack("!BBHHHBBH8x", 0x45, 0, 40, 7, 0, 64, 6, 0)
        template += struct.pack("!HHIIBBHHH", 4000, 1, 1, 0, 0x50, 2, 1024, 0, 0)
        for number in range(packets):
            source = socket.inet_aton(f"10.{78 + (number >> 16)}.{number >> 8 & 255}.{number & 255}")
            raw.sendto(packet_of(template, source, socket.inet_aton(HOST), PORT, Carried(7, 7, 0, 7)), (HOST, 0))


@pytest.fixture(scope="module")
def daemon(walled: Lab) -> Iterator[Daemon]:
    before = walled.ruleset()
    walled.tell_all()
    one = ready(walled, *FORMATS)
    yield one
    assert one.stop() == 0
    assert walled.ruleset() == before, "something of ours was left behind, or something of others was changed"


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind", FORMATS)
def test_opens_once_and_the_kernels_log_stays_empty(walled: Lab, daemon: Daemon, kind: str, family: int) -> None:
    address = SERVER[family]
    walled.hand_over(kind, address)
    counter = Path(f"{walled.settings['state']}/{kind}").read_text()
    (walled.home / ".knockknock" / address / "counter").write_text(counter)
    assert not walled.connects(address), "the port is open before the knock"
    with kernel_log() as logged:
        walled.knock(address)
        daemon.says(f"{kind}: open tcp/22 for")
    assert logged == []
    assert walled.opens(address), daemon.log()
    assert not walled.connects(address), "a second connection came in"


def test_rule_limits_each_source(walled: Lab, daemon: Daemon) -> None:
    with inside(walled.ns("other")), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        template = struct.pack("!BBHHHBBH8x", 0x45, 0, 40, 7, 0, 64, 6, 0)
        template += struct.pack("!HHIIBBHHH", 4000, 1, 1, 0, 0x50, 2, 1024, 0, 0)
        junk = packet_of(template, bytes([10, 77, 1, 2]), bytes([10, 77, 1, 1]), PORT, Carried(7, 7, 0, 7))
        for _ in range(500):
            raw.sendto(junk, ("10.77.1.1", 0))
    time.sleep(1.1)  # the next packet tells how many were not looked at closely
    daemon.says("refused unknown: knock from 10.77.1.2")
    assert daemon.log().count("refused unknown: knock from 10.77.1.2") <= 10
    walled.knock("10.77.0.1", check=False)
    assert "490 more packets" not in daemon.log(), "the rule let the whole flood through"


def test_unused_door_closes(lab: Lab) -> None:
    ready(lab)
    lab.knock(HOST)
    time.sleep(DELAY + 1)
    assert not lab.connects(HOST)


def test_overrun_is_reported_and_survived(lab: Lab) -> None:
    lab.tell_all()
    daemon = ready(lab)
    daemon.process.send_signal(signal.SIGSTOP)
    flood(lab, 30000)
    daemon.process.send_signal(signal.SIGCONT)
    daemon.says(f"the buffer of NFLOG group {Config().nflog_group} was full 1 time(s): knocks may have been lost")
    time.sleep(0.5)  # once it was full the kernel puts nothing in until all of it has been read
    lab.knock(HOST)
    assert lab.opens(HOST), daemon.log()


def test_stop_shorter_than_the_buffer_loses_nothing(lab: Lab) -> None:
    daemon = ready(lab)
    daemon.process.send_signal(signal.SIGSTOP)
    flood(lab, 8000)
    lab.knock(HOST)
    daemon.process.send_signal(signal.SIGCONT)
    assert lab.opens(HOST), daemon.log()
    assert "was full" not in daemon.log()


def test_link_down_and_up(lab: Lab) -> None:
    daemon = ready(lab)
    for _ in range(2):
        lab.run("server", "ip", "link", "set", "s0", "down")
        time.sleep(0.2)
        lab.run("server", "ip", "link", "set", "s0", "up")
        lab.run("server", "ip", "address", "replace", "fd77:0::1/64", "dev", "s0", "nodad")
        for address in SERVER.values():
            lab.hand_over("compact", address)
            counter = Path(f"{lab.settings['state']}/compact").read_text()
            (lab.home / ".knockknock" / address / "counter").write_text(counter)
            lab.knock(address)
            assert lab.opens(address), daemon.log()


def test_link_that_comes_later(lab: Lab) -> None:
    """The group is no interface's: one that is made when the daemon runs is heard too."""
    ready(lab)
    pair = ["n0", "netns", lab.ns("client"), "type", "veth", "peer", "n1", "netns", lab.ns("server")]
    lab.run("client", "ip", "link", "add", *pair)
    for host, device, last in (("client", "n0", 2), ("server", "n1", 1)):
        lab.run(host, "ip", "address", "add", f"10.77.9.{last}/24", "dev", device)
        lab.run(host, "ip", "link", "set", device, "up")
    lab.hand_over("compact", "10.77.9.1")
    lab.knock("10.77.9.1")
    assert lab.opens("10.77.9.1")


def test_zero_wake_ups_while_idle(lab: Lab) -> None:
    daemon = ready(lab)

    lab.knock(HOST)
    assert lab.opens(HOST)
    before = daemon.at_rest()
    time.sleep(3)
    assert daemon.switches() == before


def test_group_of_another_program(lab: Lab) -> None:
    ready(lab).stop()
    with inside(lab.ns("server")):
        taken = take(Config().nflog_group)
    with taken:
        before = lab.ruleset()
        daemon = lab.daemon(ready=False)
        assert daemon.process.wait(10) == 1
        *_, last = daemon.log().splitlines()
        assert last.startswith(f"knockknock-daemon: NFLOG group {Config().nflog_group}: another program has it (")
        assert last.endswith("set nflog_group to another number")
        assert lab.ruleset() == before
        lab.configure(nflog_group="4243")
        lab.daemon().says("reading NFLOG group 4243")
        lab.knock(HOST)
        assert lab.opens(HOST)


def take(group: int) -> socket.socket:
    """Bind a group, as another program would."""
    from knockknock.sources.nflog import bind_request

    one = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    one.bind((0x7FFF1234, 0))
    one.send(bind_request(group))
    assert struct.unpack_from("=i", one.recv(4096), 16) == (0,)
    return one


def test_check_touches_nothing(lab: Lab) -> None:
    daemon = ready(lab)
    bound = "/proc/net/netfilter/nfnetlink_log"
    before = lab.ruleset(), lab.run("server", "cat", bound).stdout
    for _ in range(2):
        done = lab.run("server", *lab.program("knockknock-daemon"), "--check", "--config", lab.configure())
        assert f"source: NFLOG group {Config().nflog_group}\n" in done.stdout
        assert (lab.ruleset(), lab.run("server", "cat", bound).stdout) == before
    lab.knock(HOST)
    assert lab.opens(HOST)
    assert daemon.stop() == 0
    stopped = lab.ruleset(), lab.run("server", "cat", bound).stdout
    assert stopped[1] == "", "the group is given back"
    lab.run("server", *lab.program("knockknock-daemon"), "--check", "--config", lab.configure())
    assert (lab.ruleset(), lab.run("server", "cat", bound).stdout) == stopped


def test_other_programs_cannot_send_to_it(lab: Lab) -> None:
    """Nor can root: the socket is connected to the kernel."""
    daemon = ready(lab)
    port = int(lab.run("server", "cat", "/proc/net/netfilter/nfnetlink_log").stdout.split()[1])
    with inside(lab.ns("server")):
        forger = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    with forger, pytest.raises(ConnectionRefusedError):
        forger.sendto(bytes(64), (port, 0))
    assert daemon.process.poll() is None


def test_reload_does_not_change_the_source(lab: Lab) -> None:
    daemon = ready(lab)
    lab.configure(nflog_group="77")
    daemon.reload()
    daemon.says("not reloaded, the old configuration stays: a new nflog_group takes a restart")
    lab.knock(HOST)
    assert lab.opens(HOST)


def test_after_kill_9_the_next_start_takes_the_group(lab: Lab) -> None:
    daemon = ready(lab)
    daemon.kill_all()
    again = lab.daemon()
    lab.knock(HOST)
    assert lab.opens(HOST), again.log()
