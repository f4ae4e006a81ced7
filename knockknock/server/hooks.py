"""Tells the hook runner of doors that open and close, in messages of fixed size.

The sandbox forbids the daemon to execute anything. So it sends records of a fixed size to a process that was started
before (server.hook_runner), which knows the programs and accepts nothing but these records.
"""

import os
import socket
import struct
import subprocess
from typing import NamedTuple

from ..core.request import PROTOCOLS
from ..errors import GrantError, KnockError
from ..profiles.text import check_name
from ..root import record
from ..root.privileges import program
from ..root.record import Grant, Order
from . import signals
from .event_text import Facts

RECORD = struct.Struct(f"!B64s{record.RECORD.size}s")
"""Fields: index of the reason in REASONS, profile, grant."""
REASONS = ("", "asked", "ended", "revoked")
"""Reasons for the end of a door: a knock, its time, the end of its profile; "" if it opens."""
AT_ONCE, SECONDS = 8, 10
"""The most programs at a time, and the seconds after which one is killed."""


class Happened(NamedTuple):
    """The facts for one run of a hook."""

    profile: str
    grant: Grant
    """The order CLOSE is for on_close, any other for on_open."""
    reason: str = ""
    """One of REASONS."""


def pack(happened: Happened) -> bytes:
    """Return the record of some facts, always of one size."""
    return RECORD.pack(REASONS.index(happened.reason), happened.profile.encode(), record.pack(happened.grant))


def unpack(facts: bytes) -> Happened:
    """Return the facts of a record. Raises GrantError unless pack() can have made it from valid facts."""
    if len(facts) != RECORD.size:
        raise GrantError(f"facts have {RECORD.size} bytes, not {len(facts)}")
    reason, padded, door = RECORD.unpack(facts)
    try:
        name = check_name(padded.rstrip(b"\0").decode("ascii", "replace"))
        happened = Happened(name, record.unpack(door), REASONS[reason])
    except (KnockError, IndexError) as error:
        raise GrantError(str(error)) from None
    if happened.grant.order not in (Order.OPEN, Order.OPEN_ONCE, Order.CLOSE) or pack(happened) != facts:
        raise GrantError("the facts are not those of a door that opened or closed, as pack() writes them")
    if bool(happened.reason) != (happened.grant.order is Order.CLOSE):
        raise GrantError("a door that shuts has a reason, and one that opens has none")
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
        with theirs, signals.held():
            self.process = subprocess.Popen(
                program("server.hook_runner", str(uid), str(gid), on_open, on_close),
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
            self._pair.send(pack(Happened(str(facts["profile"]), door, str(facts.get("reason", "")))))
        except BlockingIOError:
            self.missed += 1
            return f"{self.missed} run(s) of hooks left out: doors open faster than hooks end: make the hooks faster"
        except OSError:
            return "the process that runs hooks is gone: restart the daemon"
        return ""

    def stop(self) -> None:
        """Close the pair; running programs may go on for their time."""
        self._pair.close()
