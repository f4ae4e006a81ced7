"""Writes new profiles, whole or not at all."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from functools import partial

from . import schemes, store
from .errors import ProfileError
from .profile import write_config
from .schemes import Profile


def mint(profiles: str, state: str, profile: Profile, owner: tuple[int, int], out: str | None = None) -> None:
    """Write a new profile on the server, and the counter that the daemon keeps. Raises ProfileError, CounterError.

    profiles: a directory or a database. owner: the daemon's user and group ids; the group may read the profile, the
    user owns the counter. out: a directory to be made for the client's copy, its owner's alone; both or none are made.
    """
    try:
        with store.exact_modes():
            for parent in (os.path.dirname(profiles), *(() if store.is_database(profiles) else (profiles,))):
                if not os.path.isdir(parent):
                    os.mkdir(parent, 0o750)
                    os.chown(parent, -1, owner[1])
            if not os.path.isdir(state):
                os.mkdir(state, 0o700)
                os.chown(state, *owner)
        with _copy(out, profile):
            if store.is_database(profiles):
                from . import database  # imported only when asked for: most have none

                database.mint(profiles, profile, owner[1], partial(_begin, state, profile, owner))
            else:
                _mint(profiles, state, profile, owner)
    except OSError as error:
        raise ProfileError(f"{profiles}: {profile.name} cannot be written: {error.strerror}") from None


def _begin(state: str, profile: Profile, owner: tuple[int, int]) -> None:
    if (memory := schemes.load(profile.scheme).first(profile)) is not None:
        store.store_memory(f"{state}/{profile.name}", memory, owner)


def _mint(profiles: str, state: str, profile: Profile, owner: tuple[int, int]) -> None:
    directory = f"{profiles}/{profile.name}"
    with store.directory_fd(profiles) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.lexists(directory):
            raise ProfileError(f"there is a profile {directory} already: take another name, or remove it first")
        _begin(state, profile, owner)
        create_profile(directory, profile, owner[1])


@contextlib.contextmanager
def _copy(directory: str | None, profile: Profile) -> Iterator[None]:
    """Write the client's copy, which goes again if the body fails. Raises ProfileError."""
    if directory is None:
        yield
        return
    try:
        if os.path.lexists(directory):
            raise ProfileError(f"there is a {directory} already: give --out a place where nothing is")
        create_profile(directory, profile, -1)
    except OSError as error:
        raise ProfileError(f"{directory} cannot be written: {error.strerror}") from None
    try:
        yield
    except BaseException:
        _clear(directory)
        raise


def create_profile(directory: str, profile: Profile, group: int) -> None:
    """Write a profile and its first counter, whole or not at all. Raises OSError.

    group: whose members may read it, or -1 for the owner alone.
    """
    above, name = os.path.split(directory)
    aside = f"{above}/.{name}.new"
    scheme = schemes.load(profile.scheme)
    files = {store.key_file(field): scheme.write_key(getattr(profile, field)) for field in scheme.SECRETS}
    files["config"] = write_config(profile)
    if profile.file:
        files[profile.file] = scheme.listing(profile)
    if (counter := scheme.counter(profile)) is not None:
        files["counter"] = counter
    _clear(aside)
    with store.exact_modes():
        os.mkdir(aside, 0o700 if group < 0 else 0o750)
    os.chown(aside, -1, group)
    for file, text in files.items():
        store.write_durably(f"{aside}/{file}", text, 0o600 if group < 0 else 0o640, (-1, group))
    os.rename(aside, directory)
    with store.directory_fd(above) as fd:
        os.fsync(fd)


def _clear(directory: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        for file in os.listdir(directory):
            os.unlink(f"{directory}/{file}")
        os.rmdir(directory)
