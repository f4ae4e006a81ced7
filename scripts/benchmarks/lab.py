"""Two hosts in network namespaces, a service behind a firewall that refuses, and addresses to knock from.

  kkbench-client                kkbench-server
┌────────────────┐   veth   ┌────────────────────┐
│ c0 10.77.0.2   ├──────────┤ s0 10.77.0.1       │  refuses all input but what is established,
│ to   10.77.0.249          │ a daemon           │  or what a daemon lets in to the service at tcp/22
└────────────────┘          └────────────────────┘
"""

import contextlib
import ctypes
import io
import json
import os
import re
import select
import shutil
import socket
import statistics
import struct
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
median = statistics.median
CLIENT, SERVER, ADDRESS, DOOR = "kkbench-client", "kkbench-server", "10.77.0.1", 22
SECONDS = 5
"""That a door stays open, with each program."""
GUARD = {
    "nftables": "table inet guard { chain input { type filter hook input priority filter; policy drop; "
    "ct state established,related accept; }; }",
    "iptables": "*filter\n:INPUT DROP\n-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\nCOMMIT\n",
}
LOG_ALL = Path("/proc/sys/net/netfilter/nf_log_all_netns")
ENVIRONMENT = {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", "LC_ALL": "C"}
LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h


class Figure(NamedTuple):
    """One row of the table of figures."""

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
    """Run the body, in this thread, in a network namespace; sockets and processes that are made there stay there."""
    with open("/proc/thread-self/ns/net") as here, open(f"/run/netns/{namespace}") as there:
        if LIBC.setns(there.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            LIBC.setns(here.fileno(), _CLONE_NEWNET)


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


def threads(pid: int) -> list[str]:
    """The directories of a process's threads below /proc/PID."""
    return [f"task/{name}" for name in os.listdir(f"/proc/{pid}/task")]


def memory(pids: list[int], kind: str = "Rss") -> float:
    """MiB of memory of processes; kind: Rss or Pss."""
    return sum(proc(pid, "smaps_rollup", rf"^{kind}:\s+(\d+)") for pid in pids) / 1024


def family(pid: int) -> list[int]:
    """A process and its living descendants."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for thread in threads(one):
                found += map(int, Path(f"/proc/{one}/{thread}/children").read_text().split())
    return found


def spent(pids: list[int]) -> int:
    """Nanoseconds that processes have run, with all threads, and children that have ended (in ticks of 10 ms)."""
    total = 0
    for pid in pids:
        total += sum(proc(pid, f"{thread}/schedstat", r"\A\d+") for thread in threads(pid))
        ended = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[13:15]
        total += sum(map(int, ended)) * 10**9 // os.sysconf("SC_CLK_TCK")
    return total


def kmsg() -> io.FileIO:
    """Return /dev/kmsg, open to read what the kernel logs from now on."""
    file = io.FileIO(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    file.seek(0, os.SEEK_END)
    return file


def lines(file: io.FileIO) -> list[bytes]:
    """Return the records that have come since the last call."""
    return list(iter(lambda: file.read(8192), None))


def answered(source: str, seconds: float, every: float = 0.002) -> int | None:
    """When the service first answered a SYN from an address, in nanoseconds since the epoch; None: never.

    A new connection is tried every so many seconds, because the kernel sends a SYN again only after one second.
    """
    tries: deque[socket.socket] = deque()
    due = time.monotonic()
    end = due + seconds
    try:
        while due < end:
            tries.append(one := socket.socket())
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.bind((source, 0))
            one.connect_ex((ADDRESS, DOOR))
            if len(tries) > 20:
                tries.popleft().close()
            due += every
            while (left := due - time.monotonic()) > 0:
                for ready in select.select([], tries, [], left)[1]:
                    if ready.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                        return time.time_ns()
                    tries.remove(ready)
        return None
    finally:
        for one in tries:
            one.close()


class Lab:
    """The two hosts, and a directory for all files."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
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
        pool = [f"10.77.0.{last}" for last in range(2, 250)]
        for namespace, device, addresses in ((CLIENT, "c0", pool), (SERVER, "s0", [ADDRESS])):
            orders = [f"address add {address}/10 dev {device}" for address in addresses]
            orders += [f"link set {device} up", "link set lo up"]
            sh("ip", "-n", namespace, "-batch", "-", text="\n".join(orders))
        self.macs = [
            json.loads(sh("ip", "-n", namespace, "-j", "link", "show", device))[0]["address"]
            for namespace, device in ((SERVER, "s0"), (CLIENT, "c0"))
        ]
        near = [f"neighbour replace {address} lladdr {self.macs[1]} dev s0 nud permanent" for address in pool]
        sh("ip", "-n", SERVER, "-batch", "-", text="\n".join(near))
        sh("ip", "-n", CLIENT, "neighbour", "replace", ADDRESS, "lladdr", self.macs[0], "dev", "c0", "nud", "permanent")
        self._pool = deque(pool)
        with inside(SERVER):
            self.service = stack.enter_context(socket.create_server((ADDRESS, DOOR), backlog=4096))
        self.service.setblocking(False)

    def guard(self, firewall: str = "nftables", more: str = "") -> None:
        """Put the server's own firewall in place, and nothing else; more: a rule of iptables."""
        LOG_ALL.write_text("1")
        with inside(SERVER):
            sh("nft", "flush", "ruleset")
            text = GUARD[firewall].replace("COMMIT", more + "\nCOMMIT") if more else GUARD[firewall]
            sh(*(["nft", "-f", "-"] if firewall == "nftables" else ["iptables-nft-restore"]), text=text)

    def source(self) -> str:
        """The client's address that was not used for longest; what it sends comes from there now."""
        self._pool.rotate(-1)
        sh("ip", "-n", CLIENT, "route", "replace", f"{ADDRESS}/32", "dev", "c0", "src", self._pool[0])
        return self._pool[0]

    def accept(self) -> None:
        """Take all connections that the service got, and close them."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.service.accept()[0].close()
