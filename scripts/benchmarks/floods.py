"""Legitimate knocks during floods of junk: how many open their door at the first try; what a packet of junk costs."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .lab import ADDRESS, CLIENT, ENVIRONMENT, ROOT, Figure, Lab, answered, inside, median, memory, spent
from .tools import Tool, tools

KNOCKS, PAUSE, PATIENCE = 20, 0.24, 3.0
"""Legitimate knocks in one flood; seconds between two, and until a door that is shut still counts as one that stays."""
LONGEST = 20.0
"""Seconds after which a flood ends by itself."""
RATES = {2000: "2,000/s", 10_000: "10,000/s", 0: "full speed"}
SOURCES = {"one": "one", "spoofed": "random"}
HEAD = (
    "| daemon | junk a second | its sources | sent a second | opened within 3 s | after, ms | lost, as it says | "
    "memory, MiB |\n|---|---|---|---|---|---|---|---|"
)


class Flood(NamedTuple):
    """One row of the table of floods."""

    name: str
    rate: int
    sources: str
    sent: float
    """Packets a second."""
    delays: list[float]
    """Milliseconds, of the doors that opened in time."""
    lost: str
    memory: tuple[float, float]
    """MiB of resident memory, before the flood and after."""

    def row(self) -> str:
        cells = [self.name, RATES[self.rate], SOURCES[self.sources], f"{self.sent:,.0f}"]
        cells += [f"{len(self.delays)} of {KNOCKS}", f"{median(self.delays):.0f}" if self.delays else "-", self.lost]
        cells.append(f"{self.memory[0]:.1f} to {self.memory[1]:.1f}")
        return f"| {' | '.join(cells)} |"


def attacker(lab: Lab, tool: Tool, rate: int, seconds: float, sources: str) -> subprocess.Popen[str]:
    """One who floods with what costs a tool work, and is ready; a line on his standard input makes him begin."""
    program = str(Path(__file__).with_name("flooder.py"))
    words = [program, *lab.macs, ADDRESS, tool.kind, str(tool.port), str(rate), str(seconds), sources]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    with inside(CLIENT):
        child = subprocess.Popen([sys.executable, *words], stdin=-1, stdout=-1, text=True, env=environment)
    assert child.stdout
    if child.stdout.readline() != "ready\n":
        raise RuntimeError("the flooder did not start")
    return child


def flood(lab: Lab, tool: Tool, rate: int, sources: str) -> Flood:
    """Knock, again and again, each time from another address, while a daemon is flooded."""
    delays: list[float] = []

    def wait(source: str, start: int) -> None:
        with inside(CLIENT):
            opened = answered(source, PATIENCE, 0.01)
        if opened:
            delays.append((opened - start) / 1e6)

    with tool.running() as pids:
        before = memory(pids)
        child = attacker(lab, tool, rate, LONGEST, sources)
        assert child.stdin
        child.stdin.write("go\n")
        child.stdin.flush()
        time.sleep(0.1)
        waiting = []
        for _ in range(KNOCKS):
            source, start = lab.source(), time.time_ns()
            with inside(CLIENT):
                client = subprocess.Popen(tool.client(source), env=tool.environment, stdout=subprocess.DEVNULL)
            waiting.append(threading.Thread(target=wait, args=(source, start)))
            waiting[-1].start()
            # The route to the server names the address, so it must not change before the client has ended.
            client.wait()
            time.sleep(max(0.0, PAUSE - (time.time_ns() - start) / 1e9))
        if child.poll() is not None:
            raise RuntimeError("the flood ended before the last knock")
        sent, seconds = child.communicate("stop\n")[0].split()
        for one in waiting:
            one.join()
        lab.accept()
        time.sleep(tool.drain)
        after = memory(pids)
        return Flood(tool.name, rate, sources, int(sent) / float(seconds), delays, tool.losses(), (before, after))


def measure_floods(lab: Lab) -> Iterator[Flood]:
    for tool in tools(lab):
        for sources in SOURCES:
            for rate in RATES:
                if tool.floods:
                    yield flood(lab, tool, rate, sources)


def measure_junk_by_tool(lab: Lab, runs: int) -> Iterator[Figure]:
    """The same for all: what 2,000 packets a second from random sources cost, above what the daemon does anyway."""
    for tool in tools(lab):
        if not tool.floods:
            continue
        values = []
        with tool.running() as pids:
            for _ in range(max(1, runs // 5)):
                child = attacker(lab, tool, 2000, 2, "spoofed")
                start = spent(pids)
                time.sleep(2 + tool.drain)
                idle = spent(pids) - start
                assert child.stdin
                child.stdin.write("go\n")
                child.stdin.flush()
                time.sleep(2 + tool.drain)
                used = spent(pids) - start - 2 * idle
                values.append(used / int(child.communicate()[0].split()[0]) / 1e3)
        notes = "2,000 a second for 2 s, random sources; without what it takes when idle, and without rsyslogd's part"
        yield Figure(f"CPU per junk packet, {tool.name}", "us", values, "", notes)
