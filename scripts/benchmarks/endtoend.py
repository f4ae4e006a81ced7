"""Cost and duration of one knock, measured for knockknock and its peers in the same way."""

import contextlib
import os
import random
import select
import socket
import statistics
import struct
import subprocess
import time
from collections.abc import Iterator

from knockknock.client import raw_socket
from knockknock.client.knock import prepare
from knockknock.core.request import TCP, Request, Verb
from knockknock.profiles import files
from knockknock.schemes.syn.profile import Profile

from .lab import (
    ADDRESS,
    CLIENT,
    DOOR,
    SERVER,
    Figure,
    Lab,
    answered,
    family,
    inside,
    kmsg,
    lines,
    memory,
    proc,
    spent,
    threads,
)
from .own import Own
from .tools import PEERS, Tool, tools

IDLE = 10
"""Seconds."""
# include/uapi/: asm-generic/socket.h, linux/netlink.h, linux/netfilter/nfnetlink.h and nf_tables.h
SO_TIMESTAMPNS, NETLINK_NETFILTER, NFNLGRP_NFTABLES, NEWRULE, NEWSETELEM = 35, 12, 7, 0x0A06, 0x0A0C
_ALL, _IP, _OUTGOING = 3, 0x0800, 4  # linux/if_ether.h, linux/if_packet.h


class Wire:
    """Packets that pass the server's end of the veth, with the kernel's timestamps."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        with inside(SERVER):
            self._socket = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL)))
        self._socket.bind(("s0", _ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setblocking(False)
        time.sleep(0.1)  # the kernel begins to stamp a moment later

    def packets(self) -> Iterator[tuple[int, bool, int, int, int, int]]:
        """Since the last call: stamp in nanoseconds, whether it left, protocol, source and destination port, flags."""
        while True:
            try:
                data, control, _, address = self._socket.recvmsg(2048, 64)
            except BlockingIOError:
                return
            if address[1] == _IP and data[9] in (6, 17):
                seconds, nanoseconds = struct.unpack("qq", control[0][2])
                source, destination = struct.unpack_from("!HH", data, 20)
                flags = data[33] if data[9] == 6 else 0
                yield seconds * 10**9 + nanoseconds, address[2] == _OUTGOING, data[9], source, destination, flags


def pause() -> None:
    """No rhythm with any timer."""
    time.sleep(random.uniform(0.3, 0.6))


def measure_opening(lab: Lab, runs: int) -> Iterator[Figure]:
    """Until a listener is told of the rule or set element that opens the door: the same method for all."""
    times: dict[str, list[float]] = {}
    for tool in tools(lab):
        found = times[tool.name] = []
        with tool.running(), contextlib.ExitStack() as stack:
            wire = Wire(stack)
            with inside(SERVER):
                news = stack.enter_context(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER))
            news.bind((0, 1 << NFNLGRP_NFTABLES - 1))
            news.settimeout(5)
            for _ in range(runs + 1):
                source = lab.source()
                pause()
                list(wire.packets())
                _drain(news)
                with inside(CLIENT):
                    knock = subprocess.Popen(tool.client(source), env=tool.environment, stdout=subprocess.DEVNULL)
                with contextlib.suppress(TimeoutError):
                    while not _opens(news.recv(1 << 16)):
                        pass
                    opened = time.time_ns()
                    found.append((opened - _seen(tool, wire)[0]) / 1e6)
                knock.wait()
        notes = f"its last packet on the server's veth, until a listener is told; {len(found)} of {runs + 1} opened"
        yield Figure(f"knock to open, {tool.name}", "ms", found[1:], "", notes)
    fastest = min(statistics.median(found) for name, found in times.items() if found and name in PEERS)
    for name, aim in (("kmsg", "0.33 or less"), ("nflog", "0.067 or less")):
        ratios = [one / fastest for one in times[f"knockknock, {name}"][1:]]
        yield Figure(f"the same, {name}, as a part of the fastest peer's", "", ratios, aim, f"that is {fastest:.3g} ms")


def _drain(news: socket.socket) -> None:
    """Forget what a listener was told already: rules that a peer takes back."""
    while select.select([news], [], [], 0)[0]:
        news.recv(1 << 16)


def _opens(message: bytes) -> bool:
    """Return True if a notification, of one or more messages, is of a new rule or a new element."""
    while len(message) >= 16:
        length, kind = struct.unpack_from("=IH", message)
        if kind in (NEWRULE, NEWSETELEM):
            return True
        message = message[(length + 3) & ~3 :]
    return False


def measure_end_to_end(lab: Lab, runs: int) -> Iterator[Figure]:
    for tool in tools(lab):
        whole, opening, failed = [], [], 0
        with tool.running(), contextlib.ExitStack() as stack:
            wire = Wire(stack)
            for _ in range(runs + 1):
                source = lab.source()
                pause()
                list(wire.packets())
                with inside(CLIENT):
                    start = time.time_ns()
                    knock = subprocess.Popen(tool.client(source), env=tool.environment, stdout=subprocess.DEVNULL)
                    opened = answered(source, 5)
                    knock.wait()
                lab.accept()
                sent, answer = _seen(tool, wire)
                if opened and sent and answer:
                    whole.append((opened - start) / 1e6)
                    opening.append((answer - sent) / 1e6)
                else:
                    failed += 1
        notes = f"client started, until the first connection; {failed} of {runs + 1} never opened"
        aim = "" if tool.name in PEERS else "below fwknop's"
        yield Figure(f"end to end from the shell, {tool.name}", "ms", whole[1:], aim, notes)
        notes = "its last packet on the server's veth, until a SYN-ACK leaves; a SYN comes every 2 ms"
        yield Figure(f"knock to answer, {tool.name}", "ms", opening[1:], "", notes)


def _seen(tool: Tool, wire: Wire) -> tuple[int, int]:
    """When the knock's last packet came and when the first SYN-ACK left; 0: it did not."""
    sent = answer = 0
    for stamp, left, protocol, source, destination, flags in wire.packets():
        if not left and destination == tool.last and protocol == (17 if tool.kind == "udp" else 6):
            sent = stamp
        elif left and source == DOOR and flags & 0x12 == 0x12 and not answer:
            answer = stamp
    return sent, answer


def measure_in_process(lab: Lab, runs: int) -> Iterator[Figure]:
    for name in ("kmsg", "nflog"):
        own, times = Own(lab, name), []
        with own.running(), inside(CLIENT), contextlib.ExitStack() as stack:
            raw = stack.enter_context(raw_socket.open_raw()[socket.AF_INET])
            profile = files.load_profile(str(own.profile))
            assert isinstance(profile, Profile)
            for _ in range(runs + 1):
                source = lab.source()
                pause()
                start = time.time_ns()
                request, address = Request(Verb.OPEN, TCP, DOOR), (socket.AF_INET, ADDRESS)
                for knock in prepare(str(own.profile), profile, [request], address, dry=False):
                    raw_socket.send(raw, knock)
                if opened := answered(source, 5, 0.0005):
                    times.append((opened - start) / 1e6)
                lab.accept()
        notes = f"prepare and send, until the first connection, a SYN each 0.5 ms; {len(times)} of {runs + 1} opened"
        yield Figure(f"end to end from a program that runs, knockknock, {name}", "ms", times[1:], "below all", notes)


def measure_clients(lab: Lab, runs: int) -> Iterator[Figure]:
    for tool in tools(lab):
        if tool.name.startswith("knockknock") and not tool.name.endswith("kmsg"):
            continue  # the client is the same
        walls, used, sizes = [], [], []
        with tool.running(), inside(CLIENT):
            source = lab.source()
            for _ in range(runs + 1):
                measured = lab.directory / "time"
                words = ["/usr/bin/time", "-f", "%M", "-o", str(measured), *tool.client(source)]
                start = time.perf_counter()
                # /usr/bin/time begins with less than any client, so the peak is the client's own.
                process = subprocess.Popen(words, env=tool.environment, stdout=subprocess.DEVNULL)
                _, status, usage = os.wait4(process.pid, 0)
                walls.append((time.perf_counter() - start) * 1e3)
                process.returncode = os.waitstatus_to_exitcode(status)
                if process.returncode:
                    raise RuntimeError(f"{tool.name}: the client failed")
                used.append((usage.ru_utime + usage.ru_stime) * 1e3)
                sizes.append(int(measured.read_text()) / 1024)
        name = "knockknock" if tool.name.startswith("knockknock") else tool.name
        yield Figure(f"client alone, wall, {name}", "ms", walls[1:], "", "with /usr/bin/time, which adds 1 ms")
        yield Figure(f"client alone, CPU, {name}", "ms", used[1:], "", "user and system, likewise")
        yield Figure(f"client alone, peak memory, {name}", "MiB", sizes[1:], "", "RSS")


def measure_idle(lab: Lab) -> Iterator[Figure]:
    for tool in tools(lab):
        with tool.running() as pids:
            source = lab.source()
            with inside(CLIENT):
                subprocess.run(tool.client(source), env=tool.environment, stdout=subprocess.DEVNULL, check=True)
            time.sleep(10)  # until the door is shut again
            with kmsg() as said:
                before = _switches(pids), spent(pids)
                time.sleep(IDLE)
                after = _switches(pids), spent(pids)
                try:
                    disturbed = str(len(lines(said)))
                except BrokenPipeError:
                    disturbed = "too many"
            every = sorted({one for pid in pids for one in family(pid)})
            rss, pss = memory(every), memory(every, "Pss")
        woken, used = ((new - old) / IDLE for new, old in zip(after, before, strict=True))
        notes = f"CPU {used / 1e6:.2g} ms a second; {disturbed} kernel messages in {IDLE} s"
        yield Figure(f"wake-ups a second when idle, {tool.name}", "", [woken], "0", notes)
        notes = f"{len(every)} process(es), RSS {rss:.1f} MiB, after a knock"
        yield Figure(f"memory when idle, {tool.name}", "MiB PSS", [pss], "", notes)


def _switches(pids: list[int]) -> int:
    """Number of context switches of processes, with all threads, voluntary and involuntary."""
    return sum(proc(pid, f"{one}/status", r"ctxt_switches:\s(\d+)") for pid in pids for one in threads(pid))
