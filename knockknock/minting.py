"""Makes, changes and removes profiles on the server, each whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from functools import partial

from . import counters, lock, running, schemes, store
from .errors import KnockError, ProfileError
from .profile import check_name, write_config
from .schemes import Profile
from .schemes.synprofile import Profile as SynProfile

Owner = tuple[int, int]
"""User and group ids of the daemon; the group may read a profile, the user owns its counter."""


def mint(profiles: str, state: str, profile: Profile, owner: Owner) -> None:
    """Write a new profile, and the counter that the daemon keeps. Raises ProfileError, CounterError, KnockError.

    profiles: a directory or a database. A daemon that may still hear older keys of that name is made to forget them, or
    it would go on writing their counter in the place of the new one.
    """
    with _writing(profiles, profile.name):
        with store.exact_modes():
            for parent in (os.path.dirname(profiles), *(() if store.is_database(profiles) else (profiles,))):
                if not os.path.isdir(parent):
                    os.mkdir(parent, 0o750)
                    os.chown(parent, -1, owner[1])
            if not os.path.isdir(state):
                os.mkdir(state, 0o700)
                os.chown(state, *owner)
        with lock.held(profiles):
            _mint(profiles, state, profile, owner)


def _mint(profiles: str, state: str, profile: Profile, owner: Owner) -> None:
    """The same while the profiles are ours alone."""
    begin = partial(_begin, state, profile, owner)
    if store.is_database(profiles):
        from . import database_write  # imported only when asked for: most have none

        database_write.mint(profiles, profile, owner[1], begin)
        return
    directory = f"{profiles}/{profile.name}"
    if os.path.lexists(directory):
        raise ProfileError(f"there is a profile {directory} already: take another name, or revoke it first")
    begin()
    create_profile(directory, profile, owner[1])


def _begin(state: str, profile: Profile, owner: Owner) -> None:
    path = f"{state}/{profile.name}"
    if os.path.lexists(path):
        running.reload(state)
    if (memory := schemes.load(profile.scheme).first(profile)) is not None:
        counters.store_memory(path, memory, owner)


def load(profiles: str, name: str) -> Profile | None:
    """The profile of a name, if there is one. Raises ProfileError, ConfigError."""
    if store.is_database(profiles):
        from . import database  # as above

        return database.load(profiles, check_name(name))
    directory = f"{profiles}/{check_name(name)}"
    return store.load_profile(directory) if os.path.lexists(directory) else None


def revoke(profiles: str, name: str) -> None:
    """Remove a profile, whether it is good or broken. Raises ProfileError if there is none."""
    if not os.path.isdir(os.path.dirname(profiles) if store.is_database(profiles) else profiles):
        raise ProfileError(f"there is no profile {check_name(name)} in {profiles}")
    with _writing(profiles, check_name(name)), lock.held(profiles):
        _revoke(profiles, name)


def _revoke(profiles: str, name: str) -> None:
    if store.is_database(profiles):
        from . import database_write  # as above

        gone = database_write.remove(profiles, name)
    elif gone := os.path.lexists(f"{profiles}/{name}"):
        clear(f"{profiles}/.{name}.gone")
        os.rename(f"{profiles}/{name}", f"{profiles}/.{name}.gone")
        clear(f"{profiles}/.{name}.gone")
    if not gone:
        raise ProfileError(f"there is no profile {name} in {profiles}")


def find(profiles: str, name: str) -> SynProfile:
    """The profile of a name, if it has keys. Raises ProfileError, ConfigError."""
    if profile := load(profiles, name):
        if not isinstance(profile, SynProfile):
            raise ProfileError(f"{name} is of a scheme whose secrets are not rotated: revoke it, and make it anew")
        return profile
    left = len(name) < 61 and load(profiles, f"{name}.old")
    rest = f", only {name}.old, which a rotation that was stopped has left: make {name} anew" if left else ""
    raise ProfileError(f"there is no profile {name} in {profiles}{rest}")


def rotate(
    profiles: str, state: str, current: SynProfile, fresh: SynProfile, until: int, now: int, owner: Owner
) -> None:
    """Put a profile with new keys in the place of one, whose keys live on as NAME.old. Raises KnockError.

    until: seconds since 1970 when the old keys expire; not after now: at once. A daemon that runs is reloaded.
    """
    name, old = current.name, check_name(f"{current.name}.old")
    with _writing(profiles, name), lock.held(profiles):
        if previous := load(profiles, old):
            if previous.expires is None or previous.expires > now:
                raise ProfileError(
                    f"there is {old} from the last rotation, which has not expired: --revoke {old} first"
                )
            _revoke(profiles, old)  # and reload, or the daemon may write its counter in the place of the next one's
        running.reload(state)  # one that cannot is to say so before anything has changed
        counters.store_slots(f"{state}/{old}", counters.server_memory(state, profiles, current), owner)
        _rename(profiles, current, current._replace(name=old, expires=min(until, current.expires or until)))
        try:
            _mint(profiles, state, fresh, owner)  # where the daemon is reloaded: it goes on with the old keys as old
        except BaseException as error:
            _undo(profiles, state, current, old, error, owner)
            raise
        if until <= now:
            _revoke(profiles, old)


def _undo(profiles: str, state: str, current: SynProfile, old: str, reason: BaseException, owner: Owner) -> None:
    """Give the keys of NAME.old their name back. Raises ProfileError with the reason and what is left, if it cannot."""
    try:
        # First the counter: as NAME.old the daemon may have come further, and the file of NAME may begin anew.
        counter = counters.server_memory(state, profiles, current._replace(name=old))
        if counter != counters.server_memory(state, profiles, current):
            counters.store_slots(f"{state}/{current.name}", counter, owner)
        _rename(profiles, current._replace(name=old), current)
        with contextlib.suppress(KnockError):  # there is something else to be said
            running.reload(state)
    except (KnockError, OSError):
        raise ProfileError(
            f"{reason}; the old keys are now {old}, until they expire: make {current.name} anew"
        ) from None


def _rename(profiles: str, before: SynProfile, profile: SynProfile) -> None:
    """Give a profile another name and another config, or neither. Raises ProfileError, OSError."""
    config = write_config(profile)
    if store.is_database(profiles):
        from . import database_write  # as above

        database_write.rename(profiles, before.name, profile.name, config)
        return
    path = f"{profiles}/{profile.name}"
    os.rename(f"{profiles}/{before.name}", path)
    try:
        status = os.stat(f"{path}/config")
        store.write_durably(f"{path}/config", config, status.st_mode & 0o777, (status.st_uid, status.st_gid))
    except OSError:
        os.rename(path, f"{profiles}/{before.name}")
        raise
    with store.directory_fd(profiles) as fd:
        os.fsync(fd)


@contextlib.contextmanager
def _writing(profiles: str, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ProfileError(f"{profiles}: {name} cannot be written: {error.strerror}") from None


def create_profile(directory: str, profile: Profile, group: int, counter: int = 0) -> None:
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
    if (text := scheme.counter(profile)) is not None:
        files["counter"] = f"{counter}\n" if counter else text
    clear(aside)
    with store.exact_modes():
        os.mkdir(aside, 0o700 if group < 0 else 0o750)
    os.chown(aside, -1, group)
    for file, text in files.items():
        store.write_durably(f"{aside}/{file}", text, 0o600 if group < 0 else 0o640, (-1, group))
    os.rename(aside, directory)
    with store.directory_fd(above) as fd:
        os.fsync(fd)


def clear(directory: str) -> None:
    """Remove a profile, a part of one, or nothing. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        for file in os.listdir(directory):
            os.unlink(f"{directory}/{file}")
        os.rmdir(directory)
