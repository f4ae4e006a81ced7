"""Confines the listening daemon to its job, with Landlock and seccomp.

Each is optional: Landlock limits the files, seccomp the system calls. prepare() loads all as root, because the daemon's
user may not be able to read this Python; the function that it returns puts the sandbox in force, once the loop can
begin.
"""

import logging
import os
from collections.abc import Callable, Iterable
from functools import partial

from .. import schemes
from ..core.profile import Settings
from ..errors import PrivilegeError
from ..root import landlock, seccomp

log = logging.getLogger("knockknock")

_FREE = (
    "read readv pread64 write writev pwrite64 lseek close fsync fdatasync ftruncate fallocate open openat access "
    "faccessat faccessat2 stat lstat fstat newfstatat statx statfs fstatfs getdents64 readlink readlinkat getcwd "
    "umask rename renameat renameat2 unlink unlinkat flock inotify_add_watch inotify_rm_watch epoll_wait epoll_pwait "
    "epoll_pwait2 epoll_ctl poll ppoll select pselect6 recvfrom recvmsg recvmmsg getsockopt getsockname brk munmap "
    "mremap madvise futex futex_waitv sched_yield membarrier rseq set_robust_list getrandom rt_sigaction "
    "rt_sigprocmask rt_sigreturn sigaltstack restart_syscall clock_gettime clock_getres clock_nanosleep nanosleep "
    "gettimeofday time getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups getrlimit "
    "uname sysinfo getrusage wait4 waitid exit exit_group"
)
"""System calls that are allowed with any arguments; Landlock, the user's permissions and open descriptors limit what
they reach. Refused, as not listed: to make a process, thread, socket, io_uring or namespace, to execute, connect,
accept, trace, signal, mount, change ids, modes, owners or limits, or pass on a descriptor (sendmsg)."""

_FIONREAD, _FIONBIO, _FIOCLEX, _TCGETS = 0x541B, 0x5421, 0x5451, 0x5401
"""include/uapi/asm-generic/ioctls.h; TCGETS only tells whether a descriptor is a terminal."""
_F_GETFD, _F_SETFD, _F_GETFL, _F_GETLK, _F_SETLK, _F_SETLKW = 1, 2, 3, 5, 6, 7
"""include/uapi/asm-generic/fcntl.h. Without F_SETOWN, which sends signals, and F_SETFL, which switches them on."""

Enter = Callable[[], None]


def prepare(
    mode: str, reads: Iterable[str], writes: Iterable[str], syslog: int | None, listener: int | None = None
) -> Enter:
    """Return the function that puts the sandbox in force. Raises PrivilegeError if it is required and incomplete.

    mode: `auto` (missing parts are logged), `required` or `off`. reads: the files and directories that are read
    after the start; of a file its directory, because it may be replaced. writes: the directories that are written to.
    syslog: the descriptor of the socket to the syslog daemon, to connect again after a restart of that daemon.
    listener: the descriptor of the one socket that accepts connections.
    """
    for scheme in schemes.SCHEMES:  # a reload may need each, and can import nothing
        schemes.new_listener(scheme, Settings(1, 1, True), 0)
    if mode == "off":
        log.warning("sandbox = off: an intruder in this process can do all that its user can")
        return lambda: None
    steps: list[Enter] = []
    for make in (partial(_landlock, reads, writes), partial(_seccomp, syslog, listener)):
        try:
            steps.append(make())
        except PrivilegeError as error:
            if mode == "required":
                raise PrivilegeError(f"{error}; or set sandbox = auto") from None
            log.warning("the sandbox is not whole: %s", error)

    def enter() -> None:
        for step in steps:
            step()

    return enter


def _landlock(reads: Iterable[str], writes: Iterable[str]) -> Enter:
    if not (version := landlock.version()):
        raise PrivilegeError("this kernel has no Landlock: boot one of 5.13 or later, with landlock in lsm=")
    rules = landlock.Ruleset(version)
    for directory in {_directory(path) for path in reads}:
        rules.allow(directory, landlock.READ)
    for directory in set(writes):
        rules.allow(directory, landlock.KEEP)
    return rules.restrict


def _directory(path: str) -> str:
    real = os.path.realpath(path)
    return real if os.path.isdir(real) else os.path.dirname(real)


def _seccomp(syslog: int | None, listener: int | None) -> Enter:
    rules = seccomp.Rules()
    rules.allow(_FREE.split(" "))
    rules.memory()
    rules.allow(["fchown"], rules.is_int(1, seccomp.WORD), rules.is_int(2, seccomp.WORD))  # -1: no change of owner
    rules.allow(["sendto"], rules.to_nobody_else())
    for request in (_FIONREAD, _FIONBIO, _FIOCLEX, _TCGETS):
        rules.allow(["ioctl"], rules.is_int(1, request))
    for request in (_F_GETFD, _F_SETFD, _F_GETFL, _F_GETLK, _F_SETLK, _F_SETLKW):
        rules.allow(["fcntl"], rules.is_int(1, request))
    if syslog is not None:
        rules.allow(["connect"], rules.is_int(0, syslog))
    if listener is not None:
        rules.allow(["accept4"], rules.is_int(0, listener))

    def enter() -> None:
        try:
            rules.filter.load()
        except (OSError, RuntimeError) as error:
            raise PrivilegeError(f"the kernel does not take the seccomp filter: {error}; set sandbox = off") from None

    return enter
