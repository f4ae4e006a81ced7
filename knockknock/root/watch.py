"""The watch process: runs the set-up at the start, at a reload, and when others change the firewall's rules.

The daemon starts it while still root, with one end of a pair as standard input. The watch only writes there; the
resident helper, which the first set-up becomes, reads. The helper tells the watch only to have the policy read again,
and that it has ended. Then all that was placed is removed.

Nothing is polled. The kernel announces each change of an nf_tables ruleset, as nft, iptables-nft, ufw and firewalld
make it. Legacy tables announce nothing, but each legacy command closes one lock file.
"""

import contextlib
import ctypes
import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator

from ..errors import FirewallError, KnockError
from . import DAEMON, NAME, namespace_lock, privileges, record_limits
from .netlink import INET, NETFILTER
from .record import FAILED, LONGEST_REASON, NOTICE

SETTLE = 0.25
"""Seconds from the first announcement to a look at the rules: a reload comes in several transactions."""
BUSY, LONGEST = 1.0, 32.0
"""The longest pause in seconds between two looks while rules change all the time, unless SHARE makes it longer; and
while others remove our rules as fast as they are placed."""
SHARE = 3
"""The shortest pause after a look, as a multiple of its time, to spare the processor, unless our table is gone."""
_START = {*(_STAY := {privileges.NET_ADMIN, privileges.NET_RAW}), privileges.SETPCAP, privileges.SETUID}
_START |= {privileges.SETGID, privileges.DAC_OVERRIDE}
"""Capabilities for the start, when the first set-up becomes another user, and (_STAY) for later."""

# include/uapi/linux/netfilter/nfnetlink.h, netfilter/nf_tables.h
_NFTABLES_GROUP = 1 << (7 - 1)
_NFTABLES = 10
_NEW_TABLE, _DELETE_TABLE, _NEW_ELEMENT, _DELETE_ELEMENT, _NEW_GENERATION = 0, 2, 12, 14, 15
_OURS = NAME.encode() + b"\0"
_IN_CLOSE = 0x8 | 0x10
"""IN_CLOSE_WRITE and IN_CLOSE_NOWRITE (include/uapi/linux/inotify.h)."""
_SO_SNDBUFFORCE = 32


class Pace:
    """Decides when to look at the rules, in seconds on a monotonic clock."""

    def __init__(self) -> None:
        self.due = math.inf
        self._healed = self._ended = -math.inf
        self._pause = self._rest = SETTLE

    def changed(self, now: float, gone: bool) -> None:
        """Record a change of rules. gone: our own table was removed, which is healed without the wait for more."""
        due = max(now if gone else now + SETTLE, self._healed + self._pause)
        self.due = min(self.due, due if gone else max(due, self._ended + self._rest))

    def looked(self, began: float, now: float, healed: bool) -> None:
        """Record the end of a look. healed: there was something to report, as when rules were missing."""
        self.due = math.inf
        often = began - self._ended < 2 * self._rest
        self._rest = max(min(self._rest * 2, BUSY) if often else SETTLE, SHARE * (now - began))
        self._ended = now
        if healed:
            # Programs that undo each other must not spin; a single reload, in however many steps, is healed at once.
            self._pause = min(self._pause * 2, LONGEST) if now - self._healed < 10 * self._pause else SETTLE
            self._healed = now


class SetUp:
    """Runs the set-up, and passes on the state that the one before left."""

    def __init__(self, config: str, trial: str) -> None:
        """config: path of the configuration. trial: seconds, or 0."""
        self._words = [config, trial, str(os.memfd_create("policy", 0))]
        self.control, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * record_limits.MOST)

    def start(self) -> int:
        """Place everything. Return the id of the process that has become the helper. Raises FirewallError."""
        with self._theirs:
            pid, said = self._begin("start")
        if said:
            os.waitpid(pid, 0)
            raise FirewallError(said)
        return pid

    def asked(self) -> bool:
        """Read all that the helper has sent, as one request. Return False if the helper has gone."""
        with contextlib.suppress(ConnectionError):
            try:
                while self.control.recv(64, socket.MSG_DONTWAIT):
                    pass
            except BlockingIOError:
                return True
        return False

    def run(self, mode: str) -> str:
        """Run the set-up in a mode, and return its output. Raises FirewallError if it failed."""
        pid, said = self._begin(mode)
        if status := os.waitpid(pid, 0)[1]:
            raise FirewallError(said or f"the set-up ended with {status}")
        return said

    def _begin(self, mode: str) -> tuple[int, str]:
        """Start the set-up. Return its process id, and its output when it has ended or become the helper."""
        module = "server.policy_reader" if mode in ("start", "reload") else "root.setup"
        ends = [self.control.fileno(), self._theirs.fileno()]
        words = privileges.program(module, mode, *self._words, *map(str, ends))
        said, out = os.pipe()
        for fd in ends:
            if fd >= 0:
                os.set_inheritable(fd, True)
        to_us = [(os.POSIX_SPAWN_DUP2, out, 1)]
        pid = os.posix_spawn(sys.executable, words, os.environ, file_actions=to_us)
        os.close(out)
        with open(said) as printed:
            return pid, printed.read()


def main() -> None:
    """Run the watch. Arguments: path of the configuration, the daemon's state directory, seconds of a trial."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the end of the pair stops it
    # The daemon blocked them until here. A child inherits the mask: with SIGALRM in it, iptables' --wait has no end.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    daemon, (config, state, trial) = socket.socket(fileno=DAEMON), sys.argv[1:]
    try:
        privileges.no_core()
        privileges.no_more()
        privileges.keep(_START)
        with namespace_lock.held(state):
            changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETFILTER)
            changes.bind((0, _NFTABLES_GROUP))
            setup = SetUp(config, trial)
            helper = setup.start()
            privileges.keep(_STAY)
            look_after(daemon, setup, changes)
            status = os.waitpid(helper, 0)[1]
            try:
                setup.run("remove")
            except FirewallError as error:  # the daemon has closed its end: nobody reads what is said there
                sys.exit(f"knockknock: not all could be taken out of the firewall: {error}")
    except (KnockError, OSError) as error:
        say(daemon, FAILED, str(error))
        status = 1
    sys.exit(bool(status))


def look_after(daemon: socket.socket, setup: SetUp, changes: socket.socket) -> None:
    """Heal, and have the policy read again when the helper asks for it, until the helper has gone. Raises OSError."""
    pace, said, everything, poll = Pace(), "", False, select.poll()
    legacy = legacy_commands()
    for fd in (setup.control.fileno(), changes.fileno(), legacy):
        poll.register(fd, select.POLLIN)
    while True:
        wait = None if pace.due == math.inf else max(0, math.ceil((pace.due - time.monotonic()) * 1000))
        ready = {fd for fd, _ in poll.poll(wait)}
        found = list(announced(changes)) if changes.fileno() in ready else []
        if legacy in ready:
            os.read(legacy, 1 << 16)
            found.append("others")
        if found:
            everything = everything or "others" in found
            # A replaced table is back within the same transaction, so the last announcement counts.
            pace.changed(time.monotonic(), [one for one in found if one in ("gone", "there")][-1:] == ["gone"])
        if setup.control.fileno() in ready:
            if not setup.asked():
                return
            mode, failure = "reload", FAILED
        elif time.monotonic() >= pace.due:
            mode, failure = "heal" if everything else "heal ours", NOTICE
        else:
            continue
        began, text, everything = time.monotonic(), "", False
        try:
            text = setup.run(mode)
        except FirewallError as error:
            if failure == FAILED:
                say(daemon, FAILED, str(error))
            else:
                text = f"after a change of the firewall's rules: {error}; tried again when they change again"
        pace.looked(began, time.monotonic(), bool(text))
        said, before = text, said
        if text not in ("", before):  # no text twice in a row
            say(daemon, NOTICE, text)


def say(daemon: socket.socket, kind: bytes, text: str) -> None:
    """Send text to the daemon, unless it is gone or the socket is full: the watch must never wait for it."""
    with contextlib.suppress(OSError):
        daemon.send(kind + text.encode()[:LONGEST_REASON], socket.MSG_DONTWAIT)


def announced(changes: socket.socket) -> Iterator[str]:
    """Yield the kernel's announcements: a change of "ours" or "others"; our table is "gone", or is "there" now."""
    while True:
        try:
            data = changes.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            yield "others"  # ENOBUFS: announcements were lost
            continue
        yield from filter(None, map(meaning, messages(data)))


def messages(data: bytes) -> Iterator[bytes]:
    """Yield the messages in a datagram (netlink(7))."""
    while len(data) >= 16:
        length = int.from_bytes(data[:4], sys.byteorder)
        yield data[:length]
        data = data[max(16, (length + 3) & ~3) :]


def meaning(message: bytes) -> str:
    """Return the announcement in a message, as in announced(), or "" for none.

    Elements of sets do not count: they come and go with every knock, and with every ban of others. The name of the
    table is the first attribute of each object.
    """
    kind = int.from_bytes(message[4:6], sys.byteorder)
    if kind >> 8 != _NFTABLES or kind & 0xFF in (_NEW_ELEMENT, _DELETE_ELEMENT, _NEW_GENERATION):
        return ""
    if message[16:17] != bytes([INET]) or not message[24:].startswith(_OURS):
        return "others"
    return {_DELETE_TABLE: "gone", _NEW_TABLE: "there"}.get(kind & 0xFF, "ours")


def legacy_commands() -> int:
    """Return an inotify descriptor that is readable after each legacy iptables command. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    os.close(os.open(namespace_lock.XTABLES, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    fd = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if fd < 0 or libc.inotify_add_watch(fd, namespace_lock.XTABLES.encode(), _IN_CLOSE) < 0:
        raise OSError(ctypes.get_errno(), namespace_lock.XTABLES)
    return fd
