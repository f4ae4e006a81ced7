"""seccomp filters by libseccomp's Python binding, for the daemon and the resident helper."""

import contextlib
import errno
import mmap
import os
from collections.abc import Collection
from importlib import import_module
from typing import Any

from ..errors import PrivilegeError
from . import DAEMON, KERNEL, ROOT

WORD = 0xFFFFFFFF
"""Mask of the half of a 64-bit argument that the kernel reads as an int; the upper half may be anything."""
_FREE = (
    "select pselect6 poll ppoll brk munmap mremap madvise futex rt_sigreturn restart_syscall clock_gettime "
    "gettimeofday getrandom exit exit_group"
)
"""System calls that the helper may make with any arguments: to wait, for memory and time, and to end."""


def binding() -> Any:
    """Return libseccomp's own Python binding, or pyseccomp, which has the same functions. Raises PrivilegeError."""
    for name in ("seccomp", "pyseccomp"):
        try:
            return import_module(name)
        except (ImportError, RuntimeError):
            continue  # pyseccomp raises RuntimeError where the library itself is missing
    raise PrivilegeError(
        "there is no Python binding of libseccomp: apt install python3-seccomp, or pip install pyseccomp and libseccomp"
    )


class Rules:
    """System calls that are allowed; all others are answered with "no such system call".

    "Not permitted" would not do: a C library falls back from a newer call to an older one only if that is missing.
    """

    def __init__(self) -> None:
        """Begin with no call allowed. Raises PrivilegeError if there is no binding."""
        self._binding = binding()
        self.filter = self._binding.SyscallFilter(self._binding.ERRNO(errno.ENOSYS))

    def allow(self, names: Collection[str], *conditions: Any) -> None:
        """Allow system calls if all conditions on their arguments hold."""
        for name in names:
            # A libseccomp older than the call does not know it: it stays refused.
            with contextlib.suppress(OSError, RuntimeError, ValueError):
                self.filter.add_rule(self._binding.ALLOW, name, *conditions)

    def is_int(self, argument: int, value: int) -> Any:
        """Return the condition that an argument, which the kernel reads as an int, has a value."""
        return self.masked(argument, WORD, value)

    def masked(self, argument: int, mask: int, value: int) -> Any:
        """Return the condition that some bits of an argument have a value."""
        return self._binding.Arg(argument, self._binding.MASKED_EQ, mask, value)

    def memory(self) -> None:
        """Allow mapping and protecting memory, but never as executable."""
        self.allow(["mmap", "mprotect"], self.masked(2, mmap.PROT_EXEC, 0))

    def to_nobody_else(self) -> Any:
        """Return the condition that sendto has no address, so that only the socket's other end receives."""
        return self._binding.Arg(4, self._binding.EQ, 0)


def helper() -> bytes:
    """Return the BPF program that confines the helper to its three sockets; b"" if there is no binding."""
    try:
        rules = Rules()
    except PrivilegeError:
        return b""  # the daemon needs the binding, too, and reports it
    rules.allow(_FREE.split(" "))
    rules.memory()
    for fd in (DAEMON, ROOT, KERNEL):
        rules.allow(["recvfrom"], rules.is_int(0, fd))
        rules.allow(["sendto"], rules.is_int(0, fd), rules.to_nobody_else())
    rules.allow(["write"], rules.is_int(0, 2))
    with open(os.memfd_create("rules"), "w+b") as file:
        rules.filter.export_bpf(file)
        file.seek(0)
        return file.read()
