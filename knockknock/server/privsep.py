"""Privilege separation: starts the processes that keep rights of root, gives up root for good, and proves it."""

import contextlib
import ctypes
import os
import pwd
import resource
import select
import socket
import subprocess
from collections.abc import Callable, Iterator

from ..errors import FirewallError, GrantError, KnockError, PrivilegeError
from ..root import privileges
from ..root.record import (
    DONE,
    EXPECTED,
    FAILED,
    MOST_DOORS,
    NOTICE,
    PLACED,
    RECORD,
    SURVEYED,
    VALUES,
    Grant,
    Order,
    pack,
    unpack,
)
from . import signals

LONGEST = 1 + 4 + MOST_DOORS * RECORD.size
"""Bytes of the root helper's longest answer."""
PRIORITY = -10
"""Nice value of the daemon and what it starts: in a flood both must run before the kernel's ring buffer overflows, in
5 ms."""
WAIT = 0.001
"""Seconds between calls of `meanwhile` while the helper is at work."""
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
"""include/uapi/asm-generic/mman.h"""


class Helper:
    """The daemon's end of the socket pair to the root helper."""

    def __init__(self, config_path: str, state: str, quiet: bool, trial: int = 0) -> None:
        """Start root.watch, which starts the helper, and wait until it answers. Raises FirewallError, PrivilegeError.

        config_path: the file that the policy is made from. state: the state directory, which identifies the daemon.
        quiet: give them no standard error. trial: seconds after which the gate stops refusing by itself, 0: never.
        `summary` is then the answer, about the firewall as it was prepared.
        """
        self._pair, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._notices: list[str] = []
        self._late: list[tuple[str, str]] = []
        """Chains that may refuse what a door lets in: "any" or PROTOCOL/PORT, and the chain."""
        self.placed = False
        """True if the table is new and holds no expected values; the daemon resets it when it lists them again."""
        self.meanwhile: Callable[[], None] = lambda: None
        """A function to call every WAIT seconds while the helper is at work, until its next message."""
        with theirs, signals.held():
            self._process = subprocess.Popen(
                privileges.program("root.watch", config_path, os.path.realpath(state), str(trial)),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL if quiet else None,
                cwd="/",
            )
        try:
            self.summary = self._answer().decode(errors="replace")
        except KnockError:
            self.stop()
            raise

    def fileno(self) -> int:
        """Return the descriptor, readable when the helper has a notice, or has gone."""
        return self._pair.fileno()

    def notices(self, more: bool) -> list[str]:
        """Return the notices since the last call; more: first receive a message. Raises PrivilegeError."""
        if more:
            self._note(self._receive())
        told, self._notices = self._notices, []
        return told

    def obey(self, order: Grant) -> str:
        """Send one record. Return the chains that may still refuse what it lets in, as text.

        Raises GrantError for an invalid record, FirewallError if it is refused, PrivilegeError if the helper is gone.
        """
        self._ask(order)
        where = ("any", f"{order.protocol}/{order.port}") if order.seconds else ()
        return ", ".join(text for one, text in self._late if one in where)

    def expect(self, name: str, come: list[bytes], go: list[bytes]) -> None:
        """Add and delete values of a set of record.EXPECTED, in one message. Raises FirewallError, PrivilegeError."""
        ((number, _),) = [(number, one) for number, (one, _) in EXPECTED.items() if one == name]
        self._send(VALUES.pack(number, len(come)) + b"".join((*come, *go)))

    def doors(self, address: bytes) -> tuple[int, list[Grant]]:
        """Return the number of doors open for an address (b"": for all), and the first. Raises as obey() does."""
        return unpack_doors(self._ask(Grant(Order.STATUS, address, 0, 0, 0)))

    def logged(self) -> tuple[int, int]:
        """Return the packets that our rules logged, and passed over, since they were placed. Raises as obey() does."""
        return unpack_counts(self._ask(Grant(Order.LOGGED, b"", 0, 0, 0)))

    def _ask(self, order: Grant) -> bytes:
        record = pack(order)
        unpack(record)  # an invalid record would end the helper
        return self._send(record)

    def _send(self, message: bytes) -> bytes:
        try:
            self._pair.send(message)
        except OSError:
            raise PrivilegeError("the root helper is gone") from None
        return self._answer()

    def _receive(self) -> bytes:
        try:
            message = self._pair.recv(LONGEST)
        except OSError:
            message = b""
        if not message:
            raise PrivilegeError("the root helper is gone")
        return message

    def _answer(self) -> bytes:
        while True:
            while not select.select([self._pair], [], [], WAIT)[0]:
                self.meanwhile()
            if (answer := self._receive())[:1] not in (NOTICE, SURVEYED, PLACED):
                break
            self._note(answer)
        if not answer.startswith(DONE):
            raise FirewallError(answer[1:].decode(errors="replace"))
        return answer[1:]

    def _note(self, message: bytes) -> None:
        """Store an unsolicited message."""
        kind, text = message[:1], message[1:].decode(errors="replace")
        if kind in (NOTICE, FAILED):  # the watch ends by the latter
            self._notices.append(text)
        else:
            self._late = [(where, chain) for where, _, chain in (line.partition(" ") for line in text.splitlines())]
            self.placed = self.placed or kind == PLACED

    def stop(self) -> None:
        """Close the pair, and wait until root.watch has removed what was placed."""
        self._pair.close()
        self._process.wait()


def unpack_counts(answer: bytes) -> tuple[int, int]:
    """Return the numbers of packets logged and passed over, from the answer to LOGGED. Raises GrantError."""
    if len(answer) != 16:
        raise GrantError(f"{len(answer)} bytes are not two numbers")
    return int.from_bytes(answer[:8], "big"), int.from_bytes(answer[8:], "big")


def unpack_doors(answer: bytes) -> tuple[int, list[Grant]]:
    """Return the number of open doors and the doors listed, from a pack_doors() answer. Raises GrantError."""
    number, records = int.from_bytes(answer[:4], "big"), answer[4:]
    doors = [unpack(records[at : at + RECORD.size], listed=True) for at in range(0, len(records), RECORD.size)]
    if len(answer) < 4 or len(doors) != min(number, MOST_DOORS):
        raise GrantError(f"{len(answer)} bytes do not list {number} doors")
    if not all(door.order in (Order.OPEN_ONCE, Order.OPEN) and door.address for door in doors):
        raise GrantError("the answer to STATUS lists a record that is not an open door")
    return number, doors


def prefer() -> None:
    """Raise the priority of this process and those that it starts, if permitted (under systemd the unit does)."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)


def find_user(name: str) -> pwd.struct_passwd:
    """Return the account that the daemon becomes. Raises PrivilegeError."""
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise PrivilegeError(
            f"there is no user {name} for the daemon to become: "
            f"useradd --system --user-group --home-dir /nonexistent --shell /usr/sbin/nologin {name}"
        ) from None
    if user.pw_uid == 0 or user.pw_gid == 0:
        raise PrivilegeError(f"the user {name} is root: take another with user =")
    return user


def lock_memory() -> str:
    """Keep the memory of this process, now and later, out of swap. Return "", or the reason why not, in a sentence.

    Needs root. Memory is locked only if there is no limit: with one, a later request for memory would fail.
    """
    endless = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    try:
        if resource.getrlimit(resource.RLIMIT_MEMLOCK) != endless:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, endless)
    except (OSError, ValueError):
        return "keys may be swapped to disk, because locked memory is limited: start it with ulimit -l unlimited"
    # On fault: pages that are never used take no memory.
    if ctypes.CDLL(None, use_errno=True).mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
        return f"keys may be swapped to disk: mlockall failed: {os.strerror(ctypes.get_errno())}"
    return ""


@contextlib.contextmanager
def acting_as(user: pwd.struct_passwd) -> Iterator[None]:
    """Run the body with the effective ids of another user, for its access to files; then be root again."""
    os.setegid(user.pw_gid)
    os.seteuid(user.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def could_open(user: pwd.struct_passwd, groups: list[int], path: str) -> bool:
    """Return True if a user with these supplementary groups could open a file made at a path, or if we are not root.

    A child process tries it as that user.
    """
    if os.geteuid():
        return True
    if child := os.fork():
        return os.waitpid(child, 0)[1] == 0
    try:
        os.setgroups(groups)
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
        os._exit(0 if os.access(os.path.dirname(os.path.realpath(path)), os.X_OK) else 1)
    finally:
        os._exit(1)


def drop(uid: int, gid: int, groups: list[int]) -> None:
    """Become a user for good: all ids, exactly these supplementary groups, no new privileges. Raises PrivilegeError."""
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    stay(uid, gid, groups)


def stay(uid: int, gid: int, groups: list[int]) -> None:
    """Remain this user for good: without capabilities, and with no way to gain any. Raises PrivilegeError."""
    privileges.hold(())
    privileges.no_more()
    privileges.no_core()
    _prove(uid, gid, groups)


def _prove(uid: int, gid: int, groups: list[int]) -> None:
    """Check ids and capabilities as the kernel has them, and try to regain root. Raises PrivilegeError."""
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3 or sorted(os.getgroups()) != sorted(groups):
        raise PrivilegeError("the ids of the user to become were not taken")
    for regain in (os.setuid, os.seteuid, os.setgid, os.setegid):
        try:
            regain(0)
        except PermissionError:
            continue
        raise PrivilegeError("root could be had back after it was given up")
    with open("/proc/self/status") as file:
        status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    if (
        any(int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"))
        or status["NoNewPrivs"].strip() != "1"
    ):
        raise PrivilegeError("capabilities are left after root was given up")
