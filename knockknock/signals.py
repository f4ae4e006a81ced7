"""Catches signals from the first moment on, and holds them until the daemon has time for them."""

import contextlib
import signal
import socket
from collections.abc import Iterator
from types import FrameType

STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
ALL = (*STOP, signal.SIGHUP)


class Signals:
    """SIGTERM, SIGINT and SIGALRM, and SIGHUP, as two flags. Its descriptor is readable when one has come."""

    def __init__(self) -> None:
        """Take note of them from now on, so that none ends a start half way."""
        self.stop = self.reload = False
        self._awake, self._waker = socket.socketpair()
        self._awake.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in ALL:
            signal.signal(number, self._came)

    def fileno(self) -> int:
        return self._awake.fileno()

    def clear(self) -> None:
        """Make the descriptor unreadable until the next one comes."""
        self._awake.recv(4096)

    def _came(self, number: int, _frame: FrameType | None) -> None:
        self.stop = self.stop or number in STOP
        self.reload = self.reload or number == signal.SIGHUP


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Hold signals back from a process that the body starts, until it has said what it does with them and takes them.

    When systemd stops a unit, it signals all of its processes, also those that have only just been started.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ALL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
