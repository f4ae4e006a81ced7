"""Revokes a process's right to open files, whatever their permissions (Landlock).

Three system calls of Linux 5.13 and later, which glibc has no functions for (Documentation/userspace-api/landlock.rst,
include/uapi/linux/landlock.h). Their numbers are the same on all architectures but alpha.
"""

import ctypes
import os
import struct

from ..errors import PrivilegeError

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_ASK_VERSION, _PATH_BENEATH = 1, 1

WRITE_FILE, READ_FILE, READ_DIR, REMOVE_FILE, MAKE_REG, TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 8, 1 << 14
READ = READ_FILE | READ_DIR
KEEP = READ | WRITE_FILE | REMOVE_FILE | MAKE_REG | TRUNCATE
"""The rights to replace whole files in a directory."""

_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""The number of file rights, by the Landlock version that added the last of them."""
_TCP_BIND_AND_CONNECT, _TCP_SINCE = 0b11, 4
_ABSTRACT_SOCKETS_AND_SIGNALS, _SCOPES_SINCE = 0b11, 6


def version() -> int:
    """Return the version of the kernel's Landlock; 0 if it has none, or has it switched off."""
    return max(0, _call(_CREATE, None, 0, _ASK_VERSION))


class Ruleset:
    """The allowed rights; after restrict() the kernel refuses all others that its Landlock knows."""

    def __init__(self, version: int) -> None:
        """version: of Landlock, at least 1. Raises PrivilegeError."""
        self._handled = (1 << max(count for since, count in _FILE_RIGHTS.items() if since <= version)) - 1
        tcp = _TCP_BIND_AND_CONNECT if version >= _TCP_SINCE else 0
        scopes = _ABSTRACT_SOCKETS_AND_SIGNALS if version >= _SCOPES_SINCE else 0
        attributes = struct.pack("=QQQ", self._handled, tcp, scopes)  # older kernels accept zeros at the end
        self.fd = _checked("made", _CREATE, attributes, len(attributes), 0)

    def allow(self, directory: str, rights: int) -> None:
        """Allow rights in a directory and all below it. Raises PrivilegeError."""
        try:
            beneath = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise PrivilegeError(f"Landlock: {directory} cannot be opened: {error.strerror}") from None
        try:
            rule = struct.pack("=Qi", rights & self._handled, beneath)
            _checked("added to", _ADD_RULE, self.fd, _PATH_BENEATH, rule, 0)
        finally:
            os.close(beneath)

    def restrict(self) -> None:
        """Restrict this thread, and what it starts, for good; needs no_new_privs. Raises PrivilegeError."""
        _checked("enforced", _RESTRICT, self.fd, 0)
        os.close(self.fd)


def _checked(what: str, *arguments: int | bytes | None) -> int:
    result = _call(*arguments)
    if result < 0:
        raise PrivilegeError(f"Landlock rules could not be {what}: {os.strerror(ctypes.get_errno())}")
    return result


def _call(*arguments: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return int(libc.syscall(*(ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)))
