"""Notices that somebody else has changed the firewall's rules, and places ours again.

Nothing is asked for in turns. The kernel announces each change of an nf_tables ruleset, which is what nft,
iptables-nft, ufw and firewalld make. Legacy tables announce nothing, but each legacy command closes one lock file.
"""

import contextlib
import ctypes
import os
import select
import socket
import sys
import time
from collections.abc import Iterator

from ..errors import KnockError
from ..grant import LONGEST_REASON, NOTICE, RECORD
from . import legacy
from .firewall import Firewall
from .legacy import LOCK
from .netlink import NETFILTER

SETTLE = 0.25
"""Seconds from the first announcement to our look at the rules: a reload comes in several transactions."""
LONGEST = 32.0
"""Seconds between two looks at most, when somebody takes our rules away as fast as we place them."""
SHARE = 10
"""How many times longer than a look takes the pause before the next one is at least."""

# include/uapi/linux/netfilter/nfnetlink.h, netfilter/nf_tables.h
_NFTABLES_GROUP = 1 << (7 - 1)
_NFTABLES = 10
_NEW_ELEMENT, _DELETE_ELEMENT, _NEW_GENERATION = 12, 14, 15
_IN_CLOSE = 0x8 | 0x10
"""IN_CLOSE_WRITE and IN_CLOSE_NOWRITE (include/uapi/linux/inotify.h)."""


class Watch:
    """Hands out records while it looks after the rules."""

    def __init__(self, pair: socket.socket) -> None:
        """Listen from now on. Raises OSError. pair: where records come from, and where notices go to."""
        self._pair = pair
        self._changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETFILTER)
        self._changes.bind((0, _NFTABLES_GROUP))
        self._lock = -1
        self._poll = select.poll()
        for fd in (pair.fileno(), self._changes.fileno()):
            self._poll.register(fd, select.POLLIN)
        self._watch_legacy()
        self._due: float | None = None
        self._pause, self._healed, self._said = SETTLE, 0.0, ""
        self._least, self._looked = SETTLE, 0.0

    def _watch_legacy(self) -> None:
        """Notice legacy commands, once there is something that they could change."""
        if self._lock < 0 and legacy.tables() and (lock := _watch_lock()) >= 0:
            self._lock = lock
            self._poll.register(lock, select.POLLIN)

    def record(self, firewall: Firewall) -> bytes:
        """The next record, b"" when the pair has closed. Until then: heal what somebody else changes."""
        while True:
            wait = None if self._due is None else max(0, round((self._due - time.monotonic()) * 1000))
            ready = [fd for fd, _ in self._poll.poll(wait)]
            if self._announced(ready) and self._due is None:
                now = time.monotonic()
                self._due = max(now + SETTLE, self._healed + self._pause, self._looked + self._least)
            if self._due is not None and time.monotonic() >= self._due:
                self.heal(firewall)
            if self._pair.fileno() in ready:
                return self._pair.recv(RECORD.size + 1)

    def heal(self, firewall: Firewall) -> None:
        """Place again what is missing, and tell the daemon."""
        self._due = None
        began = time.monotonic()
        self._watch_legacy()
        try:
            text = firewall.heal()
        except KnockError as error:
            text = f"after a change of the firewall's rules: {error}; tried again when they change again"
        self._looked = now = time.monotonic()
        self._least = max(SETTLE, SHARE * (now - began))
        if text:
            # Two that undo each other must not spin; a single reload, in however many steps, is healed at once.
            self._pause = min(self._pause * 2, LONGEST) if now - self._healed < 10 * self._pause else SETTLE
            self._healed = now
        said, self._said = self._said, text
        if text not in ("", said):  # a busy administrator need not read it twice
            with contextlib.suppress(BlockingIOError):  # a daemon that is stopped must not stop us
                self._pair.send(NOTICE + text.encode()[:LONGEST_REASON], socket.MSG_DONTWAIT)

    def _announced(self, ready: list[int]) -> bool:
        """Read what was announced; whether rules, chains, sets or tables may be others now."""
        changed = False
        if self._lock in ready:
            os.read(self._lock, 1 << 16)
            changed = True
        while self._changes.fileno() in ready:
            try:
                changed = any(map(_matters, _types(self._changes.recv(1 << 16)))) or changed
            except BlockingIOError:
                break
            except OSError:
                changed = True  # ENOBUFS: there was more than fits, and so surely something
        return changed


def _matters(kind: int) -> bool:
    """Whether a message is of more than elements, which come and go with every knock, and every ban of others."""
    return kind >> 8 == _NFTABLES and kind & 0xFF not in (_NEW_ELEMENT, _DELETE_ELEMENT, _NEW_GENERATION)


def _types(data: bytes) -> Iterator[int]:
    """The types of the messages in a datagram (netlink(7))."""
    while len(data) >= 16:
        length, kind = int.from_bytes(data[:4], sys.byteorder), int.from_bytes(data[4:6], sys.byteorder)
        yield kind
        data = data[max(16, (length + 3) & ~3) :]


def _watch_lock() -> int:
    """An inotify descriptor that is readable after each legacy iptables command, or -1 where there can be none."""
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(OSError):
        os.close(os.open(LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        fd = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        if fd >= 0 and libc.inotify_add_watch(fd, LOCK.encode(), _IN_CLOSE) >= 0:
            return fd
    return -1
