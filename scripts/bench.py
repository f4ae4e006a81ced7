"""Measures what knockknock costs and how soon a knock opens a port; prints a table.

      kkbench-client                kkbench-server
    ┌────────────────┐   veth   ┌────────────────────┐
    │ c0 10.77.0.2   ├──────────┤ s0 10.77.0.1       │  refuses all input but what is established,
    └────────────────┘          │ knockknock-daemon  │  or what the daemon lets in to the service at tcp/22
                                └────────────────────┘

The kernel's log is one for all namespaces, so a machine on which nothing else happens gives the best figures.
"""

import argparse
import contextlib
import ctypes
import fcntl
import io
import json
import os
import platform
import random
import re
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from knockknock import client, store, tcpip
from knockknock.errors import KnockError
from knockknock.request import TCP, Request, Verb
from knockknock.schemes import Carried
from knockknock.sources.logline import parse

ROOT = Path(__file__).resolve().parents[1]
CLIENT, SERVER, ADDRESS = "kkbench-client", "kkbench-server", "10.77.0.1"
PROFILES = {"compact": (4401, "tcp/22"), "classic": (4402, "tcp/1-65535")}
"""Format -> knock port and permitted ports; the second is what a profile of knockknock 0.8 means."""
BURST = 300
"""Junk lines at once: they fit into the smallest usual ring of kernel messages, so none is lost."""
IDLE = 10
"""Seconds."""
GUARD = {
    "nftables": "table inet guard { chain input { type filter hook input priority filter; policy drop; "
    "ct state established,related accept; }; }",
    "iptables": "*filter\n:INPUT DROP\n-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\nCOMMIT\n",
}
LINE = (
    "Nov  1 00:00:00 server kernel: [12345.678901] knockknock IN=s0 OUT= MAC=02:00:00:00:00:01:02:00:00:00:00:02:08:00 "
    "SRC=10.77.%d.%d DST=10.77.0.1 LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=%d DF PROTO=TCP SPT=40000 DPT=%d SEQ=%d ACK=%d "
    "WINDOW=%d RES=0x00 SYN URGP=0 OPT (020405B40402080A001122330000000001030307)\n"
)
LOG_ALL = Path("/proc/sys/net/netfilter/nf_log_all_netns")
ENVIRONMENT = {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
LIBC = ctypes.CDLL(None, use_errno=True)
# include/uapi/: linux/sched.h, asm-generic/socket.h, linux/netlink.h, linux/netfilter/nfnetlink.h and nf_tables.h
CLONE_NEWNET, SO_TIMESTAMPNS, NETLINK_NETFILTER, NFNLGRP_NFTABLES, NEWSETELEM = 0x40000000, 35, 12, 7, 0x0A0C


class Figure(NamedTuple):
    """One row of the table."""

    what: str
    unit: str
    values: list[float]
    aim: str
    notes: str

    def row(self) -> str:
        if not self.values:
            return f"| {self.what} | - | - | {self.aim} | {self.notes} |"
        ends = statistics.median(self.values), min(self.values), max(self.values)
        middle, low, high = (f"{one:.3g}" for one in ends)
        return f"| {self.what} | {middle} {self.unit} | {low} to {high} | {self.aim} | {self.notes} |"


def sh(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, text=True, capture_output=True, timeout=60, env=ENVIRONMENT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stdout + done.stderr).strip()}")
    return done.stdout


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 15
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(what)
        time.sleep(0.05)


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Run the body in a network namespace; sockets and processes that are made there stay there."""
    with open("/proc/self/ns/net") as here, open(f"/run/netns/{namespace}") as there:
        if LIBC.setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            LIBC.setns(here.fileno(), CLONE_NEWNET)


@contextlib.contextmanager
def running(log: Path, *command: str) -> Iterator[int]:
    """A program that is stopped at the end; its process id."""
    with log.open("w") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=ENVIRONMENT)
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def proc(pid: int, file: str, pattern: str) -> int:
    """The sum of the numbers that a pattern finds in a file of /proc/PID."""
    return sum(map(int, re.findall(pattern, Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)))


def cpu(pid: int) -> int:
    """Nanoseconds that a process of one thread has run, once it sleeps."""
    before, now = -1, proc(pid, "schedstat", r"\A\d+")
    while now != before:
        time.sleep(0.03)
        before, now = now, proc(pid, "schedstat", r"\A\d+")
    return now


def kmsg() -> io.FileIO:
    """What the kernel logs from now on."""
    file = io.FileIO(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    file.seek(0, os.SEEK_END)
    return file


def lines(file: io.FileIO) -> list[bytes]:
    """What has come since the last call."""
    return list(iter(lambda: file.read(8192), None))


class Bench:
    """The two hosts, their profiles, and a directory for all files."""

    def __init__(self, runs: int, stack: contextlib.ExitStack) -> None:
        self.runs = runs
        # Not in /tmp, which may be in memory: to store a counter durably is part of what is measured.
        self.directory = Path(tempfile.mkdtemp(prefix="kkbench-", dir="/var/tmp"))
        stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.directory.chmod(0o755)
        stack.callback(LOG_ALL.write_text, LOG_ALL.read_text())
        for namespace in (CLIENT, SERVER):
            if os.path.exists(f"/run/netns/{namespace}"):  # of a run that was killed; the lock says that it has ended
                sh("ip", "netns", "del", namespace)
            sh("ip", "netns", "add", namespace)
            stack.callback(sh, "ip", "netns", "del", namespace)
        sh("ip", "link", "add", "c0", "netns", CLIENT, "type", "veth", "peer", "s0", "netns", SERVER)
        for namespace, device, address in ((CLIENT, "c0", "10.77.0.2/16"), (SERVER, "s0", f"{ADDRESS}/16")):
            sh("ip", "-n", namespace, "address", "add", address, "dev", device)
            for name in (device, "lo"):
                sh("ip", "-n", namespace, "link", "set", name, "up")
        self.kern_log, self.config, self.log = (self.directory / name for name in ("kern.log", "config", "daemon.log"))
        self.configure("kmsg")
        for kind, (port, ports) in PROFILES.items():
            with inside(SERVER):
                command = [kind, str(port), "--format", kind, "--ports", ports, "--config", str(self.config)]
                sh(sys.executable, str(ROOT / "bin/knockknock-genprofile"), *command)
        self.home = self.directory / "home"
        self.profile = self.home / ".knockknock" / ADDRESS
        shutil.copytree(self.directory / "etc/profiles/compact", self.profile)
        with inside(SERVER):
            self.service = stack.enter_context(socket.create_server((ADDRESS, 22), backlog=1024))
            self.wire = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)))
        # Opened once, for to close it waits for all CPUs, which takes longer than what is measured.
        self.wire.bind(("s0", 0x0800))
        self.wire.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.wire.settimeout(2)
        with inside(CLIENT):
            self.raw = stack.enter_context(client.open_raw()[socket.AF_INET])
            self.template = client.kernel_syn(socket.AF_INET, 1460)

    def configure(self, source: str) -> None:
        settings = f"delay = 5\nuser = nobody\nsource = {source}\nlog_file = {self.kern_log}\n"
        places = f"profiles = {self.directory}/etc/profiles\nstate = {self.directory}/state\ncontrol = off\n"
        self.config.write_text(f"[main]\n{settings}{places}")

    @contextlib.contextmanager
    def daemon(self, source: str, firewall: str = "nftables") -> Iterator[tuple[int, int]]:
        """The process ids of a daemon that listens, and of its root helper."""
        LOG_ALL.write_text("1")
        if source == "file":
            self.kern_log.touch(0o644)
        self.configure(source)
        with contextlib.ExitStack() as stack:
            with inside(SERVER):
                sh("nft", "flush", "ruleset")
                sh(*(["nft", "-f", "-"] if firewall == "nftables" else ["iptables-nft-restore"]), text=GUARD[firewall])
                command = [sys.executable, str(ROOT / "bin/knockknock-daemon"), "--config", str(self.config)]
                pid = stack.enter_context(running(self.log, *command))
            until(lambda: "knock port(s)" in self.log.read_text() or not Path(f"/proc/{pid}/exe").exists(), "no daemon")
            if "knock port(s)" not in self.log.read_text():
                raise RuntimeError(self.log.read_text().strip().rpartition("\n")[2])
            time.sleep(0.3)
            yield pid, proc(pid, f"task/{pid}/children", r"\d+")

    def knock(self) -> int:
        """Send a knock; when the kernel saw it arrive at the server, in nanoseconds since the epoch."""
        time.sleep(random.uniform(0.05, 0.1))  # no rhythm with any timer
        LOG_ALL.write_text("1")  # again, because the tests of something else may have put it back
        profile = store.load_profile(str(self.profile))
        request = Request(Verb.OPEN, TCP, 22)
        with inside(CLIENT):
            (knock,) = client.prepare(str(self.profile), profile, [request], (socket.AF_INET, ADDRESS), dry=False)
            client.send(self.raw, knock)
        while True:
            packet, control, _, _ = self.wire.recvmsg(2048, 64)
            if packet[:40] == knock.packet[:40]:
                seconds, nanoseconds = struct.unpack("qq", control[0][2])
                return int(seconds * 10**9 + nanoseconds)

    def opening_time(self) -> float:
        """Milliseconds from a knock on the wire until its element is in the kernel's set; the door is then used up."""
        with inside(SERVER):
            news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        with news:
            news.bind((0, 1 << NFNLGRP_NFTABLES - 1))
            news.settimeout(2)
            try:
                sent = self.knock()
                while struct.unpack_from("=H", news.recv(1 << 16), 4)[0] != NEWSETELEM:
                    pass
                opened = time.time_ns()
                with inside(CLIENT):
                    socket.create_connection((ADDRESS, 22), 1).close()
            except TimeoutError:
                raise RuntimeError("a knock opened nothing") from None
        self.service.accept()[0].close()
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


def measure_client(bench: Bench) -> Iterator[Figure]:
    # An empty virtual environment: any .pth file (that of an editable install is slow) would make both programs slower,
    # and so their ratio look better than it is.
    venv.create(bench.directory / "python", symlinks=True)
    python, packages = str(bench.directory / "python/bin/python"), sysconfig.get_path("platlib")
    knock = [python, str(ROOT / "bin/knockknock"), "-p", "22", ADDRESS]
    nothing = [python, "-I", "-c", "pass"]
    # A profile of its own, for nobody hears these knocks: the counter would run out of the daemon's look-ahead window.
    home = shutil.copytree(bench.home, bench.directory / "unheard")
    times: dict[str, list[float]] = {"knock": [], "pass": []}
    with inside(CLIENT):
        for _ in range(bench.runs + 1):
            for name, command in (("knock", knock), ("pass", nothing)):
                start = time.perf_counter()
                subprocess.run(command, check=True, env={**ENVIRONMENT, "HOME": str(home), "PYTHONPATH": packages})
                times[name].append((time.perf_counter() - start) * 1e3)
    ratios = [one / other for one, other in zip(times["knock"], times["pass"], strict=True)][1:]
    middle = {name: f"{statistics.median(of[1:]):.1f} ms" for name, of in times.items()}
    notes = f"`knockknock -p 22 {ADDRESS}` {middle['knock']}, `python3 -I -c pass` {middle['pass']}, in turns"
    yield Figure("client, wall time as a multiple of python3 -I -c pass", "times", ratios, "4 or less", notes)


STAMPS = "kernel's stamp of the SYN on the server's veth, until a listener is told of the new set element"


def measure_kmsg(bench: Bench) -> Iterator[Figure]:
    with bench.daemon("kmsg"):
        opening = [bench.opening_time() for _ in range(bench.runs + 1)][1:]
        waking = [bench.waking_time() for _ in range(bench.runs)]
    yield Figure("SYN on the wire to port open, kmsg", "ms", opening, "3 ms", STAMPS)
    notes = "part of the line above: the same stamp, until a program that sleeps on /dev/kmsg is awake"
    yield Figure("the kernel's own part of that", "ms", waking, "", notes)


def measure_nflog(bench: Bench) -> Iterator[Figure]:
    with bench.daemon("nflog"):
        opening = [bench.opening_time() for _ in range(bench.runs + 1)][1:]
    yield Figure("SYN on the wire to port open, nflog", "ms", opening, "", STAMPS)


def measure_rsyslog(bench: Bench) -> Iterator[Figure]:
    # A copy, because AppArmor on Ubuntu lets the rsyslogd at its usual path write to /var/log alone. imkmsg and not
    # imklog, because readers of /proc/kmsg take the lines away from one another.
    if not (program := shutil.which("rsyslogd", path=ENVIRONMENT["PATH"])):
        raise RuntimeError("there is no rsyslogd on this machine")
    shutil.copy(program, bench.directory / "rsyslogd")
    settings = bench.directory / "rsyslog.conf"
    action = f'kern.* action(type="omfile" file="{bench.kern_log}" fileCreateMode="0644")'
    settings.write_text(f'global(workDirectory="{bench.directory}")\nmodule(load="imkmsg")\n{action}\n')
    command = [str(bench.directory / "rsyslogd"), "-n", "-f", str(settings), "-i", str(bench.directory / "rsyslog.pid")]
    with running(bench.directory / "rsyslogd.log", *command), bench.daemon("file"):
        times = [bench.opening_time() for _ in range(bench.runs + 1)][1:]
    yield Figure("the same through rsyslogd, file", "ms", times, "", "rsyslogd of its own, imkmsg and omfile")


def measure_idle(bench: Bench) -> Iterator[Figure]:
    for source in ("kmsg", "file", "nflog"):
        with bench.daemon(source) as pids, kmsg() as said:
            for _ in range(3):
                lines(said)
                before = [(proc(pid, "status", r"ctxt_switches:\s(\d+)"), cpu(pid)) for pid in pids]
                time.sleep(IDLE)
                after = [(proc(pid, "status", r"ctxt_switches:\s(\d+)"), cpu(pid)) for pid in pids]
                if source != "kmsg" or not (disturbed := len(lines(said))):
                    break
        woken, used = ([one[at] - other[at] for one, other in zip(after, before, strict=True)] for at in (0, 1))
        notes = f"daemon {woken[0]}, helper {woken[1]}; CPU {used[0] / 1e3:.0f} and {used[1] / 1e3:.0f} us"
        if source == "kmsg":
            notes += f"; {disturbed} kernel messages meanwhile"
        yield Figure(f"wake-ups in {IDLE} s, {source}", "", [sum(woken)], "0", notes)


def measure_memory(bench: Bench) -> Iterator[Figure]:
    for firewall in GUARD:
        with bench.daemon("kmsg", firewall) as pids:
            bench.knock()
            until(lambda: "open tcp/22" in bench.log.read_text(), "a knock opened nothing")
            rss, pss = (
                [proc(pid, "smaps_rollup", rf"^{name}:\s+(\d+)") / 1024 for pid in pids] for name in ("Rss", "Pss")
            )
        notes = f"RSS {rss[0]:.1f} and {rss[1]:.1f}, PSS {pss[0]:.1f} and {pss[1]:.1f} MiB, after a knock"
        yield Figure(f"memory of daemon and helper, {firewall}", "MiB PSS", [sum(pss)], "", notes)


def junk(port: int, *, classic: bool) -> list[tuple[bytes, int, Carried]]:
    """Sources, ports and fields of a burst; ACK is 0 but for classic, for with any other compact has no work."""
    number = random.getrandbits
    return [
        (
            bytes([10, 77, 1 + number(7), 1 + number(7)]),
            port,
            Carried(1 + number(15), number(32), number(32) if classic else 0, number(16)),
        )
        for _ in range(BURST)
    ]


def send(bench: Bench, burst: list[tuple[bytes, int, Carried]]) -> int:
    """Put a burst through the LOG rule; how many lines it made."""
    LOG_ALL.write_text("1")
    server = socket.inet_aton(ADDRESS)
    packets = [tcpip.knock(bench.template, source, server, port, fields) for source, port, fields in burst]
    with kmsg() as said:
        for packet in packets:
            bench.raw.sendto(packet, (ADDRESS, 0))
        made = sum(b" DPT=%d " % burst[0][1] in line for line in lines(said))
    if not made:
        raise RuntimeError("the kernel logged none of the junk")
    return made


def hand_over(bench: Bench, burst: list[tuple[bytes, int, Carried]]) -> int:
    """Put a burst through the NFLOG rule; how many packets."""
    server = socket.inet_aton(ADDRESS)
    packets = [tcpip.knock(bench.template, source, server, port, fields) for source, port, fields in burst]
    for packet in packets:
        bench.raw.sendto(packet, (ADDRESS, 0))
    time.sleep(0.1)
    return len(packets)


def append(bench: Bench, burst: list[tuple[bytes, int, Carried]]) -> int:
    """Put a burst of lines into the log file; how many."""
    made = [LINE % (*source[2:], fields.ident, port, *fields[1:4]) for source, port, fields in burst]
    if not all(parse(line.strip().encode()) for line in made):
        raise RuntimeError("LINE is not a line of the kernel's")
    with bench.kern_log.open("a", buffering=1) as file:
        file.writelines(made)
    return len(made)


def measure_junk(bench: Bench) -> Iterator[Figure]:
    ways = {"kmsg": (send, "SYNs through the LOG rule"), "file": (append, "lines, each written by itself")}
    ways["nflog"] = (hand_over, "SYNs through the NFLOG rule")
    for source, (put, how) in ways.items():
        for kind, (port, ports) in PROFILES.items():
            times = []
            with bench.daemon(source) as (pid, _):
                for _ in range(bench.runs + 1):
                    burst, before = junk(port, classic=kind == "classic"), cpu(pid)
                    count = put(bench, burst)
                    times.append((cpu(pid) - before) / count / 1e3)
                if "may have been lost" in bench.log.read_text():
                    raise RuntimeError("the daemon could not keep up")
            what, aim = f"CPU per junk line, {source}, {kind}, {ports}", "10 us or less" if kind == "compact" else ""
            yield Figure(what, "us", times[1:], aim, f"bursts of {BURST} {how}, as fast as they go, random sources")


MEASURES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "client": measure_client,
    "kmsg": measure_kmsg,
    "nflog": measure_nflog,
    "rsyslog": measure_rsyslog,
    "idle": measure_idle,
    "memory": measure_memory,
    "junk": measure_junk,
}


def main() -> None:
    options = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--runs", type=int, default=20, help="how often each figure is taken (default %(default)s)")
    options.add_argument("--only", action="append", choices=MEASURES, help="only these figures; may be repeated")
    options.add_argument("--json", type=Path, metavar="FILE", help="write all values to a file, too")
    asked = options.parse_args()
    if os.geteuid() != 0:
        options.error("it must be run as root, to make network namespaces")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    where = f"{time.strftime('%Y-%m-%d %H:%M')}, Linux {platform.release()} {platform.machine()}, "
    where += f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.2f}"
    figures: list[Figure] = []
    with contextlib.ExitStack() as stack:
        try:
            fcntl.flock(stack.enter_context(open(__file__)), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("bench: it runs already")
        bench = Bench(asked.runs, stack)
        print(f"Medians of {asked.runs}. {where}\n\n| figure | median | lowest to highest | aim | notes |")
        print("|---|---|---|---|---|")
        for name in asked.only or MEASURES:
            try:
                for figure in MEASURES[name](bench):
                    figures.append(figure)
                    print(figure.row(), flush=True)
            except (RuntimeError, OSError, subprocess.SubprocessError, KnockError) as error:
                figures.append(Figure(name, "", [], "", f"not measured: {error}"))
                print(figures[-1].row(), flush=True)
    if asked.json:
        rows: list[dict[str, Any]] = [figure._asdict() for figure in figures]
        asked.json.write_text(json.dumps({"where": where, "runs": asked.runs, "figures": rows}, indent=1) + "\n")
    sys.exit(not all(figure.values for figure in figures))


if __name__ == "__main__":
    main()
