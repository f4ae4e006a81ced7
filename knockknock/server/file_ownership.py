"""Checks that nobody but root can change the configuration, the profiles, or any directory above them.

Opens no file. If all is as it must be, only root can change it between this look and a read.
"""

import os
import pwd
import shlex
import stat
from collections import deque
from collections.abc import Iterator

from ..errors import ProfileError
from ..profiles import files
from .config import Config

_MOST_LINKS = 40
"""Symbolic links on one way, as the kernel counts them."""

Found = tuple[str, os.stat_result]


def check(path: str, config: Config) -> None:
    """Raise ProfileError with the first complaint about a configuration, by its path, and its profiles."""
    for complaint in complaints(path, config):
        raise ProfileError(complaint)


def complaints(path: str, config: Config) -> Iterator[str]:
    """Yield a sentence for each file and directory by which a user other than root could change what may be opened."""
    yield from place(path, config)
    if not files.is_database(config.profiles):
        for name in sorted(files.names(config.profiles)):
            directory = f"{config.profiles}/{name}"
            closed = {directory, os.path.realpath(directory)}
            for found, status in dict(_profile(directory)).items():
                yield from _complaint(found, status, shared=found not in closed)


def place(path: str, config: Config) -> Iterator[str]:
    """Yield complaints about the configuration, the place of the profiles, and all directories above them.

    The directories above the state directory are checked, too, and that neither place is inside the other.
    """
    # New names in it are profiles, or a journal of the database, and to be sticky does not keep those out.
    directory = os.path.dirname(config.profiles) if files.is_database(config.profiles) else config.profiles
    closed = {directory, os.path.realpath(directory)}
    state = os.path.realpath(config.state)
    closed.add(os.path.dirname(state))  # where the daemon's user could put a link in the place of his directory
    above = [one for one in way(config.state) if one[0] != state]
    for found, status in dict([*way(path), *way(config.profiles), *above]).items():
        yield from _complaint(found, status, shared=found not in closed)
    ends = [os.path.realpath(one) for one in (config.profiles, config.state)]
    if os.path.commonpath(ends) in ends:
        yield (
            f"the profiles, {config.profiles}, and the state directory, {config.state}, are one in the other: "
            "the daemon's user owns the latter, so move it out"
        )


def state(directory: str, uid: int, gid: int) -> Iterator[str]:
    """Yield a complaint if the state directory is another user's, or root's and not empty; uid, gid: the daemon's."""
    try:
        owner, rest = os.stat(directory).st_uid, os.listdir(directory)
    except OSError:
        return  # the caller makes it, or reports why it cannot
    if owner != uid and (owner or rest):
        yield (
            f"the state directory {directory} must be empty, or belong to the daemon's user: if it is what you mean, "
            f"chown -R {uid}:{gid} {shlex.quote(directory)}"
        )


def way(path: str) -> Iterator[Found]:
    """Yield every directory, link and file on the way to a path, up to the first that cannot be looked at."""
    here, links, left = "/", 0, deque(["/", *os.path.join(os.getcwd(), path).split("/")])
    while left:
        part = left.popleft()
        if part == "..":
            here = os.path.dirname(here)
        elif part not in ("", "."):
            there = os.path.join(here, part)
            try:
                status = os.lstat(there)
                target = os.readlink(there) if stat.S_ISLNK(status.st_mode) else ""
            except OSError:
                return  # the reader of the path reports it
            yield there, status
            links += bool(target)
            if links > _MOST_LINKS:
                return
            here = "/" if target.startswith("/") else here if target else there
            left.extendleft(reversed(target.split("/")))


def _profile(directory: str) -> Iterator[Found]:
    """A profile's directory and what is in it; for a link, all that is on the way to where it leads."""
    yield from way(directory) if os.path.islink(directory) else [(directory, os.lstat(directory))]
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                yield entry.path, entry.stat(follow_symlinks=False)
                if entry.is_symlink():
                    yield from way(entry.path)
    except OSError:
        return  # as above


def _complaint(path: str, status: os.stat_result, *, shared: bool) -> Iterator[str]:
    """Say what is wrong with a file or directory. shared: others may make files beside it, as in /tmp."""
    mode, quoted = stat.S_IMODE(status.st_mode), shlex.quote(path)
    ways_out = [f"chown -h root {quoted}"] if status.st_uid else []
    if not stat.S_ISLNK(status.st_mode):
        # In a sticky directory nobody renames or removes what is root's.
        if mode & 0o022 and not (shared and stat.S_ISDIR(status.st_mode) and mode & stat.S_ISVTX):
            ways_out.append(f"chmod go-w {quoted}")
        if not ways_out and not mode & 0o400:
            yield f"{path} has mode {mode:04o}, and its reader has no more than its owner's rights: chmod u+r {quoted}"
    if ways_out:
        yield (
            f"{path} belongs to {_name(status.st_uid)} and has mode {mode:04o}, so others than root could change what "
            f"may be opened: {' && '.join(ways_out)}"
        )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
