"""Reads profiles from rows of one SQLite file, for servers with many clients.

    profile (name, cipher_key, mac_key, config)     config: the text of a profile directory's file config

Root writes it, the daemon's group reads it. It has a rollback journal, because a reader of a write-ahead log must be
able to write beside the file.
"""

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .. import schemes
from ..core.profile import Profile
from ..errors import KnockError, ProfileError
from .text import check_name, named, parse_config, shown

if TYPE_CHECKING:
    from ..schemes.protocols import Scheme

SCHEMA = "CREATE TABLE IF NOT EXISTS profile (name TEXT PRIMARY KEY, cipher_key BLOB, mac_key BLOB, config TEXT)"
PATIENCE = 10
"""Seconds after which a reader gives up on a locked file."""
NAP = 0.005
"""Seconds that one try at a locked file takes."""


class LockedError(ProfileError):
    """Another process has locked the file."""


@contextlib.contextmanager
def opened(path: str, mode: str, timeout: float) -> Iterator[sqlite3.Connection]:
    """Yield a connection, and turn all errors of the body into ProfileError.

    mode: ro or rw. timeout: seconds to wait for a lock.
    """
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{quote(path)}?mode={mode}", uri=True, timeout=timeout, isolation_level=None)
        ) as connection:
            connection.text_factory = bytes  # invalid text in one row must not hide the others
            yield connection
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter if the message quotes damaged text
        if _locked(error):
            raise LockedError(
                f"{path} is locked: end the program that has a transaction open in it, and try again"
            ) from None
        if os.path.exists(f"{path}-journal"):
            text = (
                f"{path} was left in the middle of a change: run knockknock-daemon check as root, which takes it back"
            )
        else:
            text = f"{path} is not a database of profiles, or a damaged one: {shown(str(error))}"
        raise ProfileError(text) from None


def _locked(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def rows(path: str, query: str, *values: str) -> Iterator[Any]:
    """Yield the rows that a query finds; None while another process writes. Raises ProfileError.

    A missing or empty file, which a killed first mint leaves, has none.
    """
    try:
        status = os.stat(path)
        if not status.st_size:
            return
        if status.st_mode & stat.S_IRWXO:
            raise ProfileError(f"{path} is a secret that everybody on this machine may read: chmod o= {path}")
        # SQLite does not say why it cannot open a file.
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except FileNotFoundError:
        return
    except OSError as error:
        raise ProfileError(
            f"{path} cannot be read: {error.strerror}; it must be root's, and its group the daemon's: "
            f"chown root:GROUP {path} && chmod 640 {path}"
        ) from None
    # Only a writer can roll back what a killed mint has left.
    mode = "rw" if os.path.exists(f"{path}-journal") and os.access(path, os.W_OK) else "ro"
    with opened(path, mode, NAP) as connection:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                found = connection.execute(query, values)
                break
            except sqlite3.OperationalError as error:
                if not _locked(error) or time.monotonic() > end:
                    raise
            yield None
        yield from found


def profiles(path: str) -> Iterator[tuple[str, Profile | KnockError] | None]:
    """Yield each profile by its name, or its error; None while another process writes. Raises ProfileError."""
    for row in rows(path, "SELECT name, cipher_key, mac_key, config FROM profile"):
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
    # The columns have the names of the encrypted SYN's keys; other schemes use them in the same order.
    columns = ("cipher_key", cipher_key), ("mac_key", mac_key)
    for field, (column, key) in zip(scheme.SECRETS, columns, strict=False):
        if not isinstance(key, bytes) or not _good(scheme, key):
            raise ProfileError(f"{path}: {column} of {name} is not {scheme.KEY}")
        secrets[field] = key
    # It is not of knockknock 0.8, which had no database, whatever its config says.
    return named(draft, name, secrets, **({"legacy": False} if draft.legacy else {}))


def _good(scheme: "Scheme[Profile, object]", key: bytes) -> bool:
    """Return True if a secret has the form that a file requires."""
    try:
        return scheme.read_key(scheme.write_key(key), "") == key
    except ProfileError:
        return False


def configs(path: str) -> Iterator[str]:
    """Yield each different config text once; no key is read. Raises ProfileError."""
    for row in rows(path, "SELECT DISTINCT config FROM profile"):
        if row is not None:
            yield _text(row[0])


def load(path: str, name: str) -> Profile | None:
    """Return the profile of a name, None if there is none. Raises ProfileError, ConfigError."""
    for row in rows(path, "SELECT cipher_key, mac_key, config FROM profile WHERE name = ?", name):
        if row is not None:
            return _profile(path, name, *row)
    return None
