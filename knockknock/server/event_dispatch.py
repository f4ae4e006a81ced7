"""Delivers events to the control socket, hooks and metrics, and counts them for `status`."""

import grp
import heapq
import logging
import os
import pwd
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import KnockError
from . import control as control_socket
from . import event_text, hooks, status_answer
from .config import Config
from .event_text import Facts

if TYPE_CHECKING:
    from .metrics import Metrics

log = logging.getLogger("knockknock")

_Door = tuple[str, str, int]
"""Source, protocol, port."""


def check(config: Config) -> None:
    """Raise KnockError if a hook, group, directory or module that the configuration needs is missing."""
    hooks.check(config.on_open, "on_open")
    hooks.check(config.on_close, "on_close")
    if config.control_group:
        _group(config.control_group)
    if config.textfile:
        _metrics(config.textfile)


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise KnockError(f"control_group: there is no group {name}: groupadd --system {name}") from None


def _metrics(path: str) -> "Metrics":
    if not os.path.isdir(directory := os.path.dirname(path)):
        raise KnockError(f"textfile: there is no directory {directory}")
    try:
        from .metrics import Metrics
    except ImportError:
        raise KnockError("textfile needs prometheus_client: pip install prometheus-client") from None
    return Metrics(path, __version__)


class Dispatcher:
    """Delivers events; created as root, used as the daemon's user. Wakes the daemon only if something is due."""

    def __init__(self, config: Config, user: pwd.struct_passwd, quiet: bool) -> None:
        """Start hooks and listen, after check(). Raises KnockError. quiet: hooks have no standard error."""
        self._start = time.monotonic()
        self._counts: Counter[tuple[str, str]] = Counter()
        """The number of events by name and reason, "" for none."""
        self._metrics = _metrics(config.textfile) if config.textfile else None
        self.writes = [os.path.dirname(config.textfile)] if config.textfile else []
        """Directories that the sandbox must leave open for writing."""
        self._listener = None
        if config.control != "off":
            gid = _group(config.control_group) if config.control_group else user.pw_gid
            try:
                self._listener = control_socket.listen(config.control, gid)
            except KnockError as error:  # the daemon can do without
                log.warning("status cannot be asked: %s", error)
        self._control: control_socket.Control | None = None
        programs = config.on_open, config.on_close
        self._hooks = hooks.Hooks(*programs, user.pw_uid, user.pw_gid, quiet) if any(programs) else None
        self._open: dict[_Door, tuple[float, Facts]] = {}
        """The end of each open door's time, on the monotonic clock, and the event that opened it."""
        self._ends: list[tuple[float, _Door]] = []
        """A heap of the same times; entries without an equal one in _open are ignored."""

    @property
    def listener(self) -> int | None:
        """The descriptor at which the control socket accepts clients, None without one."""
        return self._listener.fileno() if self._listener else None

    def answer(self, now: Callable[[bytes], dict[str, Any]], passed: Callable[[], int]) -> int:
        """Answer clients from now on. Return a descriptor that is readable when serve() has something to do.

        It is -1 without a control socket. now: a function of an address that makes the answer (status_answer.now).
        passed: a function that returns the number of SYNs that the kernel has passed over, for the metrics.
        """
        if self._metrics:
            self._metrics.passed.set_function(passed)
        if self._listener is None:
            return -1
        self._control = control_socket.Control(
            self._listener,
            lambda address: status_answer.counted(self._counts, time.monotonic() - self._start) | now(address),
        )
        return self._control.fileno()

    def tell(self, told: Facts) -> None:
        """Deliver an event to hooks, metrics and listening clients, and count it."""
        self._counts[str(told["event"]), str(told.get("reason", ""))] += int(told.get("packets", 1))
        if self._hooks and (problem := self._hooks.tell(told)):
            log.warning("%s", problem)
        if self._metrics:
            self._metrics.tell(told)
        if self._control:
            self._control.tell(told)
        if told["event"] in ("opened", "closed"):
            self._remember(told, time.monotonic())

    def _remember(self, told: Facts, now: float) -> None:
        door = str(told["source"]), str(told["protocol"]), int(told["port"])
        self._open.pop(door, None)
        if told["event"] == "opened":
            end = now + int(told["seconds"])
            self._open[door] = end, told
            heapq.heappush(self._ends, (end, door))

    def _ended(self, now: float) -> None:
        """Tell that doors ended, by their time, if anybody listens: the kernel does not announce it."""
        while self._ends and self._ends[0][0] <= now:
            end, door = heapq.heappop(self._ends)
            if door in self._open and self._open[door][0] == end:
                _, opened = self._open.pop(door)
                if self._heard():
                    self.tell(event_text.ended(opened))

    def _heard(self) -> bool:
        """Return True if a hook or a client wants to know when a door's time is over."""
        return bool((self._hooks and self._hooks.wants_end) or (self._control and self._control.heard))

    def wait(self, now: float) -> float | None:
        """Return the seconds until serve() must be called without a client, None for never.

        now: seconds on the monotonic clock.
        """
        due = [self._ends[0][0]] if self._ends and self._heard() else []
        if self._metrics and (write := self._metrics.due()) is not None:
            due.append(write)
        return max(0.0, min(due) - now) if due else None

    def serve(self, now: float) -> None:
        """Do what is due, and handle one client. Raises PrivilegeError, from the functions of answer()."""
        self._ended(now)
        if self._metrics:
            self._metrics.write(now)
        if self._control:
            self._control.serve()

    def stop(self) -> None:
        """Start no more hooks; running ones may go on for their time."""
        if self._hooks:
            self._hooks.stop()
