"""Counts events for Prometheus, in a file for node_exporter's textfile collector."""

import contextlib
import logging
import os

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest

from ..core.events import Reason
from ..profiles import files
from .event_text import Facts

log = logging.getLogger("knockknock")

PAUSE = 5.0
"""The least seconds between two writes."""


class Metrics:
    """The counts since the start, written when one has changed."""

    def __init__(self, path: str, version: str) -> None:
        self._path, self._registry = path, CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it ships types, but not for this

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"knockknock_{name}", what, labels, registry=self._registry)

        self._accepted = counter("knocks_accepted", "Knocks that are valid and permitted", "profile")
        self._refused = counter("knocks_refused", "Packets at knock ports that opened nothing", "reason")
        self._failed = counter(
            "knocks_failed", "Knocks whose counter could not be stored, or whose door could not be changed"
        )
        self._opened = counter("doors_opened", "Ports opened for a source")
        self._closed = counter("doors_closed", "Ports closed because a knock asked for it")
        self._blocked = counter(
            "sources_blocked", "Sources that the daemon had shut out for a scan (scan_count = daemon)"
        )
        self.passed = Gauge(
            "knockknock_syns_passed_over",
            "SYNs to any port without an expected value, from the placing of the rules to the last event",
            registry=self._registry,
        )
        Gauge("knockknock_info", "1", ["version"], registry=self._registry).labels(version).set(1)
        for reason in (*(one.value for one in Reason), "unexamined"):
            self._refused.labels(reason)
        self._changed, self._not_before, self._broken = True, 0.0, False

    def tell(self, facts: Facts) -> None:
        """Count an event."""
        match facts["event"]:
            case "accepted":
                self._accepted.labels(facts["profile"]).inc()
            case "refused":
                self._refused.labels(facts["reason"]).inc()
            case "ignored":
                self._refused.labels("unexamined").inc(int(facts["packets"]))
            case "blocked":
                self._blocked.inc()
            case "failed":
                self._failed.inc()
            case "opened":
                self._opened.inc()
            case "closed" if facts["reason"] == "asked":
                self._closed.inc()
            case _:
                return
        self._changed = True

    def due(self) -> float | None:
        """Return the time at which to call write(), on the monotonic clock in seconds; None if nothing has changed."""
        return self._not_before if self._changed else None

    def write(self, now: float) -> None:
        """Replace the file, readable by all, if something has changed and PAUSE is over."""
        if not self._changed or now < self._not_before:
            return
        self._changed, self._not_before = False, now + PAUSE
        try:
            _put(self._path, generate_latest(self._registry))
        except OSError as error:
            if not self._broken:  # logged once, until a write succeeds
                log.warning("textfile %s cannot be written: %s", self._path, error.strerror)
            self._broken = True
        else:
            self._broken = False


def _put(path: str, data: bytes) -> None:
    """Replace a file by rename. Raises OSError with nothing changed.

    Others may write to its directory, so the temporary name is unpredictable; the collector ignores its suffix.
    """
    aside = f"{path}.{os.urandom(8).hex()}"
    with files.exact_modes():
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(aside, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
