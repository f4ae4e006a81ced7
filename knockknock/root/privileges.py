"""What a process may keep of root: capabilities, and no way to more of them (capabilities(7), prctl(2))."""

import ctypes
import errno
import os
import resource
import struct
from collections.abc import Collection

from ..errors import PrivilegeError

SETPCAP, NET_ADMIN, NET_RAW = 8, 12, 13
"""Capabilities (include/uapi/linux/capability.h)."""

# include/uapi/linux/prctl.h, capability.h
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 24, 38
_VERSION_3 = 0x20080522


def keep(capabilities: Collection[int]) -> None:
    """Give up every other capability, for this process and all that it executes. Raises PrivilegeError.

    Takes CAP_SETPCAP, which may be among those that are given up.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for number in sorted(set(range(64)) - set(capabilities), key=SETPCAP.__eq__):  # itself last: it is needed for this
        if libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) and ctypes.get_errno() != errno.EINVAL:
            raise PrivilegeError("capabilities cannot be given up without CAP_SETPCAP: add it to the bounding set")
    hold(capabilities)


def hold(capabilities: Collection[int]) -> None:
    """Give up every other capability that this process has, which takes none; see no_more(). Raises PrivilegeError."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, held = struct.pack("=Ii", _VERSION_3, 0), ctypes.create_string_buffer(24)
    libc.capget(header, held)
    _, low, _, _, high, _ = struct.unpack("=6I", held.raw)  # effective, permitted, inheritable, and their upper halves
    mask = sum(1 << number for number in capabilities)
    low, high = low & mask, high & mask >> 32
    # The ambient set follows the permitted one.
    if libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)):
        raise PrivilegeError(f"capabilities cannot be given up: {os.strerror(ctypes.get_errno())}")


def no_more() -> None:
    """From here on nothing that is executed gains anything by being setuid or having capabilities of its own."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def no_core() -> None:
    """No core file of this process, and no tracing of it by its own user, so that what is in memory stays there."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl(_PR_SET_DUMPABLE, 0)


def prctl(option: int, value: int) -> None:
    """prctl(2) with one argument. Raises PrivilegeError."""
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise PrivilegeError(f"prctl({option}) failed: {os.strerror(ctypes.get_errno())}")
