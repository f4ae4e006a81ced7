"""Reads /dev/kmsg, the kernel's own ring of messages (Documentation/ABI/testing/dev-kmsg)."""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import islice

from ..core.packet import Packet
from ..errors import SourceError
from .kernel_line import Lines

RECORD = 8192
"""Bytes of a read; the kernel refuses a read that is shorter than the record (PRINTK_MESSAGE_MAX is 2048)."""
HELD = 10_000
"""The most records that are taken out of the ring and not yet parsed. The ring itself holds some 600 of our lines,
which a flood fills in 5 ms, and one knock takes 2 ms; so the ring is drained first, and parsed after."""
PORTION = 100
"""Records that are parsed before the ring is drained again."""
DEVICE = os.makedev(1, 11)
"""Device number of /dev/kmsg (Documentation/admin-guide/devices.txt)."""


class Kmsg:
    """Reads the ring, from its end on (sources.Source)."""

    GIVES = frozenset({"tcp timestamps"})
    group = None

    def __init__(self, path: str, fd: int) -> None:
        self.path, self._fd = path, fd
        self._held: deque[bytes] = deque()
        self._overruns = 0
        self._lines = Lines()
        self.hearing = self._lines.hearing

    def fileno(self) -> int:
        return self._fd

    def read(self) -> Iterator[Packet | None]:
        """Yield packets until the ring is empty. Raises SourceError."""
        held, packets = self._held, self._lines.packets
        while True:
            self.drain()
            yield from packets([held.popleft() for _ in range(min(PORTION, len(held)))])
            if not held:
                return

    def drain(self) -> None:
        """Move the records of the ring into the queue, until that holds HELD. Raises SourceError."""
        records = iter(partial(os.read, self._fd, RECORD), None)
        while len(self._held) < HELD:
            try:
                self._held.extend(islice(records, HELD - len(self._held)))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise SourceError(f"/dev/kmsg cannot be read any more: {error.strerror}") from None
                # The ring overwrote unread records; the next read returns the oldest that is left.
                self._overruns += 1

    def complaint(self) -> str:
        count, self._overruns = self._overruns, 0
        return f"the kernel's log ran over {count} time(s): knocks may have been lost" if count else ""


def given() -> bool:
    """Return True if the ring is standard input: systemd opens it for the unit, which has no devices."""
    try:
        status = os.fstat(0)
    except OSError:
        return False
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == DEVICE


def open_source(path: str) -> Kmsg:
    """Open the ring at its end; needs root or CAP_SYSLOG for the open, unless given(). Raises SourceError."""
    try:
        fd = os.dup(0) if given() else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.set_blocking(fd, False)
        os.lseek(fd, 0, os.SEEK_END)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}; in a container, set source = nflog") from None
    return Kmsg(path, fd)


look = open_source  # reading takes no record from others
