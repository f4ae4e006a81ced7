"""Reads and writes profiles on disk, with permissions, fsync and rename."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from .. import schemes
from ..core.profile import Profile
from ..errors import KnockError, ProfileError
from .text import check_name, named, parse_config, shown

MAX_FILE = 65536
"""The most bytes of a file that is read whole."""


def read(path: str, *, secret: bool = False) -> str:
    """Return a small file's text. Raises OSError; ProfileError if it is secret and not for owner and group alone."""
    # Not blocking: a pipe in place of a file must not block.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if secret and mode & stat.S_IRWXO:
            raise ProfileError(f"{path} is a secret that everybody on this machine may read: chmod o= {path}")
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data.decode("utf-8", "replace").removeprefix("\ufeff")  # some editors write a byte order mark


def read_own(path: str) -> str:
    """Return the text of a small file that belongs to its directory's owner, and is no link. Raises OSError.

    Root uses it in the state directory, whose owner is not trusted.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.stat(os.path.dirname(path)).st_uid:
            raise OSError(errno.EPERM, "it is not a file of the owner of its directory")
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data.decode("utf-8", "replace")


def load_profile(directory: str) -> Profile:
    """Return the profile in a directory, which is named as the profile. Raises ProfileError, ConfigError."""
    path, secrets = f"{directory}/config", {}
    try:
        draft = load_draft(directory)
        scheme = schemes.load(draft.scheme)
        for field in scheme.SECRETS:
            path = f"{directory}/{key_file(field)}"
            secrets[field] = scheme.read_key(read(path, secret=True), path)
    except OSError as error:
        raise ProfileError(f"{path} cannot be read: {error.strerror}") from None
    return named(draft, os.path.basename(directory), secrets)


def load_draft(directory: str) -> Profile:
    """Return a directory's profile without name and keys. Raises ProfileError, ConfigError; OSError for its config."""
    path = f"{directory}/config"
    draft = parse_config(read(path), path)
    scheme = schemes.load(draft.scheme)
    if not scheme.SECRETS:
        read(path, secret=True)
    if draft.file:
        path = f"{directory}/{draft.file}"
        try:
            draft = scheme.complete(draft, read(path, secret=True), path)
        except OSError as error:
            raise ProfileError(f"{path} cannot be read: {error.strerror}") from None
    return draft


def key_file(field: str) -> str:
    """Return the path of a profile's key (Scheme.SECRETS) in its directory."""
    return field.replace("_", ".")


def made(directory: str, profile: Profile) -> tuple[int, int]:
    """Return the times of writing and placing a profile's secrets, in ns since 1970; 0 if they are gone."""
    fields = schemes.load(profile.scheme).SECRETS
    with contextlib.suppress(OSError):
        status = os.stat(f"{directory}/{key_file(fields[0]) if fields else profile.file or 'config'}")
        return status.st_mtime_ns, status.st_ctime_ns
    return 0, 0


def names(directory: str) -> Iterator[str]:
    """Yield the names of the profiles in a directory, without hidden entries and files. Raises ProfileError."""
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and _may_be_directory(entry):
                    yield entry.name
    except FileNotFoundError:
        return
    except OSError as error:
        raise ProfileError(f"{directory} cannot be read: {error.strerror}") from None


def _may_be_directory(entry: os.DirEntry[str]) -> bool:
    """Return True for a directory, and for a link that cannot be followed, whose reader reports it."""
    try:
        return entry.is_dir()
    except OSError:
        return True


def is_database(place: str) -> bool:
    """Return True if `profiles` of the configuration names a database, not a directory."""
    return place.endswith(".db")


def profiles(place: str) -> Iterator[tuple[str, Profile | KnockError] | None]:
    """Yield each profile of a directory or database by its name, or what is wrong with it. Raises ProfileError.

    None means nothing yet, because another process writes. The caller can do other work between two profiles.
    """
    if is_database(place):
        from . import database  # imported only when asked for: most have none

        yield from database.profiles(place)
        return
    for name in names(place):
        try:
            yield name, load_profile(f"{place}/{_checked(place, name)}")
        except KnockError as error:
            yield shown(name), error


def _checked(place: str, name: str) -> str:
    """Return the name of a directory's profile. Raises ProfileError, which says how to rename it."""
    try:
        return check_name(name)
    except ProfileError as error:
        if not name.isprintable():
            raise
        from . import legacy  # knockknock 0.8 allowed more names

        raise ProfileError(f"{error}: {legacy.renamed(place, name)}") from None


def write_durably(path: str, text: str, mode: int, owner: tuple[int, int] = (-1, -1)) -> None:
    """Replace a file as a whole: write aside with its final permissions, sync, rename. Raises OSError.

    owner: user and group ids, -1 for the writer's own.
    """
    directory, name = os.path.split(path)
    aside = f"{directory}/.{name}.new"
    try:
        os.unlink(aside)
    except FileNotFoundError:
        pass
    except OSError:  # the directory's owner has put something there that cannot be unlinked
        aside = f"{directory}/.{name}.{os.urandom(8).hex()}"
    with exact_modes():
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchown(fd, *owner)
        data = text.encode()
        if os.write(fd, data) != len(data):  # write(2) reports a disk that becomes full as a short write
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(aside, path)
    with directory_fd(directory) as parent:
        os.fsync(parent)


@contextlib.contextmanager
def exact_modes() -> Iterator[None]:
    """Create files with exactly the mode that is asked for in the body, whatever the caller's umask is."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def directory_fd(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
