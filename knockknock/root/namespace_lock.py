"""Locks one file for each network namespace, so that only one daemon has the table."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from ..errors import FirewallError
from . import NAME

XTABLES = os.environ.get("XTABLES_LOCKFILE", "/run/xtables.lock")
"""The file that each legacy iptables command but -save opens, locks and closes (iptables(8), --wait)."""
LOCK = "/run/knockknock"
"""Prefix of our own lock file, before the namespace's number; the file names the holder's state directory."""


@contextlib.contextmanager
def held(state: str) -> Iterator[None]:
    """Hold the lock during the body. state: the daemon's state directory. Raises FirewallError."""
    path = f"{LOCK}-{os.stat('/proc/self/ns/net').st_ino}.lock"
    fd = _claim(path, state)
    try:
        yield
    finally:
        os.unlink(path)
        os.close(fd)


def _claim(path: str, state: str) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _current(fd, path):
            os.close(fd)
            return _claim(path, state)  # its last holder has just stopped
        os.ftruncate(fd, 0)
        os.pwrite(fd, state.encode(), 0)
    except BlockingIOError:
        other = os.pread(fd, 4096, 0).decode(errors="replace")
        raise FirewallError(
            f"another knockknock-daemon, with the state directory {other}, has the table inet {NAME}: stop it first"
        ) from None
    except OSError as error:
        raise FirewallError(f"{path} cannot be locked: {error.strerror}") from None
    return fd


def _current(fd: int, path: str) -> bool:
    """Return False if the file was removed, or made anew, since it was opened."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
