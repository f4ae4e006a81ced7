"""Doors of a daemon that is killed while they are open: whether they close after their time, and after a restart."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import NamedTuple

from .lab import CLIENT, SECONDS, Lab, answered, family, inside
from .tools import Tool, tools

HEAD = "| daemon | kill -9 of | open before | open after its time | open after a restart |\n|---|---|---|---|---|"
HOW = {"daemon": "the daemon", "all": "all its processes"}


class Kill(NamedTuple):
    """One row of the table of kills."""

    name: str
    how: str
    before: bool
    after: bool
    restarted: bool

    def row(self) -> str:
        words = ["yes" if one else "no" for one in (self.before, self.after, self.restarted)]
        return f"| {' | '.join([self.name, HOW[self.how], *words])} |"


def kill(lab: Lab, tool: Tool, how: str) -> Kill:
    """Open two doors: one is used to see that it is open, the other one is looked at when its time is over."""

    def is_open(source: str) -> bool:
        with inside(CLIENT):
            found = answered(source, 0.5) is not None
        lab.accept()
        return found

    with tool.running() as pids:
        sources = []
        for _ in range(2):
            sources.append(lab.source())
            with inside(CLIENT):
                subprocess.run(tool.client(sources[-1]), env=tool.environment, stdout=subprocess.DEVNULL, check=True)
            time.sleep(0.5)
        before = is_open(sources[0])
        for pid in family(pids[0]) if how == "all" else pids[:1]:
            os.kill(pid, signal.SIGKILL)
        time.sleep(SECONDS + 3)
        after = is_open(sources[1])
    with tool.running(guard=False):
        return Kill(tool.name, how, before, after, is_open(sources[1]))


def measure_kills(lab: Lab) -> Iterator[Kill]:
    for tool in tools(lab):
        for how in HOW:
            yield kill(lab, tool, how)
