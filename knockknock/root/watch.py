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
from . import NAME, legacy
from .firewall import Firewall
from .legacy import LOCK
from .netlink import NETFILTER, text

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
_NEW_TABLE, _DELETE_TABLE = _NFTABLES << 8, _NFTABLES << 8 | 2
_NAMED = text(1, NAME)
"""NFTA_TABLE_NAME of our table."""
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
            changed, gone = self._announced(ready)
            if gone:  # nothing refuses now, and what else is to come makes our table no less missing
                self._due = max(time.monotonic(), self._healed + self._pause)
            elif changed and self._due is None:
                self._due = max(time.monotonic() + SETTLE, self._healed + self._pause, self._looked + self._least)
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

    def _announced(self, ready: list[int]) -> tuple[bool, bool]:
        """Read what was announced; whether rules, chains, sets or tables may be others now, and whether ours went."""
        changed = gone = False
        if self._lock in ready:
            os.read(self._lock, 1 << 16)
            changed = True
        while self._changes.fileno() in ready:
            try:
                for kind, message in _messages(self._changes.recv(1 << 16)):
                    changed = changed or _matters(kind)
                    if kind in (_NEW_TABLE, _DELETE_TABLE) and _NAMED in message:
                        gone = kind == _DELETE_TABLE  # one that is replaced is made anew in the same transaction
            except BlockingIOError:
                break
            except OSError:
                changed = True  # ENOBUFS: there was more than fits, and so surely something
        return changed, gone


def _matters(kind: int) -> bool:
    """Whether a message is of more than elements, which come and go with every knock, and every ban of others."""
    return kind >> 8 == _NFTABLES and kind & 0xFF not in (_NEW_ELEMENT, _DELETE_ELEMENT, _NEW_GENERATION)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The messages in a datagram, each with its type (netlink(7))."""
    while len(data) >= 16:
        length, kind = int.from_bytes(data[:4], sys.byteorder), int.from_bytes(data[4:6], sys.byteorder)
        yield kind, data[:length]
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
