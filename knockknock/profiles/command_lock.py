"""Serialises root's commands that change profiles, with a lock file that only root can open.

A process that may read the directory or the database, such as the daemon, could take a lock on it and keep it.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from ..errors import ProfileError
from . import files
from .lock_holder import holder

PATIENCE = 30.0
"""Seconds to wait for another command, which may wait for a daemon's reload itself."""
_NAP = 0.02


@contextlib.contextmanager
def held(profiles: str) -> Iterator[None]:
    """Hold the lock on a directory or a database of profiles while the body runs. Raises ProfileError, OSError."""
    above, name = os.path.split(profiles)
    path = f"{above}/.{name}.lock" if files.is_database(profiles) else f"{profiles}/.lock"
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
    """Return the open file, made if it is missing, and replaced if others may open it."""
    while True:
        with contextlib.suppress(FileExistsError), files.exact_modes():
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
                pid = holder(fd)
                raise ProfileError(
                    f"another command{f' (process {pid})' if pid else ''} holds {path} and does not end: end it"
                ) from None
            time.sleep(_NAP)


def _current(fd: int, path: str) -> bool:
    """Return False if a file was removed, or made anew, since it was opened."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False
