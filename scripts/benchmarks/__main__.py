"""Measures what knockknock costs and how soon a knock opens a port, and fwknop and knockd beside it; prints tables.

The kernel's log is one for all namespaces, so a machine on which nothing else happens gives the best figures.
"""

import argparse
import contextlib
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from knockknock.errors import KnockError

from . import endtoend, figures, floods, kills
from .lab import Figure, Lab


class Row(Protocol):
    """One line of a table: a NamedTuple."""

    def row(self) -> str: ...

    def _asdict(self) -> dict[str, Any]: ...


FIGURES = "| figure | median | lowest to highest | aim | notes |\n|---|---|---|---|---|"
MEASURES: dict[str, tuple[str, Callable[[Lab, int], Iterator[Row]]]] = {
    "client": (FIGURES, figures.measure_client),
    "kmsg": (FIGURES, figures.measure_kmsg),
    "nflog": (FIGURES, figures.measure_nflog),
    "rsyslog": (FIGURES, figures.measure_rsyslog),
    "memory": (FIGURES, lambda lab, _: figures.measure_memory(lab)),
    "junk": (FIGURES, figures.measure_junk),
    "opening": (FIGURES, endtoend.measure_opening),
    "endtoend": (FIGURES, endtoend.measure_end_to_end),
    "process": (FIGURES, endtoend.measure_in_process),
    "clients": (FIGURES, endtoend.measure_clients),
    "idle": (FIGURES, lambda lab, _: endtoend.measure_idle(lab)),
    "cost": (FIGURES, floods.measure_junk_by_tool),
    "floods": (floods.HEAD, lambda lab, _: floods.measure_floods(lab)),
    "kills": (kills.HEAD, lambda lab, _: kills.measure_kills(lab)),
}


def measure(name: str, lab: Lab, runs: int) -> Iterator[Row]:
    """The rows of one measurement; what went wrong is a row, too."""
    try:
        yield from MEASURES[name][1](lab, runs)
    except (RuntimeError, OSError, subprocess.SubprocessError, KnockError) as error:
        yield Figure(name, "", [], "", f"not measured: {error}")


def main() -> None:
    options = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--runs", type=int, default=20, help="how often each figure is taken (default %(default)s)")
    options.add_argument("--only", action="append", choices=MEASURES, help="only this; may be repeated")
    options.add_argument("--json", type=Path, metavar="FILE", help="write all values to a file, too")
    options.add_argument(
        "--plots", type=Path, metavar="DIRECTORY", help="draw them there, as SVG files (takes matplotlib)"
    )
    asked = options.parse_args()
    if os.geteuid() != 0:
        options.error("it must be run as root, to make network namespaces")
    if asked.plots:
        from . import plots  # matplotlib need not be installed for the rest
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    where = f"{time.strftime('%Y-%m-%d %H:%M')}, Linux {platform.release()} {platform.machine()}, "
    where += f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.2f}"
    rows: list[tuple[str, Row]] = []
    with contextlib.ExitStack() as stack:
        try:
            fcntl.flock(stack.enter_context(open(__file__)), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("bench: it runs already")
        lab, head = Lab(stack), ""
        words = " ".join(["scripts/bench", *sys.argv[1:]])
        print(f"`{words}`, medians of {asked.runs}. {where}", flush=True)
        for name in MEASURES:
            if asked.only and name not in asked.only:
                continue
            if MEASURES[name][0] != head:
                head = MEASURES[name][0]
                print(f"\n{head}")
            for row in measure(name, lab, asked.runs):
                rows.append((name, row))
                print(row.row(), flush=True)
    found = {"where": where, "runs": asked.runs, "rows": [{"of": name, **row._asdict()} for name, row in rows]}
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    if asked.plots:
        plots.draw(found, asked.plots)
    sys.exit(any(isinstance(row, Figure) and not row.values for _, row in rows))


if __name__ == "__main__":
    main()
