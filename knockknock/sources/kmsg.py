"""Reads /dev/kmsg, the kernel's own ring of messages (Documentation/ABI/testing/dev-kmsg)."""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import islice

from ..errors import SourceError
from ..packet import Packet
from .logline import Lines

RECORD = 8192
"""Bytes; the kernel refuses to read a record into less than it takes (PRINTK_MESSAGE_MAX is 2048)."""
HELD = 10_000
"""Records that are taken out of the ring, and not yet looked at, at most. The ring itself holds some 600 of our lines,
which a flood fills in 6 ms, and one knock takes 2; so it is drained first, and what it held is gone through after."""
PORTION = 100
"""Records gone through before the ring is drained again."""
DEVICE = os.makedev(1, 11)
"""Documentation/admin-guide/devices.txt"""


class Kmsg:
    """A reader of the ring, from its end on."""

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
        """Packets until the ring is empty. Raises SourceError."""
        held, packets = self._held, self._lines.packets
        while True:
            self.drain()
            yield from packets([held.popleft() for _ in range(min(PORTION, len(held)))])
            if not held:
                return

    def drain(self) -> None:
        """Move what is in the ring to where it waits. Raises SourceError."""
        records = iter(partial(os.read, self._fd, RECORD), None)
        while len(self._held) < HELD:
            try:
                self._held.extend(islice(records, HELD - len(self._held)))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise SourceError(f"/dev/kmsg cannot be read any more: {error.strerror}") from None
                # The ring went round before we came; the next read goes on with the oldest record that is left.
                self._overruns += 1

    def complaint(self) -> str:
        count, self._overruns = self._overruns, 0
        return f"the kernel's log ran over {count} time(s): knocks may have been lost" if count else ""


def given() -> bool:
    """Whether the ring is our standard input: systemd opens it so for the unit, in which there are no devices."""
    try:
        status = os.fstat(0)
    except OSError:
        return False
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == DEVICE


def open_source(path: str) -> Kmsg:
    """Open the ring at its end; needs root or CAP_SYSLOG once, now, if it is not given. Raises SourceError."""
    try:
        fd = os.dup(0) if given() else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.set_blocking(fd, False)
        os.lseek(fd, 0, os.SEEK_END)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}; in a container, set source = nflog") from None
    return Kmsg(path, fd)


look = open_source  # to read it takes it from nobody
