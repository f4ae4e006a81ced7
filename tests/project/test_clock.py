"""Nothing depends on the time of day but counters that say so: who sets the clock neither opens nor shuts a door."""

import ast
from pathlib import Path

import pytest

from ..helpers import ROOT

FILES = sorted({*(ROOT / "knockknock").rglob("*.py")} - {ROOT / "knockknock" / "cli" / "status.py"})
"""All but what shows a person how long ago something was, in a process of its own."""
WALL = {
    "time_ns",
    "gmtime",
    "localtime",
    "ctime",
    "asctime",
    "strftime",
    "mktime",
    "CLOCK_REALTIME",
    "datetime",
    "utime",
}


def names(tree: ast.AST) -> set[str]:
    """Every name by which a module could come to the time of day."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
            if node.attr == "time" and isinstance(node.value, ast.Name) and node.value.id == "time":
                found.add("time.time")
        elif isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name == "datetime")
    return found


ONLY = ROOT / "knockknock" / "profiles" / "clock.py"
"""The one place where the time of day comes from; its users have to do with counters and passwords by the
clock, or with expiry."""
DATES = ROOT / "knockknock" / "core" / "dates.py"
"""Dates as text. What could ask for the time of day in it is looked for by name."""


def test_who_asks_for_the_clock() -> None:
    users = {path.name for path in FILES if {"clock.seconds"} & calls(ast.parse(path.read_text()))}
    assert users == {
        "client_doctor.py",
        "daemon.py",
        "enroll.py",
        "existing_profiles.py",
        "genprofile.py",
        "knock.py",
        "list_profiles.py",
        "loading.py",
        "ordinary_sockets.py",
        "server_doctor.py",
    }


def calls(tree: ast.AST) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("path", [path for path in FILES if path not in (ONLY, DATES)], ids=str)
def test_no_wall_clock(path: Path) -> None:
    found = names(ast.parse(path.read_text()))
    assert found & (WALL | {"time.time", "datetime.datetime"}) == set()


def test_dates_are_no_clock() -> None:
    tree = ast.parse(DATES.read_text())
    assert names(tree) & (WALL | {"time.time", "now", "today", "utcnow"}) == set()
    assert {"fromisoformat", "fromtimestamp"} <= names(tree)


def test_the_audit_sees() -> None:
    for text in ("import time\ntime.time()", "from time import time", "import datetime", "x.localtime()"):
        assert names(ast.parse(text)) - {"time"}, text
