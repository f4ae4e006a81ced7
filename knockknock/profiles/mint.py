"""Makes, changes and removes profiles on the server, each whole or not at all."""

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial

from .. import schemes
from ..core.key_text import KEY_SIZES
from ..core.profile import Profile
from ..errors import KnockError, ProfileError
from ..schemes.syn.profile import Profile as SynProfile
from . import command_lock, counters, files
from .text import check_name, write_config

Owner = tuple[int, int]
"""User and group ids of the daemon; the group may read a profile, the user owns its counter."""

Reload = Callable[[str], object]
"""Has the daemon of a state directory read its profiles again, if one runs. Raises KnockError if it cannot."""


def fresh_keys(profile: SynProfile) -> SynProfile:
    """Return the profile with new keys of the length that its format uses."""
    size = KEY_SIZES[0] if profile.format == "classic" else KEY_SIZES[1]  # the length that knockknock 0.8 knows
    return profile._replace(cipher_key=os.urandom(size), mac_key=os.urandom(size), legacy=False)


def mint(profiles: str, state: str, profile: Profile, owner: Owner, reload: Reload) -> None:
    """Write a new profile, and the counter that the daemon keeps. Raises ProfileError, CounterError, KnockError.

    profiles: a directory or a database. A daemon that may still hear older keys of that name is reloaded first, or it
    would write their counter over the new one.
    """
    with _writing(profiles, profile.name):
        with files.exact_modes():
            for parent in (os.path.dirname(profiles), *(() if files.is_database(profiles) else (profiles,))):
                if not os.path.isdir(parent):
                    os.mkdir(parent, 0o750)
                    os.chown(parent, -1, owner[1])
            if not os.path.isdir(state):
                os.mkdir(state, 0o700)
                os.chown(state, *owner)
        with command_lock.held(profiles):
            _mint(profiles, state, profile, owner, reload)


def _mint(profiles: str, state: str, profile: Profile, owner: Owner, reload: Reload) -> None:
    """Do the same with the profiles locked."""
    begin = partial(_begin, state, profile, owner, reload)
    if files.is_database(profiles):
        from . import database_write  # imported only when asked for: most have none

        database_write.mint(profiles, profile, owner[1], begin)
        return
    directory = f"{profiles}/{profile.name}"
    if os.path.lexists(directory):
        raise ProfileError(f"there is a profile {directory} already: take another name, or revoke it first")
    begin()
    create_profile(directory, profile, owner[1])


def _begin(state: str, profile: Profile, owner: Owner, reload: Reload) -> None:
    path = f"{state}/{profile.name}"
    if os.path.lexists(path):
        reload(state)
    if (memory := schemes.load(profile.scheme).first(profile)) is not None:
        counters.store_memory(path, memory, owner)


def load(profiles: str, name: str) -> Profile | None:
    """Return the profile of a name, None if there is none. Raises ProfileError, ConfigError."""
    if files.is_database(profiles):
        from . import database  # as above

        return database.load(profiles, check_name(name))
    directory = f"{profiles}/{check_name(name)}"
    return files.load_profile(directory) if os.path.lexists(directory) else None


def revoke(profiles: str, name: str) -> None:
    """Remove a profile, good or broken. Raises ProfileError if there is none."""
    if not os.path.isdir(os.path.dirname(profiles) if files.is_database(profiles) else profiles):
        raise ProfileError(f"there is no profile {check_name(name)} in {profiles}")
    with _writing(profiles, check_name(name)), command_lock.held(profiles):
        _revoke(profiles, name)


def _revoke(profiles: str, name: str) -> None:
    if files.is_database(profiles):
        from . import database_write  # as above

        gone = database_write.remove(profiles, name)
    elif gone := os.path.lexists(f"{profiles}/{name}"):
        clear(f"{profiles}/.{name}.gone")
        os.rename(f"{profiles}/{name}", f"{profiles}/.{name}.gone")
        clear(f"{profiles}/.{name}.gone")
    if not gone:
        raise ProfileError(f"there is no profile {name} in {profiles}")


def find(profiles: str, name: str) -> SynProfile:
    """Return the profile of a name, which must have keys. Raises ProfileError, ConfigError."""
    if profile := load(profiles, name):
        if not isinstance(profile, SynProfile):
            raise ProfileError(f"{name} is of a scheme whose secrets are not rotated: revoke it, and make it anew")
        return profile
    left = len(name) < 61 and load(profiles, f"{name}.old")
    rest = f", only {name}.old, which a rotation that was stopped has left: make {name} anew" if left else ""
    raise ProfileError(f"there is no profile {name} in {profiles}{rest}")


def rotate(
    profiles: str,
    state: str,
    current: SynProfile,
    fresh: SynProfile,
    until: int,
    now: int,
    owner: Owner,
    reload: Reload,
) -> None:
    """Replace a profile by one with new keys; the old keys live on as NAME.old. Raises KnockError.

    until: seconds since 1970 at which the old keys expire; not after now: at once. A running daemon is reloaded.
    """
    name, old = current.name, check_name(f"{current.name}.old")
    with _writing(profiles, name), command_lock.held(profiles):
        if previous := load(profiles, old):
            if previous.expires is None or previous.expires > now:
                raise ProfileError(f"there is {old} from the last rotation, which has not expired: revoke {old} first")
            _revoke(profiles, old)  # and reload, or the daemon may write its counter over the next one's
        reload(state)  # if it cannot, it fails before anything is changed
        counters.store_slots(f"{state}/{old}", counters.server_counter(state, profiles, current), owner)
        _rename(profiles, current, current._replace(name=old, expires=min(until, current.expires or until)))
        try:
            _mint(
                profiles, state, fresh, owner, reload
            )  # reloads the daemon, which goes on with the old keys as NAME.old
        except BaseException as error:
            _undo(profiles, state, current, old, error, owner, reload)
            raise
        if until <= now:
            _revoke(profiles, old)


def _undo(
    profiles: str, state: str, current: SynProfile, old: str, reason: BaseException, owner: Owner, reload: Reload
) -> None:
    """Give the keys of NAME.old their name back. Raises ProfileError with the reason and what is left, if it fails."""
    try:
        # First the counter: as NAME.old the daemon may have come further, and the file of NAME may begin anew.
        counter = counters.server_counter(state, profiles, current._replace(name=old))
        if counter != counters.server_counter(state, profiles, current):
            counters.store_slots(f"{state}/{current.name}", counter, owner)
        _rename(profiles, current._replace(name=old), current)
        with contextlib.suppress(KnockError):  # the first error is what matters
            reload(state)
    except (KnockError, OSError):
        raise ProfileError(
            f"{reason}; the old keys are now {old}, until they expire: make {current.name} anew"
        ) from None


def _rename(profiles: str, before: SynProfile, profile: SynProfile) -> None:
    """Change a profile's name and config, both or neither. Raises ProfileError, OSError."""
    config = write_config(profile)
    if files.is_database(profiles):
        from . import database_write  # as above

        database_write.rename(profiles, before.name, profile.name, config)
        return
    path = f"{profiles}/{profile.name}"
    os.rename(f"{profiles}/{before.name}", path)
    try:
        status = os.stat(f"{path}/config")
        files.write_durably(f"{path}/config", config, status.st_mode & 0o777, (status.st_uid, status.st_gid))
    except OSError:
        os.rename(path, f"{profiles}/{before.name}")
        raise
    with files.directory_fd(profiles) as fd:
        os.fsync(fd)


@contextlib.contextmanager
def _writing(profiles: str, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ProfileError(f"{profiles}: {name} cannot be written: {error.strerror}") from None


def create_profile(directory: str, profile: Profile, group: int, counter: int = 0) -> None:
    """Write a profile and its first counter, whole or not at all. Raises OSError.

    group: who may read it, or -1 for the owner alone.
    """
    above, name = os.path.split(directory)
    aside = f"{above}/.{name}.new"
    scheme = schemes.load(profile.scheme)
    texts = {files.key_file(field): scheme.write_key(getattr(profile, field)) for field in scheme.SECRETS}
    texts["config"] = write_config(profile)
    if profile.file:
        texts[profile.file] = scheme.listing(profile)
    if (text := scheme.counter(profile)) is not None:
        texts["counter"] = f"{counter}\n" if counter else text
    clear(aside)
    with files.exact_modes():
        os.mkdir(aside, 0o700 if group < 0 else 0o750)
    os.chown(aside, -1, group)
    for file, text in texts.items():
        files.write_durably(f"{aside}/{file}", text, 0o600 if group < 0 else 0o640, (-1, group))
    os.rename(aside, directory)
    with files.directory_fd(above) as fd:
        os.fsync(fd)


def clear(directory: str) -> None:
    """Remove a profile, or what is left of one. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        for file in os.listdir(directory):
            os.unlink(f"{directory}/{file}")
        os.rmdir(directory)
