"""Locks the commands of root that change profiles against each other, by a file that nobody else can open.

A lock on the directory or the database itself could be taken, and kept, by whoever may read it: by the daemon's user.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from . import running, store
from .errors import ProfileError

PATIENCE = 30.0
"""Seconds to wait for another command, which may wait for a daemon's reload itself."""
_NAP = 0.02


@contextlib.contextmanager
def held(profiles: str) -> Iterator[None]:
    """Be the only one that changes a directory or a database of profiles. Raises ProfileError, OSError."""
    above, name = os.path.split(profiles)
    path = f"{above}/.{name}.lock" if store.is_database(profiles) else f"{profiles}/.lock"
    end = time.monotonic() + PATIENCE
    while True:
        fd = _opened(path)
        try:
            _wait(fd, path, end)
            if _current(fd, path):
                try:
                    yield
                finally:
                    os.unlink(path)
                return
        finally:
            os.close(fd)


def _opened(path: str) -> int:
    """The file, made if need be; one that others may open is replaced."""
    while True:
        with contextlib.suppress(FileExistsError), store.exact_modes():
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            if not os.fstat(fd).st_mode & 0o077:
                return fd
            os.close(fd)
            os.unlink(path)


def _wait(fd: int, path: str, end: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                holder = running.holder(fd)
                raise ProfileError(
                    f"another command{f' (process {holder})' if holder else ''} holds {path} and does not end: end it"
                ) from None
            time.sleep(_NAP)


def _current(fd: int, path: str) -> bool:
    """Return whether a file still has its name, and was not removed and made anew."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False
