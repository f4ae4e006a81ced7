"""The event loop of the daemon: source to gatekeeper to root helper."""

import gc
import heapq
import logging
import math
import select
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from ..core.events import Accepted, Event, Quiet, Several
from ..core.packet import TCP, Packet
from ..errors import CounterError, FirewallError, GrantError, KnockError, PrivilegeError
from ..profiles import clock, counters
from ..root.record import RELOAD, Grant, Order
from ..sources import Source
from . import event_text, instance, loading, status_answer
from .config import KEYS, Config, load_config
from .deafness import Deafness
from .door_owners import DoorOwners
from .event_dispatch import Dispatcher
from .event_text import Facts
from .expected_values import Expected
from .gatekeeper import Gatekeeper
from .privsep import Helper
from .scan_counter import PortCounter, shown
from .signals import Signals

log = logging.getLogger("knockknock")

AT_RESTART = (
    "source",
    "log_file",
    "nflog_group",
    "ct_label",
    "expected_size",
    "user",
    "profiles",
    "state",
    "log",
    "sandbox",
    "control",
    "control_group",
    "on_open",
    "on_close",
    "textfile",
    *(key for key in KEYS if key.startswith("scan_") and key not in ("scan_allow", "scan_public")),
)
"""Settings that a running daemon cannot change, because root is gone or the helper holds them."""


PORTION = 300
"""Lines or messages to process before the daemon looks at signals and at the helper."""
REST = 2
"""Milliseconds without a look at the source after something came: so a flood is read in portions, and does not wake the
daemon for each packet. Then the source is read unasked, because the kernel wakes a reader of its log only at its next
timer tick, up to 10 ms later, and a flood fills the ring before that."""
COMPLAINT = 1.0
"""Seconds between two log messages about the losses of a source."""
STEP = 0.005
"""Seconds that a reload may take at a time, while there is nothing to read."""


def _poll(fds: list[int]) -> select.poll:
    """Return a poll object for reading from these."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return poll


def report(keeper: Gatekeeper, bad: dict[str, KnockError]) -> None:
    """Log the number of profiles and their knock ports, and the errors of unusable profiles."""
    for name, error in bad.items():
        log.error("profile %s: %s", name, error)
    log.info("%d profile(s), knock port(s) %s", len(keeper), ", ".join(sorted(keeper.places)) or "none")
    if not len(keeper):
        log.warning("nobody can knock yet: mint a profile with knockknock-genprofile, then reload")


class Daemon:
    """Runs until SIGTERM, SIGINT or SIGALRM, or until the source or the helper is gone."""

    def __init__(
        self,
        path: str,
        config: Config,
        keeper: Gatekeeper,
        source: Source,
        helper: Helper,
        dispatcher: Dispatcher,
        signals: Signals,
    ) -> None:
        """path: of the configuration, for reloads."""
        self._path, self._config, self._keeper, self._source, self._helper = path, config, keeper, source, helper
        self._dispatcher, self._signals, self._doors = dispatcher, signals, DoorOwners()
        self._deafness = Deafness(source.path, lambda: helper.logged()[0])
        helper.meanwhile = source.drain
        self._coming = source.read()
        self._scans = PortCounter(config) if config.scan_guard and config.scan_count == "daemon" else None
        self._complained = 0.0
        size = 0 if self._scans else config.expected_size  # to count, the daemon needs every SYN
        self._expected = Expected(keeper, size, helper.expect, lambda: helper.placed)
        self._work: Iterator[None] | None = None
        """The steps that are left of a reload or a hand-over."""

    def run(self, ready: Callable[[], None]) -> None:
        """Listen; ready: called once knocks are heard. Raises SourceError, PrivilegeError."""
        asked, helper = self._dispatcher.answer(self._status, self._passed), self._helper.fileno()
        awake = self._signals.fileno()
        fds = [helper, awake, *([asked] if asked >= 0 else [])]
        others, every = _poll(fds), _poll([self._source.fileno(), *fds])
        for _ in self._hand_over():
            pass
        ready()
        rest: int | None = None
        while not self._signals.stop:
            if self._signals.reload or self._helper.placed or self._work:
                rest = 0
            elif rest is None and (seconds := self._dispatcher.wait(time.monotonic())) is not None:
                rest = math.ceil(seconds * 1000)
            for fd, _ in (others if rest == REST else every).poll(rest):
                if fd == awake:
                    self._signals.clear()
                elif fd == helper:
                    self._tell(more=True)
            rest = self._listen()
            self._step(0 if rest == 0 else STEP)
            self._dispatcher.serve(time.monotonic())
            self._tell(more=False)

    def _tell(self, more: bool) -> None:
        """Log the helper's notices; more: first receive a message. Raises PrivilegeError."""
        for notice in self._helper.notices(more):
            log.warning("%s", notice)

    def _listen(self) -> int | None:
        """Process a portion. Return the milliseconds until the next one, None to wait until the source is readable."""
        hear, now = self._keeper.hear, time.monotonic()
        self._keeper.move(clock.seconds())
        portion = list(islice(self._coming, PORTION))
        for packet in portion:
            if not packet:
                continue
            if self._scans is not None and packet.protocol == TCP:
                self._count(self._scans, packet, now)  # first: an accepted knock resets the count
            if event := hear(packet, now):
                self._act(event)
        if now - self._complained >= COMPLAINT and (complaint := self._source.complaint()):
            self._complained = now
            log.warning("%s", complaint)
        if deaf := self._deafness.notice(self._source.hearing(), now):
            log.warning("%s", deaf)
        if len(portion) == PORTION:
            return 0
        self._coming = self._source.read()
        return REST if portion else None

    def _step(self, seconds: float) -> None:
        """Continue a pending reload or hand-over, for these seconds, but by one step at least."""
        if self._signals.reload and not self._work:
            self._signals.reload, self._work = False, self._read_again()
        if self._helper.placed and not self._work:
            self._helper.placed, self._work = False, self._hand_over()
        end = time.monotonic() + seconds
        for _ in self._work or ():
            if time.monotonic() >= end:
                return
        self._work = None

    def _act(self, event: Event) -> None:
        """Store the counter, then open the door, then report: the client waits for the door (PROTOCOL.md step 10)."""
        if isinstance(event, Several):
            for one in event.events:
                self._act(one)
            return
        try:
            if not isinstance(event, Quiet) and event.memory is not None:
                counters.remember(f"{self._config.state}/{event.profile}", event.memory)
                self._source.drain()
        except CounterError as error:
            self._report(logging.ERROR, event_text.failed(event_text.of(event), str(error)))
            return
        if isinstance(event, Accepted):
            self._obey(event)
        else:
            self._report(logging.WARNING, event_text.of(event))
        if not isinstance(event, Quiet) and event.memory is not None:
            self._follow(event.profile)

    def _obey(self, event: Accepted) -> None:
        problem, but, grant, now = "", "", event.grant, time.monotonic()
        try:
            if profile := self._keeper.profile(event.profile):
                self._doors.ask(profile, grant, now)
            but = self._helper.obey(grant)
            if grant.order is not Order.CLOSE:
                self._doors.opened(event.profile, grant, now)
                if self._scans is not None:
                    self._scans.forgive(grant.address)
        except (GrantError, FirewallError) as error:
            problem = str(error)
        if event.warning:
            log.error("profile %s: %s", event.profile, event.warning)
        heard = event_text.of(event)
        self._dispatcher.tell(heard)
        if problem:
            self._report(logging.ERROR, event_text.failed(heard, problem))
        else:
            self._report(logging.INFO, event_text.obeyed(event.profile, grant, but))

    def _follow(self, name: str) -> None:
        """Update the kernel's expected values after a knock of a profile was used up."""
        try:
            self._expected.follow(name)
        except (GrantError, FirewallError) as error:
            log.error("the kernel did not take a profile's new expected values, all are listed anew: %s", error)
            self._helper.placed = True

    def _hand_over(self) -> Iterator[None]:
        """Hand the expected values of all profiles to the kernel, and log the result; in small steps."""
        expected = self._expected
        try:
            yield from expected.hand_over()
        except (GrantError, FirewallError) as error:
            log.warning(
                "every SYN to a knock port is logged, as the kernel did not take the expected values: %s", error
            )
            return
        if expected:
            log.info("the kernel expects the next %d knocks of %d profile(s)", expected.ahead, len(expected))
        for where, why in sorted(expected.every.items()):
            log.info("every SYN to %s is logged, %s", where, why)

    def _count(self, scans: PortCounter, packet: Packet, now: float) -> None:
        """Count a SYN; block its source if that has tried too many ports."""
        if not (source := scans.tried(packet.source, packet.port, now)):
            return
        told = event_text.blocked(shown(source), self._config.scan_ports)
        try:
            self._helper.obey(Grant(Order.BLOCK, source.network_address.packed, 0, 0, 0))
        except (GrantError, FirewallError) as error:
            log.error("%s was not shut out: %s", shown(source), error)
        else:
            self._report(logging.WARNING, told)

    def _report(self, level: int, told: Facts) -> None:
        log.log(level, "%s", event_text.line(told))
        self._dispatcher.tell(told)

    def _status(self, address: bytes) -> dict[str, Any]:
        names = heapq.nsmallest(status_answer.PROFILES, self._keeper.names())
        listed = [profile for name in names if (profile := self._keeper.profile(name))]
        deaf = self._deafness.now(time.monotonic())
        number, helper = len(self._keeper), self._helper
        return status_answer.now(
            self._config.state, listed, number, self._source, deaf, self._expected, helper, address
        )

    def _passed(self) -> int:
        try:
            return self._helper.logged()[1]
        except (FirewallError, GrantError):  # the next order of a knock reports it
            return 0

    def _shut(self, found: loading.Found) -> None:
        """Shut the doors of removed profiles. Raises PrivilegeError."""
        for name, door in self._doors.left(
            lambda name: name in found.gone or not self._keeper.profile(name), time.monotonic()
        ):
            try:
                self._helper.obey(door)
            except (GrantError, FirewallError) as error:
                log.error("a door of %s, which is gone, was not shut: %s", name, error)
            else:
                self._report(logging.INFO, event_text.revoked(name, door))

    def _read_again(self) -> Iterator[None]:
        """Reload (SIGHUP): take the new configuration and profiles, or keep the old if one is invalid; in small steps.

        The helper has the new policy before the first profile changes, and refuses grants that only the old one allows.
        """
        began = time.monotonic_ns()
        gc.disable()  # it would traverse all profiles, again and again
        try:
            config = load_config(self._path)
            if changed := [name for name in AT_RESTART if getattr(config, name) != getattr(self._config, name)]:
                raise KnockError(f"a new {', '.join(changed)} takes a restart")
            found = yield from loading.find(config, self._source.GIVES, self._keeper)
            self._shut(found)  # first: the new policy may not allow it
            self._helper.obey(RELOAD)
            self._expected.forget()
        except PrivilegeError:
            raise
        except KnockError as error:
            log.error("not reloaded, the old configuration stays: %s", error)
            if isinstance(error, FirewallError):  # the set-up may have emptied the sets first
                self._helper.placed = True
            instance.marked(self._config.state, began, done=False)
        else:
            self._config, self._keeper.settings = config, loading.settings(config)
            self._scans = self._scans and self._scans.again(config)
            yield from loading.apply(self._keeper, found, config.state)
            self._shut(found)  # doors that were opened meanwhile
            instance.marked(config.state, began, done=True)
            log.info("reloaded %s", self._path)
            report(self._keeper, found.bad)
            yield from self._hand_over()
        finally:
            gc.freeze()
            gc.enable()
