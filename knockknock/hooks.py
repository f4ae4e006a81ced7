"""Runs the administrator's programs when a door opens or shuts.

The sandbox forbids the daemon to execute anything. So it sends records of a fixed size to a process that was started
before (runner), which knows the programs and accepts nothing but these records.
"""

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from . import grant, signals
from .errors import GrantError, KnockError
from .facts import Facts
from .grant import Grant, Order
from .profile import check_name
from .request import PROTOCOLS
from .root.privileges import RUN

RECORD = struct.Struct(f"!?64s{grant.RECORD.size}s")
"""Fields: True if a door's time is over (not if it opens, or a knock closes it), profile, grant."""
AT_ONCE, SECONDS = 8, 10
"""The most programs at a time, and the seconds after which one is killed."""


class Happened(NamedTuple):
    """The facts for one run of a hook."""

    profile: str
    grant: Grant
    """The order CLOSE is for on_close, any other for on_open."""
    ended: bool = False


def pack(happened: Happened) -> bytes:
    """Return the record of some facts, always of one size."""
    return RECORD.pack(happened.ended, happened.profile.encode(), grant.pack(happened.grant))


def unpack(record: bytes) -> Happened:
    """Return the facts of a record. Raises GrantError unless pack() can have made it from valid facts."""
    if len(record) != RECORD.size:
        raise GrantError(f"facts have {RECORD.size} bytes, not {len(record)}")
    ended, name, door = RECORD.unpack(record)
    try:
        happened = Happened(check_name(name.rstrip(b"\0").decode("ascii", "replace")), grant.unpack(door), ended)
    except KnockError as error:
        raise GrantError(str(error)) from None
    if happened.grant.order not in (Order.OPEN, Order.OPEN_ONCE, Order.CLOSE) or pack(happened) != record:
        raise GrantError("what has happened is neither that a door opened nor that it shut")
    if happened.ended and happened.grant.order is not Order.CLOSE:
        raise GrantError("a door that opens has not ended")
    return happened


def check(program: str, key: str) -> None:
    """Raise KnockError if a hook is not a file that root can execute; "" is no hook."""
    if program and not (os.path.isfile(program) and os.access(program, os.X_OK)):
        raise KnockError(f"{key}: {program} is not a program that can be executed")


class Hooks:
    """The daemon's end of the socket pair to the runner."""

    def __init__(self, on_open: str, on_close: str, uid: int, gid: int, quiet: bool) -> None:
        """Start the runner, as root; it becomes the user by itself. quiet: give it no standard error."""
        self.wants_end = bool(on_close)
        self._programs = {"opened": on_open, "closed": on_close}
        self._pair, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pair.setblocking(False)
        self.missed = 0
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        words: Sequence[str] = [package, str(uid), str(gid), on_open, on_close]
        with theirs, signals.held():
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-c", RUN.format(module="knockknock.runner"), *words],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL if quiet else None,
                cwd="/",
            )

    def tell(self, facts: Facts) -> str:
        """Have the hook of an event run, if it has one. Return a sentence about what failed, or ""."""
        if not self._programs.get(str(facts["event"])):
            return ""
        address = socket.inet_pton(
            socket.AF_INET6 if ":" in str(facts["source"]) else socket.AF_INET, str(facts["source"])
        )
        order = Order.CLOSE
        if facts["event"] == "opened":
            order = Order.OPEN_ONCE if facts["use"] == "one" else Order.OPEN
        door = Grant(
            order, address, PROTOCOLS[str(facts["protocol"])], int(facts["port"]), int(facts.get("seconds", 0))
        )
        try:
            self._pair.send(pack(Happened(str(facts["profile"]), door, facts.get("reason") == "ended")))
        except BlockingIOError:
            self.missed += 1
            return f"{self.missed} run(s) of hooks left out: they take longer than knocks take to come"
        except OSError:
            return "the process that runs hooks is gone: restart the daemon"
        return ""

    def stop(self) -> None:
        """Close the pair; running programs may go on for their time."""
        self._pair.close()
