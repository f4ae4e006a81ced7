"""Finds the daemon that runs on this machine, by its lock on the state directory."""

import contextlib
import os
import signal
import time

from ..errors import KnockError
from ..profiles import files
from ..profiles.lock_holder import holder

MARK = ".reloaded"
"""A file in the state directory: the time at which the daemon last began to read its files, on the monotonic clock in
ns, and whether it uses them now: "4711 done" or "4711 failed"."""
PATIENCE = 30.0
"""Seconds to wait for a reload; a hundred thousand profiles take a large part of that."""


def daemon(state: str) -> int:
    """Return the process id of the daemon that uses a state directory, 0 if none runs."""
    try:
        with files.directory_fd(state) as fd:
            return holder(fd)
    except OSError:
        return 0


def marked(state: str, began: int, *, done: bool) -> None:
    """Write the mark for reload(). began: the time at which reading began, on the monotonic clock, in ns."""
    with contextlib.suppress(OSError):  # reload(), which waits for it, reports that
        files.write_durably(f"{state}/{MARK}", f"{began} {'done' if done else 'failed'}\n", 0o600)


def reload(state: str) -> bool:
    """Have the daemon read its files again, and wait until it uses them; False if none runs. Raises KnockError."""
    pid, asked = daemon(state), time.monotonic_ns()
    if not pid:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGHUP)
    while (mark := _mark(state))[0] < asked:
        if time.monotonic_ns() - asked > PATIENCE * 1e9 or daemon(state) != pid:
            break
        time.sleep(0.01)
    else:
        if mark[1]:
            return True
    raise KnockError(f"the daemon (process {pid}) still uses what it read before: see why in its log, or restart it")


def _mark(state: str) -> tuple[int, bool]:
    """Return the time in the mark, and True if the daemon uses what it read then; 0 and False without a mark."""
    try:
        began, _, word = files.read_own(f"{state}/{MARK}").partition(" ")
        return int(began), word == "done\n"
    except (OSError, ValueError):
        return 0, False
