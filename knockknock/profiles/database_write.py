"""Changes a database of profiles, as root: in place, or by replacing the file while a reader has it locked."""

import contextlib
import fcntl
import os
import shutil
import stat
import struct
from collections.abc import Callable, Sequence

from .. import schemes
from ..core.profile import Profile
from ..errors import ProfileError
from . import files
from .database import SCHEMA, LockedError, opened, rows
from .text import write_config

HASTE = 3
"""Seconds to wait for a lock before the change is made in a copy."""
_LOCKED_BYTES = 0x40000000, 512
"""First byte and number of those that SQLite locks (sqlite.org/fileformat.html, "The Lock-Byte Page")."""
_FLOCK = struct.Struct("hhqqi4x")
"""struct flock of fcntl(2): type, whence, start, length, process."""


def _change(path: str, statement: str, *values: object) -> int:
    """Execute one statement, durably or not at all, and return the number of changed rows. Raises ProfileError,
    OSError.

    If a reader keeps the file locked, the change is made in a copy, which then replaces the file: the daemon's user may
    read, and must not be able to prevent a revocation. Only one process at a time may call this.
    """
    try:
        return _execute(path, statement, values)
    except LockedError:
        if _written(path):
            raise
    aside = "{}/.{}.new".format(*os.path.split(path))
    if _copy(path, aside):
        # A killed change is rolled back first: to play a journal back twice does no harm.
        _execute(aside, "SELECT 1", ())
        _replace(path, aside)
        os.unlink(f"{path}-journal")
        _copy(path, aside)
    changed = _execute(aside, statement, values)
    _replace(path, aside)
    return changed


def _execute(path: str, statement: str, values: Sequence[object]) -> int:
    with opened(path, "rw", HASTE) as connection:
        # EXTRA: the directory is synced, too, once the journal is gone from it. Deleted keys leave no trace.
        connection.executescript("PRAGMA synchronous = EXTRA; PRAGMA secure_delete = ON;")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(SCHEMA)
        changed = connection.execute(statement, values).rowcount
        connection.execute("COMMIT")
    return changed


def _written(path: str) -> bool:
    """Return True if another process holds a lock for writing, and so is changing the file."""
    with open(path, "rb") as file:
        answer = fcntl.fcntl(file, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, *_LOCKED_BYTES, 0))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _copy(path: str, aside: str) -> bool:
    """Copy a database, readable by root alone, with the journal of a killed change; return True if there is one."""
    for end in ("", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside + end)
    for end in ("", "-journal"):
        with contextlib.suppress(FileNotFoundError), open(path + end, "rb") as old, files.exact_modes():
            fd = os.open(aside + end, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as new:
                shutil.copyfileobj(old, new)
    return os.path.exists(f"{aside}-journal")


def _replace(path: str, aside: str) -> None:
    """Replace a database by a copy, durably, readable by the same people."""
    status = os.stat(path)
    with open(aside, "rb") as file:
        os.fchown(file.fileno(), status.st_uid, status.st_gid)
        os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
        os.fsync(file.fileno())
    os.rename(aside, path)
    with files.directory_fd(os.path.dirname(path)) as fd:
        os.fsync(fd)


def remove(path: str, name: str) -> bool:
    """Delete a row, and return whether there was one. Raises ProfileError, OSError."""
    return os.path.exists(path) and _change(path, "DELETE FROM profile WHERE name = ?", name) > 0


def rename(path: str, name: str, other: str, config: str) -> None:
    """Give a profile another name and another config. Raises ProfileError, OSError."""
    _change(path, "UPDATE profile SET name = ?, config = ? WHERE name = ?", other, config, name)


def mint(path: str, profile: Profile, group: int, before: Callable[[], None]) -> None:
    """Insert a new profile, durably, whole or not at all. Raises ProfileError, OSError and what before() raises.

    group: who may read the file if it is made now. before: called when the name is known to be free.
    """
    with contextlib.suppress(FileExistsError):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchown(fd, -1, group)
            os.fchmod(fd, 0o640)
        finally:
            os.close(fd)
    if any(rows(path, "SELECT 1 FROM profile WHERE name = ?", profile.name)):
        raise ProfileError(f"there is a profile {profile.name} in {path} already: take another name")
    before()
    keys = [getattr(profile, field) for field in schemes.load(profile.scheme).SECRETS]
    row = (profile.name, *keys, *[None] * (2 - len(keys)), write_config(profile))
    _change(path, "INSERT INTO profile VALUES (?, ?, ?, ?)", *row)
