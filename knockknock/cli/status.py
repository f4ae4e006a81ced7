"""Shows the answers of a running daemon's control socket, for knockknock-daemon status and events."""

import argparse
import contextlib
import json
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import KnockError

PATIENCE = 10.0
"""Seconds for an answer."""
LONGEST = 4 << 20
"""The most bytes of an answer or event: a daemon that was taken over may send without end."""
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""Errors that an answer of another form causes."""
MOST, WIDEST = 1000, 2000
"""The most rows of a table that are printed, and characters of a cell."""


def show(path: str, options: argparse.Namespace) -> None:
    """Ask at the socket, and print the answer. Raises KnockError, SystemExit."""
    if path == "off":
        raise KnockError("the configuration says control = off, so nobody can be asked")
    if options.events:
        events(path)
        return
    try:
        said = next(lines(path, f"status {options.source}" if options.source else "status", PATIENCE), None)
    except (FileNotFoundError, ConnectionRefusedError):
        said = {"running": False}
    if said is None:
        raise KnockError(f"the daemon at {path} did not answer: very many others ask, or it has just stopped")
    try:
        text = json.dumps(said, indent=2) if options.json else page(said, bool(options.source))
        good = said["open"] if options.source and said["running"] else said["running"]
    except UNREADABLE:
        raise KnockError(f"what answers at {path} is no knockknock-daemon of this version") from None
    print(text)
    if not good:
        sys.exit(1)


def events(path: str) -> None:
    """Print events line by line, until the daemon ends or ^C. Raises KnockError."""
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        try:
            for event in lines(path, "events", None):
                print(json.dumps({"time": round(time.time(), 3), **event}), flush=True)
        except (FileNotFoundError, ConnectionRefusedError):
            raise KnockError(f"no daemon listens at {path}") from None
        raise KnockError(f"the daemon at {path} has ended, has listeners enough, or we were too slow for it")


def lines(path: str, request: str, seconds: float | None) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of the answer. Raises KnockError; OSError if nobody listens."""
    end = None if seconds is None else time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon:
        daemon.settimeout(seconds)
        try:
            daemon.connect(path)
            daemon.sendall(f"{request}\n".encode())
            held = bytearray()
            while data := daemon.recv(1 << 16):
                held += data
                if b"\n" in data:
                    *whole, held = held.split(b"\n")
                    for line in whole:
                        yield dict(json.loads(line))
                if len(held) > LONGEST:
                    raise ValueError
                if end is not None:
                    daemon.settimeout(max(0.001, end - time.monotonic()))
        except PermissionError:
            raise KnockError(f"you may not ask at {path}: be root, or a member of control_group") from None
        except (TimeoutError, BlockingIOError):  # the latter: the queue of the socket is full
            raise KnockError(f"the daemon at {path} does not answer") from None
        except (ConnectionResetError, BrokenPipeError):
            return
        except (ValueError, TypeError, RecursionError):
            raise KnockError(f"what answers at {path} is no knockknock-daemon") from None


def page(said: dict[str, Any], one: bool) -> str:
    """Return the page for people. one: only doors were asked for."""
    if not said["running"]:
        return "knockknock-daemon is not running"
    doors = [
        (
            door["source"],
            f"{door['protocol']}/{door['port']}",
            still(door["seconds"]),
            door["use"],
        )
        for door in said["open"]
    ]
    parts = [table(("OPEN FOR", "PORT", "STILL", "CONNECTIONS"), doors) if doors else "nothing is open"]
    if (left_out := said["open_in_all"] - len(doors)) > 0:
        parts[0] += f"\nand {left_out} more"
    if said["problem"]:
        parts[0] = f"what is open is not known: {plain(said['problem'])}"
    if one:
        return parts[0]
    knocks = said["knocks"]
    refused = ", ".join(f"{number} {reason}" for reason, number in knocks["refused"].items() if number)
    facts = [
        ("running", f"version {said['version']}, process {said['pid']}, for {span(said['seconds'])}"),
        ("source", said["source"]),
        *([("", said["deaf"])] if said["deaf"] else []),
        ("expected", expected(said["expected"], said["every_syn"])),
        ("firewall", said["firewall"]),
        ("knocks", f"{knocks['accepted']} accepted, {knocks['failed']} of them not obeyed"),
        ("refused", refused or "none"),
    ]
    rows = [
        (
            profile["name"],
            profile["knock_port"],
            profile["format"],
            "unknown" if profile["next_counter"] is None else profile["next_counter"],
            f"{span(max(0, int(time.time()) - profile['last_use']))} ago" if profile["last_use"] else "never",
            ",".join(profile["ports"]) + ("" if len(profile["ports"]) == profile["ports_in_all"] else ",..."),
        )
        for profile in said["profiles"]
    ]
    parts.append(
        table(("PROFILE", "KNOCK PORT", "FORMAT", "NEXT", "LAST USE", "MAY OPEN"), rows) if rows else "no profile"
    )
    if (left_out := said["profiles_in_all"] - len(rows)) > 0:
        parts[-1] += f"\nand {left_out} more"
    return "\n\n".join(["\n".join(f"{name:10}{plain(value)}" for name, value in facts), *parts])


def expected(listed: dict[str, int], every: list[str]) -> str:
    """Return which packets the kernel reports to the daemon, as text."""
    parts = [f"every SYN to {', '.join(every)} is logged"] if every else []
    if listed["profiles"] or not every:
        told = f"{listed['ahead']} knocks ahead of {listed['profiles']} profile(s)"
        parts.insert(0, f"{told}, {listed['passed_over']} other SYNs passed over")
    return "; ".join(parts)


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows as columns, as wide as they must be."""
    cells = [list(heads), *([plain(cell)[:WIDEST] for cell in row] for row in rows[:MOST])]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def plain(value: object) -> str:
    """Return text that does nothing to a terminal; the daemon may have been taken over."""
    return "".join(one if one.isprintable() else "?" for one in str(value))


def still(seconds: int) -> str:
    """Return the time that a door stays open, as text."""
    return f"{seconds} s" if seconds else "for ever"


def span(seconds: int) -> str:
    """Return a time in its two largest units."""
    for size, unit, small, less in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // small} {less}"
    return f"{seconds} s"
