"""Draws what `scripts/bench --json FILE` has written, as SVG files.

usage: PYTHONPATH=.:scripts python3 -m benchmarks.plots FILE DIRECTORY
"""

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot
from matplotlib.figure import Figure

from .floods import RATES
from .summary import SOURCES, TOOLS, Row

OURS, THEIRS = "#2f6f9f", "#b5b9c0"
SHADES = ("#9cc3de", OURS, "#173a54")
"""Of the rates of junk."""
FIELDS = {
    "compact": ("IP ID", "sequence number", "window"),
    "classic": ("IP ID", "sequence number", "acknowledgment", "window"),
    "stealth": ("IP ID", "sequence number", "TSval"),
}
"""The header fields that carry a knock, in the order of PROTOCOL.md step 6."""
BITS = {"IP ID": 16, "sequence number": 32, "acknowledgment": 32, "window": 16, "TSval": 32}


def medians(rows: list[Row], start: str) -> dict[str, float]:
    """The median of a figure by tool, where it was measured."""
    values = {row["what"]: row["values"] for row in rows if row.get("what", "").startswith(start) and row["values"]}
    return {name: statistics.median(values[start + tool]) for tool, name in TOOLS.items() if start + tool in values}


def bars(found: dict[str, float], title: str, unit: str) -> Figure:
    """Bars, each with its number, on a logarithmic scale if none is 0; less is better."""
    figure, axes = pyplot.subplots(figsize=(7, 0.45 * len(found) + 1.2))
    names = [*found][::-1]
    colours = [OURS if name in ("kmsg", "file", "nflog") else THEIRS for name in names]
    drawn = axes.barh([label(name) for name in names], [found[name] for name in names], color=colours)
    axes.bar_label(drawn, [f"{found[name]:.3g} {unit}" for name in names], padding=3)
    logarithmic = min(found.values()) > 0
    axes.set_xscale("log" if logarithmic else "linear")
    axes.set_xlim(right=max(found.values()) * (6 if logarithmic else 1.15))
    axes.set_title(f"{title} (less is better)", fontsize=11)
    return figure


def label(name: str) -> str:
    return f"knockknock, {name}" if name in ("kmsg", "file", "nflog") else name


def knock_to_open(rows: list[Row]) -> Figure:
    return bars(medians(rows, "knock to open, "), "From the knock on the wire to the open port", "ms")


def junk(rows: list[Row]) -> Figure:
    return bars(medians(rows, "CPU per junk packet, "), "CPU of a junk packet, 2,000 a second", "us")


def floods(rows: list[Row]) -> Figure:
    """Bars of how many of 20 knocks opened, by tool and rate of junk, from one source and from forged ones."""
    counts = {(row["name"], row["rate"], row["sources"]): len(row["delays"]) for row in rows if row["of"] == "floods"}
    tools = [tool for tool in TOOLS if any(key[0] == tool for key in counts)]
    figure, both = pyplot.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    for axes, (sources, whose) in zip(both, SOURCES.items(), strict=True):
        for number, (rate, said) in enumerate(RATES.items()):
            at = [place + number / (len(RATES) + 1) for place in range(len(tools))]
            opened = [counts.get((tool, rate, sources), 0) for tool in tools]
            axes.bar(at, opened, 0.22, label=said, color=SHADES[number])
        axes.set_xticks(
            [place + 0.25 for place in range(len(tools))],
            [label(TOOLS[tool]) for tool in tools],
            rotation=35,
            ha="right",
        )
        axes.set_title(f"junk from {whose}", fontsize=10)
    both[0].set_ylabel("of 20 knocks open")
    both[1].legend(title="junk", fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def doors(rows: list[Row]) -> Figure:
    """State of an open door when all processes of its daemon are killed: then, after its time, and after a restart."""
    killed = [row for row in rows if row["of"] == "kills" and row["how"] == "all"]
    figure, axes = pyplot.subplots(figsize=(7, 0.5 * len(killed) + 1))
    for place, row in enumerate(reversed(killed)):
        for column, is_open in enumerate((row["before"], row["after"], row["restarted"])):
            axes.barh(place, 0.94, left=column, color="#c0504d" if is_open and column else "#6aa56a")
            axes.text(column + 0.47, place, "open" if is_open else "closed", ha="center", va="center", color="white")
    axes.set_yticks(range(len(killed)), [row["name"] for row in reversed(killed)])
    axes.set_xticks([0.47, 1.47, 2.47], ["at kill -9", "after the door's time", "after a restart"])
    axes.set_title("A door, when all processes are killed", fontsize=11)
    return figure


def fields(_rows: list[Row]) -> Figure:
    """The header fields that carry a knock, by format, as wide as they are."""
    figure, axes = pyplot.subplots(figsize=(8, 2.2))
    for place, carried in enumerate(reversed(FIELDS.values())):
        begin = 0
        for field in carried:
            axes.barh(place, BITS[field], left=begin, color=OURS, edgecolor="white", height=0.7)
            axes.text(
                begin + BITS[field] / 2, place, f"{field}\n{BITS[field]}", ha="center", va="center", color="white"
            )
            begin += BITS[field]
        axes.text(begin + 1, place, f"{begin} bits: port 16, tag {begin - 16}", va="center", fontsize=9)
    axes.set_yticks(range(len(FIELDS)), [*reversed(FIELDS)])
    axes.set_xlim(right=132)
    axes.set_xticks([])
    return figure


PLOTS: dict[str, Callable[[list[Row]], Figure]] = {
    "knock-to-open": knock_to_open,
    "junk": junk,
    "floods": floods,
    "doors": doors,
    "fields": fields,
}


def draw(found: dict[str, Any], directory: Path) -> None:
    """Write all plots of a run."""
    # Text as text, and the same file for the same values.
    with pyplot.rc_context({"svg.fonttype": "none", "svg.hashsalt": "knockknock", "font.family": "sans-serif"}):
        for name, plot in PLOTS.items():
            figure = plot(found["rows"])
            for axes in figure.axes:
                axes.spines[["top", "right"]].set_visible(False)
            if name != "fields":
                figure.text(0.01, 0.005, found["where"], fontsize=7, color="#666")
            figure.tight_layout()
            figure.savefig(directory / f"{name}.svg", metadata={"Date": None})
            pyplot.close(figure)


def main() -> None:
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
