"""Drops capabilities and every way to gain them again (capabilities(7), prctl(2))."""

import ctypes
import errno
import os
import resource
import struct
import sys
from collections.abc import Collection

from ..errors import PrivilegeError

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""The folder that our package is in."""
DAC_OVERRIDE, SETGID, SETUID, SETPCAP, NET_ADMIN, NET_RAW = 1, 6, 7, 8, 12, 13
"""Capabilities (include/uapi/linux/capability.h)."""

# include/uapi/linux/prctl.h, capability.h
_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 8, 24, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_VERSION_3 = 0x20080522


def program(module: str, *arguments: str, package: str = _PACKAGE) -> list[str]:
    """Return the command that runs main() of one of our modules, whatever the environment says (python -I).

    module: its name below the package. package: the folder that the package is in.
    """
    code = f"import sys; sys.path[:0] = [sys.argv.pop(1)]; from knockknock.{module} import main; main()"
    return [sys.executable, "-I", "-c", code, package, *arguments]


def keep(capabilities: Collection[int]) -> None:
    """Give up all capabilities but these, for this process and all that it executes. Raises PrivilegeError.

    Needs CAP_SETPCAP, which may be among those that are given up.
    """
    _bound(capabilities)
    hold(capabilities)


def become(uid: int, gid: int, capability: int, *until_executed: int) -> None:
    """Become a user with one capability and no way to more, for good, also in what is executed. Raises PrivilegeError.

    until_executed: more capabilities, kept where held, that the executed program is to give up. Needs CAP_SETPCAP,
    CAP_SETUID and CAP_SETGID.
    """
    prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    held = hold([capability, *until_executed, SETPCAP], executed=True)
    for number in (capability, *until_executed):
        if held & 1 << number:
            prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)
    _bound([capability])  # last, as only bounding capabilities can be made inheritable
    hold([capability, *until_executed], executed=True)


def _bound(capabilities: Collection[int]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for number in sorted(set(range(64)) - set(capabilities), key=SETPCAP.__eq__):  # SETPCAP last: the others need it
        if libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) and ctypes.get_errno() != errno.EINVAL:
            raise PrivilegeError("capabilities cannot be given up without CAP_SETPCAP: add it to the bounding set")


def hold(capabilities: Collection[int], executed: bool = False) -> int:
    """Give up all capabilities of this process but these, and return the mask of those left. Needs none; see no_more().

    executed: make them inheritable. Raises PrivilegeError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header, held = struct.pack("=Ii", _VERSION_3, 0), ctypes.create_string_buffer(24)
    libc.capget(header, held)
    _, low, _, _, high, _ = struct.unpack("=6I", held.raw)  # effective, permitted, inheritable, and their upper halves
    mask = sum(1 << number for number in capabilities)
    low, high = low & mask, high & mask >> 32
    # The ambient set follows the permitted and the inheritable one.
    both = (low, high) if executed else (0, 0)
    if libc.capset(header, struct.pack("=6I", low, low, both[0], high, high, both[1])):
        raise PrivilegeError(f"capabilities cannot be given up: {os.strerror(ctypes.get_errno())}")
    return int(high << 32 | low)


def no_more() -> None:
    """Set no_new_privs: no program executed later gains rights by being setuid or having capabilities."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def no_core() -> None:
    """Allow no core file of this process, and no tracing by its own user, so that its memory stays secret."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl(_PR_SET_DUMPABLE, 0)


def prctl(option: int, value: int, more: int = 0) -> None:
    """Call prctl(2) with one argument or two. Raises PrivilegeError."""
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, more, 0, 0):
        raise PrivilegeError(f"prctl({option}) failed: {os.strerror(ctypes.get_errno())}")
