"""Profiles as rows of one SQLite file, for servers with many clients.

    profile (name, cipher_key, mac_key, config)     config: the text of a profile directory's file config

Root writes it, the daemon's group reads it. A rollback journal, and no write-ahead log, because a reader of that would
have to write beside the file.
"""

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from . import schemes
from .errors import KnockError, ProfileError
from .profile import check_name, named, parse_config, shown, write_config
from .schemes import Profile

SCHEMA = "CREATE TABLE IF NOT EXISTS profile (name TEXT PRIMARY KEY, cipher_key BLOB, mac_key BLOB, config TEXT)"
PATIENCE = 10
"""Seconds after which a file that somebody else has locked is given up."""
NAP = 0.005
"""Seconds that one try at a locked file takes."""


@contextlib.contextmanager
def _opened(path: str, mode: str, timeout: float) -> Iterator[sqlite3.Connection]:
    """A connection; mode: ro or rw; timeout: seconds to wait for a lock. Raises ProfileError for all errors inside."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{quote(path)}?mode={mode}", uri=True, timeout=timeout, isolation_level=None)
        ) as connection:
            connection.text_factory = bytes  # whatever is in it, one bad row is not to hide the others
            yield connection
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter for a message that quotes what is damaged
        if _locked(error):
            text = f"{path} is locked: end the program that has a transaction open in it, and try again"
        elif os.path.exists(f"{path}-journal"):
            text = (
                f"{path} was left in the middle of a change: run knockknock-daemon --check as root, which takes it back"
            )
        else:
            text = f"{path} is not a database of profiles, or a damaged one: {shown(str(error))}"
        raise ProfileError(text) from None


def _locked(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _rows(path: str, query: str, *values: str) -> Iterator[Any]:
    """What a query finds, row by row; None while somebody else writes. Raises ProfileError.

    A file that is not there, or empty, as a first mint that was killed leaves it, holds none.
    """
    try:
        status = os.stat(path)
        if not status.st_size:
            return
        if status.st_mode & stat.S_IRWXO:
            raise ProfileError(f"{path} is a secret that everybody on this machine may read: chmod o= {path}")
        # SQLite does not give the reason why it cannot.
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except FileNotFoundError:
        return
    except OSError as error:
        raise ProfileError(
            f"{path} cannot be read: {error.strerror}; it must be root's, and its group the daemon's: "
            f"chown root:GROUP {path} && chmod 640 {path}"
        ) from None
    # What a mint that was killed has left can only be taken back by who may write.
    mode = "rw" if os.path.exists(f"{path}-journal") and os.access(path, os.W_OK) else "ro"
    with _opened(path, mode, NAP) as connection:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                rows = connection.execute(query, values)
                break
            except sqlite3.OperationalError as error:
                if not _locked(error) or time.monotonic() > end:
                    raise
            yield None
        yield from rows


def profiles(path: str) -> Iterator[tuple[str, Profile | KnockError] | None]:
    """Each profile by its name, or what is wrong with it; None while somebody else writes. Raises ProfileError."""
    for row in _rows(path, "SELECT name, cipher_key, mac_key, config FROM profile"):
        if row is None:
            yield None
            continue
        name = _text(row[0])
        try:
            yield name, _profile(path, check_name(name), *row[1:])
        except KnockError as error:
            yield shown(name), error


def _text(column: object) -> str:
    return column.decode("utf-8", "replace") if isinstance(column, bytes) else ""


def _profile(path: str, name: str, cipher_key: object, mac_key: object, config: object) -> Profile:
    draft, secrets = parse_config(_text(config), f"{path}, config of {name}"), {}
    if draft.file:
        raise ProfileError(f"{path}: {name} wants the file {draft.file}, which takes a profile in a directory")
    scheme = schemes.load(draft.scheme)
    # The columns are called as those of the encrypted SYN; another scheme has its secrets in them in the same order.
    columns = ("cipher_key", cipher_key), ("mac_key", mac_key)
    for field, (column, key) in zip(scheme.SECRETS, columns, strict=False):
        if not isinstance(key, bytes) or not _good(scheme, key):
            raise ProfileError(f"{path}: {column} of {name} is not {scheme.KEY}")
        secrets[field] = key
    # Whatever its config says, it is not of knockknock 0.8, which had no database.
    return named(draft, name, secrets, **({"legacy": False} if draft.legacy else {}))


def _good(scheme: schemes.Scheme, key: bytes) -> bool:
    """Whether a secret is one that could be in a file, too."""
    try:
        return scheme.read_key(scheme.write_key(key), "") == key
    except ProfileError:
        return False


def configs(path: str) -> Iterator[str]:
    """Each config text that some profile has, once; no key is read. Raises ProfileError."""
    for row in _rows(path, "SELECT DISTINCT config FROM profile"):
        if row is not None:
            yield _text(row[0])


def load(path: str, name: str) -> Profile | None:
    """The profile of a name, if there is one. Raises ProfileError, ConfigError."""
    for row in _rows(path, "SELECT cipher_key, mac_key, config FROM profile WHERE name = ?", name):
        if row is not None:
            return _profile(path, name, *row)
    return None


@contextlib.contextmanager
def _change(path: str) -> Iterator[sqlite3.Connection]:
    """A transaction, durable at its end and of no effect if the body fails. Raises ProfileError."""
    with _opened(path, "rw", PATIENCE) as connection:
        # EXTRA: the directory is synced, too, once the journal is gone from it. Deleted keys leave no trace.
        connection.executescript("PRAGMA synchronous = EXTRA; PRAGMA secure_delete = ON;")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(SCHEMA)
        yield connection
        connection.execute("COMMIT")


def remove(path: str, name: str) -> bool:
    """Delete a row; whether there was one. Raises ProfileError."""
    if not os.path.exists(path):
        return False
    with _change(path) as connection:
        return connection.execute("DELETE FROM profile WHERE name = ?", (name,)).rowcount > 0


def rename(path: str, name: str, other: str, config: str) -> None:
    """Give a profile another name and another config. Raises ProfileError."""
    with _change(path) as connection:
        connection.execute("UPDATE profile SET name = ?, config = ? WHERE name = ?", (other, config, name))


def mint(path: str, profile: Profile, group: int, before: Callable[[], None]) -> None:
    """Put a new profile in, durably, whole or not at all. Raises ProfileError, OSError and what before() raises.

    group: whose members may read the file if it is made now. before: called when the name is known to be free.
    """
    with contextlib.suppress(FileExistsError):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchown(fd, -1, group)
            os.fchmod(fd, 0o640)
        finally:
            os.close(fd)
    with _change(path) as connection:
        if connection.execute("SELECT 1 FROM profile WHERE name = ?", (profile.name,)).fetchone():
            raise ProfileError(f"there is a profile {profile.name} in {path} already: take another name")
        before()
        keys = [getattr(profile, field) for field in schemes.load(profile.scheme).SECRETS]
        row = (profile.name, *keys, *[None] * (2 - len(keys)), write_config(profile))
        connection.execute("INSERT INTO profile VALUES (?, ?, ?, ?)", row)
