"""Catches signals from the start of the program, and keeps them until the event loop handles them."""

import contextlib
import signal
import socket
from collections.abc import Iterator
from types import FrameType

STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
ALL = (*STOP, signal.SIGHUP)


class Signals:
    """Two flags: stop (SIGTERM, SIGINT, SIGALRM) and reload (SIGHUP). The descriptor is readable after a signal."""

    def __init__(self) -> None:
        """Catch signals from now on, so that none interrupts the start."""
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
        """Make the descriptor unreadable until the next signal."""
        self._awake.recv(4096)

    def _came(self, number: int, _frame: FrameType | None) -> None:
        self.stop = self.stop or number in STOP
        self.reload = self.reload or number == signal.SIGHUP


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Block signals for a process that the body starts, until that has set its handlers and unblocks them.

    When systemd stops a unit, it signals all of its processes, even those that have just been started.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ALL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
