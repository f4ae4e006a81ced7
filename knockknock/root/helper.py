"""The resident helper: has the kernel carry out the daemon's records, within limits, and list expected values.

The set-up executes it when all is in place, as a user with no rights but CAP_NET_ADMIN, with the pair to the daemon,
the pair to root.watch, a socket to the kernel's nf_tables, and Landlock rules. It locks itself in before it reads a
record. With Landlock and seccomp it then has no file but standard error, can execute nothing and make no socket. Its
limits come from root's side alone. A message that is no record ends it, because only an intruder sends one. A record
beyond the limits is refused with an answer, because a packet can make the daemon ask for it.
"""

import contextlib
import ctypes
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator

from ..errors import GrantError, KnockError
from . import DAEMON, KERNEL, LANDLOCK, NAME, ROOT, SLOTS, record_limits, sets
from .netlink import Change, Kernel, add, delete, taken
from .record import DONE, EXPECTED, FAILED, LONGEST_REASON, RELOAD, VALUES, Grant, Order, pack_doors, unpack

_SECCOMP, _FILTER, _RESTRICT_SELF, _VERSION_3, _NET_ADMIN = 22, 2, 446, 0x20080522, 1 << 12
"""PR_SET_SECCOMP, SECCOMP_MODE_FILTER (include/uapi/linux/prctl.h, seccomp.h); landlock_restrict_self; capset(2)."""
_LAST = [(0, 0.0)] * 4096
"""By a hash of the door: the set for one connection that it was last put into, by its index in sets(), in turn; and the
time on the monotonic clock when all its elements are gone."""


def confine(walls: bytes) -> None:
    """Keep CAP_NET_ADMIN, three sockets and standard error, and nothing else. Raises OSError.

    walls: one byte, 0 if there are no Landlock rules; then the seccomp program, if there is one.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.capset(struct.pack("=Ii", _VERSION_3, 0), struct.pack("=6I", _NET_ADMIN, _NET_ADMIN, 0, 0, 0, 0))
    rules = ctypes.create_string_buffer(walls[1:])
    program = struct.pack("@HP", len(walls) // 8, ctypes.addressof(rules))  # struct sock_fprog
    failed |= walls[0] and libc.syscall(ctypes.c_long(_RESTRICT_SELF), LANDLOCK, 0)
    os.close(LANDLOCK)
    if failed or (walls[1:] and libc.prctl(_SECCOMP, _FILTER, program)):
        raise OSError(ctypes.get_errno(), "it cannot be locked in")


def changes(grant: Grant, held: record_limits.Limits) -> list[Change]:
    """Return the changes for a door, or for a source to block, as one transaction.

    An element that may be there is deleted first, because adding it again does not prolong its time. To delete one that
    cannot be there would cost the client 0.1 ms.
    """
    order, address, protocol, port, seconds = grant
    family, host = (4, 0) if len(address) == 4 else (6, 128 - held.prefix)
    source = (int.from_bytes(address, "big") >> host << host).to_bytes(len(address), "big")
    key = address + struct.pack("!B3xH2x", protocol, port)  # each padded to registers of 4 bytes, as nft does
    if order is Order.BLOCK:
        return [*taken([f"blocked{family}"], source), add(f"blocked{family}", source, seconds=held.block)]
    if order is Order.CLOSE:
        return taken(sets(family), key)
    rungs = [f"blocked{family}", *(f"rung{one}_{family}" for one in range(1, held.rungs + 1))] if held.prefix else []
    # Rules look into the set `any` first, so its element must outlast each door.
    now, at, longest = time.monotonic(), hash(key) % len(_LAST), max(run[3] for run in held.runs)
    turn, end = _LAST[at]
    _LAST[at] = (turn := turn % SLOTS + 1), max(end, now + longest + 10)  # the kernel may be slow to begin
    names = [f"any{family}", sets(family)[0 if order is Order.OPEN else turn]]
    there = taken(names, key) if now < end else []
    return [*there, add(names[0], key, seconds=longest), add(names[1], key, seconds=seconds), *taken(rungs, source)]


def expect(message: bytes) -> list[Change]:
    """Return the changes of a set of EXPECTED, as one transaction. Raises struct.error."""
    (name, size), (_, come) = EXPECTED[message[0]], VALUES.unpack_from(message)
    keys = [message[at : at + size] for at in range(VALUES.size, len(message), size)]
    return [add(name, *keys), delete(name, *keys[come:])]  # keys to delete are added first, as in taken()


def status(kernel: Kernel, address: bytes) -> Iterator[Grant]:
    """Yield the doors that are open for an address, b"": for all, with the seconds that are left, 0: for ever."""
    for size, name in [(4, name) for name in sets(4)] + [(16, name) for name in sets(6)]:
        for key, left in kernel.elements(name):
            order = Order.OPEN if name in (sets(4)[0], sets(6)[0]) else Order.OPEN_ONCE
            if address in (b"", key[:size]):
                yield Grant._make([order, key[:size], *struct.unpack_from("!B3xH", key, size), left])


def obey(kernel: Kernel, asked: Grant | list[Change], held: record_limits.Limits, opened: deque[float]) -> bytes:
    """Do what the limits allow, and return what follows DONE in the answer. Raises KnockError, OSError."""
    if isinstance(asked, list):
        kernel.change(*asked)
    elif asked.order is Order.STATUS:
        return pack_doors(list(status(kernel, asked.address)))
    elif asked.order is Order.LOGGED:
        return b"".join(kernel.packets(NAME, name).to_bytes(8, "big") for name in ("told", "passed"))
    else:
        held.check(asked)
        if asked.seconds:
            record_limits.admit(opened, held.doors_per_minute, time.monotonic())
        wanted = changes(asked, held)
        try:
            kernel.change(*wanted)
        except FileNotFoundError:  # a connection has just used the door up
            kernel.change(*wanted)
    return b""


def serve(daemon: socket.socket, root: socket.socket, kernel: Kernel) -> None:
    """Obey records until a side has gone. Raises GrantError or struct.error for what is no record, OSError."""
    opened, ready = deque[float](), [root]  # first the limits
    while message := ready[0].recv(record_limits.MOST if root in ready else record_limits.LONGEST):
        if root in ready:
            held = record_limits.unpack(message)
            say(daemon, held.answer)
        elif (asked := expect(message) if message[0] in EXPECTED else unpack(message)) == RELOAD:
            say(root, b"reload")
        else:
            try:
                say(daemon, DONE + obey(kernel, asked, held, opened))
            except KnockError as error:
                say(daemon, FAILED + str(error).encode()[:LONGEST_REASON])
            except OSError as error:
                say(daemon, FAILED + f"nftables refused: {error.strerror}".encode())
        ready = select.select([root, daemon], [], [])[0]


def say(side: socket.socket, message: bytes) -> None:
    """Send a message, unless it is empty or the socket is full: a side that does not read must not block the helper."""
    with contextlib.suppress(BlockingIOError):
        side.send(message, socket.MSG_DONTWAIT) if message else 0


def main() -> None:
    """Lock this process in, and serve."""
    daemon, root, kernel = socket.socket(fileno=DAEMON), socket.socket(fileno=ROOT), Kernel(KERNEL)
    try:
        confine(root.recv(record_limits.MOST))
        serve(daemon, root, kernel)
    except (GrantError, OSError, struct.error) as error:
        sys.exit(f"knockknock: the root helper stops: {error}")
