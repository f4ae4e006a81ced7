"""The summary in docs/FIGURES.md, from what `scripts/bench --json FILE` has written.

usage: PYTHONPATH=.:scripts python3 -m benchmarks.summary FILE
"""

import json
import statistics
import sys
from typing import Any

from .floods import RATES

TOOLS = {
    "knockknock, kmsg": "kmsg",
    "knockknock, file by rsyslogd": "file",
    "knockknock, nflog": "nflog",
    "fwknop": "fwknop",
    "fwknop, UDP server": "fwknop, UDP server",
    "knockd, 1 port": "knockd, 1 port",
    "knockd, 3 ports": "knockd, 3 ports",
}
FIGURES = {
    "end to end from the shell, ": "from the shell to the first connection, ms",
    "end to end from a program that runs, ": "from a running program to the first connection, ms",
    "knock to open, ": "knock on the wire to open, ms",
    "client alone, wall, ": "client alone, ms",
    "client alone, peak memory, ": "client alone, MiB",
    "wake-ups a second when idle, ": "wake-ups a second when idle",
    "memory when idle, ": "memory when idle, MiB PSS",
    "CPU per junk packet, ": "CPU per junk packet at 2,000/s, us",
}
SOURCES = {"one": "one source", "spoofed": "forged sources"}

Row = dict[str, Any]


def figure(rows: list[Row], name: str) -> str:
    """A median."""
    if name.startswith("client alone, ") and "knockknock" in name:
        name = name.partition("knockknock")[0] + "knockknock"  # the same for all of its sources
    found = [row["values"] for row in rows if row.get("what") == name and row["values"]]
    return f"{statistics.median(found[0]):.3g}" if found else "-"


def flood(rows: list[Row], tool: str, rate: int, sources: str) -> str:
    """Return the number of knocks that opened their door during a flood, or a dash if that was not measured."""
    for row in rows:
        if row["of"] == "floods" and (row["name"], row["rate"], row["sources"]) == (tool, rate, sources):
            return str(len(row["delays"]))
    return "-"


def table(rows: list[Row]) -> list[str]:
    lines = [["", *TOOLS.values()]]
    lines += [[label, *(figure(rows, start + tool) for tool in TOOLS)] for start, label in FIGURES.items()]
    for sources, whose in SOURCES.items():
        for rate, said in RATES.items():
            label = f"of 20 knocks open: {said} of junk, {whose}"
            lines.append([label, *(flood(rows, tool, rate, sources) for tool in TOOLS)])
    return [f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines]


def main() -> None:
    with open(sys.argv[1]) as file:
        found = json.load(file)
    head, *rest = table(found["rows"])
    print(found["where"], head, "|---|" + "---:|" * len(TOOLS), *rest, sep="\n")


if __name__ == "__main__":
    main()
