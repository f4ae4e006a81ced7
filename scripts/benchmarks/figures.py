"""Figures of knockknock alone: parts of a knock's way, and what a line of junk costs."""

import contextlib
import random
import re
import select
import shutil
import socket
import statistics
import struct
import subprocess
import sysconfig
import threading
import time
import venv
from collections.abc import Iterator

from knockknock.client import raw_socket, syn_template
from knockknock.client.knock import prepare
from knockknock.core import headers
from knockknock.core.headers import Carried
from knockknock.core.request import TCP, Request, Verb
from knockknock.profiles import files
from knockknock.schemes.syn.profile import Profile
from knockknock.sources.kernel_line import parse

from .endtoend import NETLINK_NETFILTER, NEWSETELEM, NFNLGRP_NFTABLES, SO_TIMESTAMPNS
from .lab import (
    ADDRESS,
    CLIENT,
    DOOR,
    ENVIRONMENT,
    LOG_ALL,
    ROOT,
    SERVER,
    Figure,
    Lab,
    inside,
    kmsg,
    lines,
    memory,
    proc,
    until,
)
from .own import PROFILES, Own

BURSTS = {"compact": 20_000, "classic": 300}
"""Junk packets at once: many times what the kernel's ring holds; for classic few, as each costs twenty HMACs."""
LINE = (
    "Nov  1 00:00:00 server kernel: [12345.678901] knockknock IN=s0 OUT= MAC=02:00:00:00:00:01:02:00:00:00:00:02:08:00 "
    "SRC=10.77.%d.%d DST=10.77.0.1 LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=%d DF PROTO=TCP SPT=40000 DPT=%d SEQ=%d ACK=%d "
    "WINDOW=%d RES=0x00 SYN URGP=0 OPT (020405B40402080A001122330000000001030307)\n"
)
STAMPS = "kernel's stamp of the SYN on the server's veth, until a listener is told of the new set element"


def cpu(pid: int) -> int:
    """Nanoseconds that a process of one thread has run, once it sleeps."""
    before, now = -1, proc(pid, "schedstat", r"\A\d+")
    while now != before:
        time.sleep(0.03)
        before, now = now, proc(pid, "schedstat", r"\A\d+")
    return now


class Knocker:
    """Sends knocks from this process, and sees them arrive."""

    def __init__(self, lab: Lab, own: Own, stack: contextlib.ExitStack) -> None:
        self.lab, self.own = lab, own
        lab.source()
        with inside(SERVER):
            self.wire = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)))
        # Opened once, for to close it waits for all CPUs, which takes longer than what is measured.
        self.wire.bind(("s0", 0x0800))
        self.wire.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.wire.settimeout(2)
        with inside(CLIENT):
            self.raw = stack.enter_context(raw_socket.open_raw()[socket.AF_INET])
            self.template = syn_template.kernel_syn(socket.AF_INET, 1460)
        with inside(SERVER):
            # Opened once: to close it, too, waits until the kernel has freed elements, and the helper waits for that.
            self.news = stack.enter_context(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER))
        self.news.bind((0, 1 << NFNLGRP_NFTABLES - 1))
        self.news.settimeout(2)

    def knock(self) -> int:
        """Send a knock; when the kernel saw it arrive at the server, in nanoseconds since the epoch."""
        time.sleep(random.uniform(0.05, 0.1))  # no rhythm with any timer
        LOG_ALL.write_text("1")  # again, because the tests of something else may have put it back
        profile = files.load_profile(str(self.own.profile))
        assert isinstance(profile, Profile)
        request = Request(Verb.OPEN, TCP, DOOR)
        with inside(CLIENT):
            (knock,) = prepare(str(self.own.profile), profile, [request], (socket.AF_INET, ADDRESS), dry=False)
            raw_socket.send(self.raw, knock)
        while True:
            packet, control, _, _ = self.wire.recvmsg(2048, 64)
            if packet[:40] == knock.packet[:40]:
                seconds, nanoseconds = struct.unpack("qq", control[0][2])
                return int(seconds * 10**9 + nanoseconds)

    def opening_time(self) -> float:
        """Milliseconds from a knock on the wire until its element is in the kernel's set; the door is then used up."""
        while select.select([self.news], [], [], 0.05)[0]:
            self.news.recv(1 << 16)  # of the values that are expected after the knock before
        try:
            sent = self.knock()
            while struct.unpack_from("=H", self.news.recv(1 << 16), 4)[0] != NEWSETELEM:
                pass
            opened = time.time_ns()
            with inside(CLIENT):
                socket.create_connection((ADDRESS, DOOR), 1).close()
        except TimeoutError:
            raise RuntimeError("a knock opened nothing") from None
        self.lab.accept()
        return (opened - sent) / 1e6

    def waking_time(self) -> float:
        """Milliseconds from a knock on the wire until one who sleeps on /dev/kmsg is awake."""
        awake: list[int] = []

        def sleep() -> None:
            while not any(b" DPT=%d " % PROFILES["compact"][0] in line for line in lines(said)):
                select.select([said], [], [], 2)
                awake.append(time.time_ns())

        with kmsg() as said:
            sleeper = threading.Thread(target=sleep)
            sleeper.start()
            sent = self.knock()
            sleeper.join()
        return (awake[-1] - sent) / 1e6


def measure_client(lab: Lab, runs: int) -> Iterator[Figure]:
    # An empty virtual environment: any .pth file (that of an editable install is slow) would make both programs slower,
    # and so their ratio look better than it is.
    venv.create(lab.directory / "python", symlinks=True)
    python, packages = str(lab.directory / "python/bin/python"), sysconfig.get_path("platlib")
    knock = [python, str(ROOT / "bin/knockknock"), "-p", "22", ADDRESS]
    nothing = [python, "-I", "-c", "pass"]
    # A profile of its own, for nobody hears these knocks: the counter would run out of the daemon's look-ahead window.
    home = shutil.copytree(Own(lab, "kmsg").home, lab.directory / "unheard")
    times: dict[str, list[float]] = {"knock": [], "pass": []}
    with inside(CLIENT):
        for _ in range(runs + 1):
            for name, command in (("knock", knock), ("pass", nothing)):
                start = time.perf_counter()
                subprocess.run(command, check=True, env={**ENVIRONMENT, "HOME": str(home), "PYTHONPATH": packages})
                times[name].append((time.perf_counter() - start) * 1e3)
    ratios = [one / other for one, other in zip(times["knock"], times["pass"], strict=True)][1:]
    middle = {name: f"{statistics.median(of[1:]):.1f} ms" for name, of in times.items()}
    notes = f"`knockknock -p 22 {ADDRESS}` {middle['knock']}, `python3 -I -c pass` {middle['pass']}, in turns"
    yield Figure("client, wall time as a multiple of python3 -I -c pass", "times", ratios, "2.6 or less", notes)


def _opening(lab: Lab, own: Own, runs: int) -> tuple[list[float], list[float]]:
    """Opening and waking times, in milliseconds."""
    with own.running(), contextlib.ExitStack() as stack:
        knocker = Knocker(lab, own, stack)
        opening = [knocker.opening_time() for _ in range(runs + 1)][1:]
        return opening, [knocker.waking_time() for _ in range(runs)] if own.source == "kmsg" else []


def measure_kmsg(lab: Lab, runs: int) -> Iterator[Figure]:
    opening, waking = _opening(lab, Own(lab, "kmsg"), runs)
    yield Figure("SYN on the wire to port open, kmsg", "ms", opening, "3 ms", STAMPS)
    notes = "part of the line above: the same stamp, until a program that sleeps on /dev/kmsg is awake"
    yield Figure("the kernel's own part of that", "ms", waking, "", notes)


def measure_nflog(lab: Lab, runs: int) -> Iterator[Figure]:
    yield Figure(
        "SYN on the wire to port open, nflog", "ms", _opening(lab, Own(lab, "nflog"), runs)[0], "0.8 ms", STAMPS
    )


def measure_rsyslog(lab: Lab, runs: int) -> Iterator[Figure]:
    times = _opening(lab, Own(lab, "file", syslog=True), runs)[0]
    yield Figure("the same through rsyslogd, file", "ms", times, "", "rsyslogd of its own, imkmsg and omfile")


def measure_memory(lab: Lab) -> Iterator[Figure]:
    own = Own(lab, "kmsg")
    with own.running() as pids, contextlib.ExitStack() as stack:
        Knocker(lab, own, stack).knock()
        until(lambda: "open tcp/22" in own.log.read_text(), "a knock opened nothing")
        rss, pss = (" + ".join(f"{memory([pid], kind):.1f}" for pid in pids) for kind in ("Rss", "Pss"))
        yield Figure(
            "memory of daemon, watch and helper",
            "MiB PSS",
            [memory(pids, "Pss")],
            "25 or less",
            f"RSS {rss}, PSS {pss} MiB, after a knock",
        )


def junk(port: int, count: int, *, classic: bool) -> list[tuple[bytes, int, Carried]]:
    """Sources, ports and fields of a burst; ACK is 0 but for classic, for with any other compact has no work."""
    number = random.getrandbits
    return [
        (
            bytes([10, 77, 1 + number(7), 1 + number(7)]),
            port,
            Carried(1 + number(15), number(32), number(32) if classic else 0, number(16)),
        )
        for _ in range(count)
    ]


def send(knocker: Knocker, burst: list[tuple[bytes, int, Carried]]) -> None:
    """Put a burst through the LOG or NFLOG rule."""
    LOG_ALL.write_text("1")
    server = socket.inet_aton(ADDRESS)
    packets = [headers.knock(knocker.template, source, server, port, fields) for source, port, fields in burst]
    for packet in packets:
        knocker.raw.sendto(packet, (ADDRESS, 0))


def append(knocker: Knocker, burst: list[tuple[bytes, int, Carried]]) -> None:
    """Put a burst of lines into the log file, each by itself."""
    made = [LINE % (*source[2:], fields.ident, port, *fields[1:4]) for source, port, fields in burst]
    if not all(parse(line.encode()) for line in made):
        raise RuntimeError("LINE is not a line of the kernel's")
    with knocker.own.kern_log.open("a", buffering=1) as file:
        file.writelines(made)


def heard(own: Own) -> int:
    """Packets at knock ports that the daemon says it has looked at, all but those since the last second."""
    text = own.log.read_text()
    return len(re.findall("refused unknown: ", text)) + sum(map(int, re.findall(r"(\d+) more packets at knock", text)))


def measure_junk(lab: Lab, runs: int) -> Iterator[Figure]:
    ways = {"kmsg": (send, "SYNs through the LOG rule"), "nflog": (send, "SYNs through the NFLOG rule")}
    for source, (put, how) in {**ways, "file": (append, "lines, each written by itself")}.items():
        for kind, (port, ports) in PROFILES.items():
            times, lost, own = [], [], Own(lab, source, every=True)
            with own.running() as (pid, *_), contextlib.ExitStack() as stack:
                knocker, count = Knocker(lab, own, stack), BURSTS[kind]
                for _ in range(runs + 1):
                    known, burst, before = heard(own), junk(port, count, classic=kind == "classic"), cpu(pid)
                    put(knocker, burst)
                    spent = cpu(pid) - before
                    time.sleep(1.1)
                    put(knocker, junk(port, 1, classic=kind == "classic"))  # brings out the number of those before
                    cpu(pid)
                    if (took := heard(own) - known - 1) <= 0:
                        raise RuntimeError("the daemon heard none of the junk")
                    times.append(spent / took / 1e3)
                    lost.append(100 - 100 * took / count)
            what, aim = f"CPU per junk line, {source}, {kind}, {ports}", {"nflog": "4 us"}.get(source, "5 us")
            notes = f"expected_size = 0: bursts of {count:,} {how}, as fast as they go, random sources"
            notes += f"; {statistics.median(lost[1:]):.2g} % lost"
            yield Figure(what, "us", times[1:], f"{aim} or less" if kind == "compact" else "", notes)
