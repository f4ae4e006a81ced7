"""/dev/kmsg: the kernel's own ring of messages; no syslog daemon needed (Documentation/ABI/testing/dev-kmsg)."""

import errno
import os
from collections.abc import Iterator

from ..errors import SourceError
from ..packet import Packet
from .logline import parse

RECORD = 8192
"""Bytes; the kernel refuses to read a record into less than it takes (PRINTK_MESSAGE_MAX is 2048)."""
BATCH = 1000
"""Records read before the daemon looks at anything else."""


class Kmsg:
    """A reader of the ring, from its end on."""

    GIVES = frozenset({"tcp timestamps"})
    group = None

    def __init__(self, path: str, fd: int) -> None:
        self.path, self._fd = path, fd
        self._overruns = 0

    def fileno(self) -> int:
        return self._fd

    def read(self) -> Iterator[Packet]:
        """Packets of up to BATCH records. Raises SourceError."""
        for _ in range(BATCH):
            try:
                record = os.read(self._fd, RECORD)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise SourceError(f"/dev/kmsg cannot be read any more: {error.strerror}") from None
                # The ring went round before we came; the next read goes on with the oldest record that is left.
                self._overruns += 1
                continue
            if packet := parse(record.partition(b"\n")[0]):
                yield packet

    def complaint(self) -> str:
        count, self._overruns = self._overruns, 0
        return f"the kernel's log ran over {count} time(s): knocks may have been lost" if count else ""


def open_source(path: str) -> Kmsg:
    """Open the ring at its end; needs root or CAP_SYSLOG once, now. Raises SourceError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(fd, 0, os.SEEK_END)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    return Kmsg(path, fd)


look = open_source  # to read it takes it from nobody
