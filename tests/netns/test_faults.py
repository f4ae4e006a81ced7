"""Promises that hold when things go wrong: processes killed anywhere, disks, logs, clocks, interfaces, two daemons."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from knockknock.core.headers import Carried
from knockknock.core.headers import knock as packet_of
from knockknock.profiles.counters import read_counter

from .faults import HOST, PORT, Bench, Point, run
from .lab import DELAY, Daemon, Lab, inside, until
from .test_sources import Syslog

SHORT = [
    Point("both", "rename", 1),  # by the first knock of a profile; all others write into the file
    Point("both", "pwrite64", 1),
    Point("both", "fdatasync", 1),
    Point("both", "sendto", 1),  # the second updates the expected values
    Point("both", "recvfrom", 1),
    Point("daemon", "sendto", 2),
    Point("helper", "sendto", 2),
    Point("helper", "pselect6", 1),
]
"""Around the storing of the counter, the order to the helper, and the change in the kernel; scripts/faults has all."""


def test_killed_anywhere(lab: Lab) -> None:
    bench = Bench(lab)
    outcomes = {point: run(bench, point) for point in SHORT}
    assert all(one.reached for one in outcomes.values()), outcomes
    assert any(one.opened for one in outcomes.values())
    assert any(not one.stored for one in outcomes.values())


@pytest.fixture
def daemon(lab: Lab) -> Daemon:
    lab.listen(22)
    lab.mint("laptop", port=PORT)
    return lab.daemon()


def opens(lab: Lab, daemon: Daemon) -> bool:
    """Return True if a knock opens the door."""
    lab.knock(HOST)
    return lab.opens(HOST)


def test_second_daemon_names_the_first(lab: Lab, daemon: Daemon) -> None:
    rules = lab.ruleset()
    second = lab.daemon(ready=False)
    assert second.process.wait(10) == 1
    process = f"another knockknock-daemon (process {daemon.process.pid}) has the state directory"
    second.says(f"{process} {lab.settings['state']}: stop it, or give this one another")
    assert lab.ruleset() == rules
    assert opens(lab, daemon)


def test_two_at_once(lab: Lab) -> None:
    """Of two that start at the same moment one listens, and the other has touched nothing."""
    lab.listen(22)
    lab.mint("laptop", port=PORT)
    command = [*lab.program("knockknock-daemon"), "--config", lab.configure()]
    logs = [(lab.directory / f"racer-{number}").open("w+") for number in range(2)]
    both = [lab.start("server", *command, stderr=log, env=lab.environment()) for log in logs]
    until(lambda: sum(one.poll() == 1 for one in both) == 1, 10)
    loser = [one.poll() for one in both].index(1)
    winner = both[1 - loser]
    said = Path(logs[loser].name).read_text()
    assert f"another knockknock-daemon (process {winner.pid})" in said
    until(lambda: "1 profile(s)" in Path(logs[1 - loser].name).read_text(), 10)
    lab.knock(HOST)
    assert lab.opens(HOST)
    for log in logs:
        log.close()


@pytest.mark.parametrize("sandbox", ["off", "auto"])
def test_state_directory_deleted(lab: Lab, sandbox: str) -> None:
    lab.configure(sandbox=sandbox)
    lab.listen(22)
    lab.mint("laptop", port=PORT)
    daemon = lab.daemon()
    state = Path(lab.settings["state"])
    aside = state.with_name("aside")
    shutil.copytree(state, aside)
    owner = state.stat()
    shutil.rmtree(state)
    lab.knock(HOST)
    daemon.says(f"knock of laptop not obeyed: the counter {state}/laptop cannot be stored: No such file or directory")
    assert not lab.connects(HOST)
    state.mkdir(0o700)
    os.chown(state, owner.st_uid, owner.st_gid)
    if sandbox == "auto":
        lab.knock(HOST)
        daemon.says("Permission denied")
        assert not lab.connects(HOST), "a directory that is not the one of the start is none of the daemon's"
        return
    assert opens(lab, daemon), "once the directory is there again, so are the counters, from memory"
    assert read_counter(f"{state}/laptop") == 2


def test_permission_lost(lab: Lab, daemon: Daemon) -> None:
    state = Path(lab.settings["state"])
    owner = state.stat()
    os.chown(state, 0, 0)
    lab.knock(HOST)
    daemon.says(f"knock of laptop not obeyed: the counter {state}/laptop cannot be stored: Permission denied")
    assert not lab.connects(HOST)
    assert read_counter(f"{state}/laptop") == 0
    os.chown(state, owner.st_uid, owner.st_gid)
    assert opens(lab, daemon)
    assert read_counter(f"{state}/laptop") == 2


@pytest.mark.kernel_log
def test_storm_of_rotations(lab: Lab) -> None:
    """The log is renamed, truncated and deleted again and again while a client knocks: none is lost or read twice."""
    lab.listen(22)
    lab.mint("laptop", port=PORT)
    syslog = Syslog(lab, "RSYSLOG_TraditionalFileFormat")
    daemon = lab.daemon()
    over = threading.Event()

    def open_in(process: subprocess.Popen[str]) -> bool:
        """Return True if a process has the file open."""
        with contextlib.suppress(FileNotFoundError):
            held = Path(f"/proc/{process.pid}/fd").iterdir()
            return syslog.path.stat().st_ino in {one.stat().st_ino for one in held if one.exists()}
        return False

    def heard() -> bool:
        """Return True if the daemon has the file open: one that was gone before is lost to every reader."""
        return open_in(daemon.process)

    def settled() -> bool:
        """Return True if rsyslogd has it open, too.

        It looks whether there is a file, and opens one then: if that was deleted in between, it makes one of root's
        group, which no daemon can read.
        """
        return over.is_set() or (heard() and open_in(syslog.process))

    trouble: list[object] = []

    def storm() -> None:
        try:
            rotations()
        except AssertionError as error:
            trouble.append(error)

    def rotations() -> None:
        while not over.wait(0.1):
            until(heard)
            syslog.rotate()
            until(settled)
            if not over.wait(0.1):
                syslog.delete()
                until(lambda: over.is_set() or syslog.path.exists())  # by the next line, and there may be none

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        for _ in range(15):
            lab.knock(HOST)
            time.sleep(0.05)
    finally:
        over.set()
        thread.join()
    there = ["ls", "-lin", str(syslog.path.parent), f"/proc/{daemon.process.pid}/fd"]
    said = subprocess.run(there, capture_output=True, text=True, check=False).stdout
    try:
        assert not trouble
        until(lambda: daemon.log().count("open tcp/22") == 15)
    except AssertionError:
        raise AssertionError(f"{trouble}\n{said}\n{daemon.log()}") from None
    for number in range(5):
        # What truncation takes away before anybody has read it is lost to every reader; so each waits for its line.
        lab.knock(HOST)
        until(lambda count=number + 16: daemon.log().count("open tcp/22") == count)  # type: ignore[misc]  # bound now
        os.truncate(syslog.path, 0)
    assert "refused" not in daemon.log()


CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long shift(void) {
    long seconds = 0;
    FILE *file = fopen(getenv("SHIFTED"), "re");
    if (file) { if (fscanf(file, "%ld", &seconds) != 1) seconds = 0; fclose(file); }
    return seconds;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, now);
    if (status == 0 && clock == CLOCK_REALTIME) now->tv_sec += shift();
    return status;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec time;
    (void)zone;
    int status = clock_gettime(CLOCK_REALTIME, &time);
    now->tv_sec = time.tv_sec;
    now->tv_usec = time.tv_nsec / 1000;
    return status;
}
time_t time(time_t *now) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    if (now) *now = time.tv_sec;
    return time.tv_sec;
}
"""
"""Moves the clock of one process and of those that it starts. This machine's own is not ours to set."""


def test_clock_set_back_and_forward(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's clock jumps an hour, either way, with a door open: nothing changes but the times in its log."""
    source, library, shifted = (lab.directory / name for name in ("clock.c", "clock.so", "shifted"))
    source.write_text(CLOCK)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    shifted.write_text("0")
    normal = lab.environment()
    more = {"LD_PRELOAD": str(library), "SHIFTED": str(shifted)}
    lab.listen(22)
    lab.mint("laptop", port=PORT)
    lab.configure(single_use="no", delay="1", sandbox="off")  # the clock's shift is read from a file
    with monkeypatch.context() as patch:
        patch.setattr(lab, "environment", lambda **extra: normal | more | extra)
        daemon = lab.daemon()
    hours: set[str] = set()
    for seconds in (3600, -3600):
        lab.knock(HOST)
        began = time.monotonic()
        assert lab.opens(HOST)
        shifted.write_text(str(seconds))
        assert lab.connects(HOST), "the door stays open"
        while time.monotonic() < began + 1.7:
            time.sleep(0.05)
        assert not lab.connects(HOST), "the door is shut in its time"
        lab.knock(HOST, "--close")
        until(lambda: daemon.log().count("close tcp/22") == len(hours) + 1)
        hours.add(daemon.log().splitlines()[-1][:13])
    assert len(hours) == 2, "the daemon's clock did move"


@pytest.fixture
def steady(lab: Lab) -> Daemon:
    """A daemon whose doors may be tried as often as one likes, for ten seconds."""
    lab.listen(22)
    lab.mint("laptop", port=PORT)
    lab.configure(single_use="no", delay="10")
    return lab.daemon()


def test_interfaces_and_routes_change(lab: Lab, steady: Daemon) -> None:
    assert opens(lab, steady)
    for command in (
        "ip link set s0 down",
        "ip address flush dev s0",
        "ip link set s0 name renamed",
        "ip address add 10.77.0.1/24 dev renamed",
        "ip link set renamed up",
        "ip route add default via 10.77.0.2",
        "ip route replace default via 10.77.1.2",
    ):
        lab.run("server", *command.split())
    until(lambda: lab.connects(HOST))
    lab.knock(HOST, "--close")
    steady.says("close tcp/22")
    assert not lab.connects(HOST)
    assert opens(lab, steady)


def junk(number: int) -> bytes:
    """A SYN to the knock port from an address of its own."""
    header = bytearray.fromhex("450000280007000040060000") + bytes(8)
    tcp = bytes.fromhex("0fa0000100000001000000005002040000000000")
    source = socket.inet_aton(f"198.18.{number >> 8 & 255}.{number & 255}")
    return packet_of(bytes(header) + tcp, source, socket.inet_aton("10.77.1.1"), PORT, Carried(7, 7, 0, 7))


@pytest.mark.kernel_log
def test_suspended_under_flood(lab: Lab) -> None:
    """Stopped with a door open while junk comes in: the door is shut in time, and the daemon hears again afterwards."""
    lab.listen(22)
    lab.configure(source="kmsg")
    lab.tell_all()
    lab.mint("laptop", port=PORT)
    daemon = lab.daemon()
    lab.knock(HOST)
    daemon.says("open tcp/22")
    daemon.process.send_signal(signal.SIGSTOP)
    seconds = float(os.environ.get("SUSPEND", DELAY + 0.5))  # SUSPEND=60: the long form
    with inside(lab.ns("other")):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    memory = resident(daemon)
    with raw:
        end = time.monotonic() + seconds
        for number in range(4000):
            raw.sendto(junk(number), ("10.77.1.1", 0))
        while time.monotonic() < end:
            time.sleep(0.05)
    assert not lab.connects(HOST), "nobody of ours has to run for a door to be shut"
    daemon.process.send_signal(signal.SIGCONT)
    daemon.says("the kernel's log ran over")
    lab.knock(HOST)
    assert lab.opens(HOST), daemon.log()
    assert resident(daemon) < memory + 2048, "kB"


def resident(daemon: Daemon) -> int:
    text = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])
