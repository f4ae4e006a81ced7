"""Kill -9 at every system call of accepting a knock, then start again and look at everything that must still hold.

A recorded run with strace says which system calls a process makes from a knock to its log line. Then, for each of them,
a new daemon, a new knock, and a SIGKILL on entry to that call (strace's fault injection). run() says what was seen.
"""

import contextlib
import ctypes
import os
import re
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from knockknock.profiles.counters import read_counter
from knockknock.root.watch import SETTLE

from .lab import Daemon, Lab, inside, until

HOST = "10.77.0.1"
PORT = 20000 + os.getpid() % 10000
"""A knock port that no other process has, as the kernel's log is everybody's."""
SECONDS = 1
"""How long a door stays open."""
_CALL = re.compile(r"^(?:\[pid +\d+\] )?(\w+)\(", re.M)
_LIBC = ctypes.CDLL(None, use_errno=True)
_PIDFD_GETFD = 438


class Point(NamedTuple):
    """A system call at which to kill."""

    victim: str
    """`daemon`; `helper`; or `both`: the daemon there, and what keeps root before it can take anything away."""
    call: str
    nth: int
    """Which of the victim's calls of that name after the knock, from 1."""


class Outcome(NamedTuple):
    """The result of a kill; a violation is an AssertionError of run() instead."""

    reached: bool
    """Whether the victim came there: some calls (brk, munmap) are not made every time."""
    opened: bool
    """Whether the door was open when all was dead."""
    stored: bool


class Bench:
    """A lab with one profile, and what its server's rules are with and without us."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        # Not single_use, so that to try a door does not shut it; with all that places rules and sets.
        lab.configure(single_use="no", delay=str(SECONDS), scan_guard="on")
        lab.mint("laptop", port=PORT)
        lab.listen(22)
        self.state = Path(lab.settings["state"]) / "laptop"
        self.foreign = self.rules()
        daemon = lab.daemon()
        self.whole = self.rules()
        daemon.stop()
        assert self.rules() == self.foreign

    def rules(self) -> list[str]:
        """Rules and sets on the server, sorted; the elements of sets left out, as a door is one."""
        text = re.sub(r"elements = \{[^}]*\}", "", self.lab.ruleset())
        return sorted(line.strip() for line in text.split("\n") if line.strip())

    def counter(self) -> int:
        """The server's counter; that it can be read at all is a claim of its own."""
        text = self.state.read_text()
        assert re.fullmatch(r"\d+\n|(\d{20} [0-9a-f]{8}\n){2}", text), f"torn: {text!r}"
        return read_counter(str(self.state))

    def start(self) -> Daemon:
        """A daemon whose helper has come to rest: a moment after the start it looks once whether its rules stand."""
        daemon = self.lab.daemon()
        time.sleep(SETTLE + 0.2)
        return daemon

    def points(self, victim: str) -> list[Point]:
        """All kill points of one knock, in order."""
        daemon = self.start()
        self.lab.knock(HOST, "--close")
        daemon.says("close tcp/22")  # the first of a profile makes its file anew, all others write into it
        try:
            with traced(pid_of(daemon, victim)) as output:
                self.lab.knock(HOST)
                daemon.says("open tcp/22")
                time.sleep(0.3)
            names = _CALL.findall(output.read_text())
            output.unlink()
        finally:
            daemon.stop()
        if victim != "helper":
            # What others log wakes the daemon as well: take it from the read that brought the knock to the next sleep.
            last = len(names) - names[::-1].index("write")
            names = names[names.index("pwrite64") - 2 : names.index("poll", last) + 1]
            names.insert(0, "poll")
        found: list[Point] = []
        for name in names:
            if name != "restart_syscall":
                found.append(Point(victim, name, 1 + sum(one.call == name for one in found)))
        return found


def pid_of(daemon: Daemon, victim: str) -> int:
    """The process that strace is to look at."""
    return daemon.helper if victim == "helper" else daemon.process.pid


@contextlib.contextmanager
def traced(pid: int, *options: str) -> Iterator[Path]:
    """strace attached to a process; the file is what it has seen, whole when the body has ended."""
    output = Path(tempfile.gettempdir()) / f"knockknock-strace-{os.getpid()}-{pid}"
    command = ["strace", "-p", str(pid), "-o", str(output), *options]
    strace = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert strace.stderr is not None
        assert "attached" in strace.stderr.readline()
        yield output
        strace.terminate()
        strace.wait(5)
    finally:
        strace.kill()
        strace.communicate()


def run(bench: Bench, point: Point) -> Outcome:
    """Kill there, and look. Raises AssertionError with the point if anything is not as it must be."""
    try:
        return _run(bench, point)
    except AssertionError as error:
        raise AssertionError(f"{point}: {error}") from error


def _run(bench: Bench, point: Point) -> Outcome:
    lab, before = bench.lab, bench.counter()
    daemon = bench.start()
    watch, helper, pid = daemon.watch, daemon.helper, pid_of(daemon, point.victim)
    held = hold_pair(daemon) if point.victim == "both" else -1
    inject = f"inject={point.call}:signal=KILL:when={point.nth}"
    with traced(pid, "-e", f"trace={point.call}", "-e", inject) as output:
        packet, sent = record(lab), time.monotonic()
        reached = dies(pid)
    output.unlink()
    if point.victim == "both" or not reached:
        for one in (watch, helper):
            os.kill(one, signal.SIGKILL)
        if not reached:
            daemon.process.kill()
    if held >= 0:
        os.close(held)
    daemon.process.wait(10)
    assert dies(helper, 5), "the helper outlived the daemon"
    assert dies(watch, 5), "what watches the rules outlived the daemon"
    opened = lab.connects(HOST)
    stored = bench.counter() - before
    assert stored in (0, 1), f"the counter went from {before} to {before + stored}"
    assert stored or not opened, "a door without a stored counter"
    if opened:
        while time.monotonic() < sent + SECONDS + 0.7:
            time.sleep(0.05)
        assert not lab.connects(HOST), "a door stays open past its time"
    _after(bench, packet, opened, before)
    return Outcome(reached, opened, bool(stored))


def _after(bench: Bench, packet: bytes, opened: bool, before: int) -> None:
    """Start again: rules whole and once, the packet good at most once in all, the next knock heard, all taken away."""
    lab, stored = bench.lab, bench.counter() > before
    left = bench.rules()
    strangers = [line for line in bench.foreign if line not in left]
    assert not strangers, f"rules of others are gone: {strangers}"
    daemon = lab.daemon()
    assert bench.rules() == bench.whole, "rules or sets are there twice, or not at all"
    send(lab, packet)
    if stored:
        assert not lab.connects(HOST), "a replay was accepted"
    else:
        assert not opened
        daemon.says("open tcp/22")  # nobody has used it up
        send(lab, packet)
    assert bench.counter() == before + 1
    lab.knock(HOST)
    daemon.says_times("open tcp/22", 1 if stored else 2)
    assert bench.counter() == before + 2
    assert daemon.stop() == 0
    assert bench.rules() == bench.foreign, "something of ours was left, or something of others taken"


def dies(pid: int, seconds: float = 2) -> bool:
    """Return True if a process ends in time."""
    with contextlib.suppress(AssertionError, FileNotFoundError, ProcessLookupError):
        status = Path(f"/proc/{pid}/status")
        until(lambda: not status.exists() or "\nState:\tZ" in status.read_text(), seconds)
        return True
    return not Path(f"/proc/{pid}").exists()


def hold_pair(daemon: Daemon) -> int:
    """A copy of the daemon's end of the pair, so that the helper does not see the daemon die."""
    links = {int(link.name): os.readlink(link) for link in Path(f"/proc/{daemon.helper}/fd").iterdir()}
    theirs = int(links[0].removeprefix("socket:[").removesuffix("]"))
    pidfd = os.pidfd_open(daemon.process.pid)
    try:
        for link in Path(f"/proc/{daemon.process.pid}/fd").iterdir():
            # The two ends of a pair are made one after the other.
            if os.readlink(link) in (f"socket:[{theirs - 1}]", f"socket:[{theirs + 1}]"):
                fd = int(_LIBC.syscall(_PIDFD_GETFD, pidfd, int(link.name), 0))
                assert fd >= 0, os.strerror(ctypes.get_errno())
                return fd
    finally:
        os.close(pidfd)
    raise AssertionError("the pair was not found")


def record(lab: Lab) -> bytes:
    """Knock; the packet that left, from the IP header on."""
    with inside(lab.ns("client")):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    with tap:
        tap.bind(("c0", 3))
        tap.settimeout(2)
        lab.knock(HOST)
        while True:
            packet = tap.recv(2048)
            if packet[0] == 0x45 and packet[9] == 6 and struct.unpack_from("!H", packet, 22)[0] == PORT:
                return packet


def send(lab: Lab, packet: bytes) -> None:
    """Put an IPv4 packet on the client's wire."""
    with inside(lab.ns("client")):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw:
        raw.sendto(packet, (HOST, 0))
