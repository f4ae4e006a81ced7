"""The loop itself: it stops when it is told to, at any moment."""

import os
import pwd
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from knockknock.core.packet import Packet
from knockknock.core.profile import Settings
from knockknock.server.config import Config
from knockknock.server.daemon import Daemon
from knockknock.server.event_dispatch import Dispatcher
from knockknock.server.gatekeeper import Gatekeeper
from knockknock.server.privsep import Helper
from knockknock.server.signals import Signals


class Endless:
    """A source that somebody fills faster than anybody reads."""

    GIVES: frozenset[str] = frozenset()
    path = "a flood"
    group: int | None = None

    def __init__(self) -> None:
        self.end, self._other = socket.socketpair()
        self._other.send(b"!")

    def fileno(self) -> int:
        return self.end.fileno()

    def read(self) -> Iterator[Packet | None]:
        while True:
            yield None

    def drain(self) -> None:
        pass

    def complaint(self) -> str:
        return ""

    def hearing(self) -> tuple[bool, str]:
        return True, ""


class Silent:
    """A helper that has nothing to say."""

    meanwhile: Callable[[], None]

    def __init__(self) -> None:
        self.end, self._other = socket.socketpair()
        self.placed = False

    def fileno(self) -> int:
        return self.end.fileno()

    def notices(self, more: bool) -> list[str]:
        return []

    def logged(self) -> tuple[int, int]:
        return 0, 0

    def expect(self, name: str, come: list[bytes], go: list[bytes]) -> None:
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_in_a_flood(number: signal.Signals) -> None:
    handlers = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    keeper = Gatekeeper(Settings(15, 20, single_use=True))
    dispatcher = Dispatcher(Config(control="off"), pwd.getpwuid(os.getuid()), quiet=True)
    daemon = Daemon("/nonexistent", Config(), keeper, Endless(), cast(Helper, Silent()), dispatcher, Signals())
    try:
        daemon.run(lambda: threading.Timer(0.1, os.kill, (os.getpid(), number)).start())
    finally:
        signal.set_wakeup_fd(-1)
        for one, handler in handlers.items():
            signal.signal(one, handler)
