"""Stores used counters of client and server on disk, with locks and fsync."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from time import monotonic, sleep
from typing import cast

from .. import schemes
from ..core.counter_text import MAX_COUNTER, SLOT, damaged, parse_counter, places, slot
from ..core.profile import Profile
from ..errors import CounterError
from . import files


def read_counter(path: str) -> int:
    """Return the next counter to be used or accepted, from a file. Raises CounterError, FileNotFoundError."""
    try:
        return parse_counter(files.read(path), path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CounterError(f"{path} cannot be read: {error.strerror}") from None


def next_counter(directory: str, ahead: int, clock: int = 0) -> int:
    """Return the counter that a client's knock will have `ahead` knocks from now; change nothing. Raises CounterError.

    clock: as for taking().
    """
    path = f"{directory}/counter"
    try:
        return _usable(path, _from(path, clock) + ahead)
    except FileNotFoundError:
        raise _missing(path) from None


def _missing(path: str) -> CounterError:
    return CounterError(
        f"{path} is missing, and without it a knock could be used twice: have the profile minted anew on the server "
        "(knockknock-genprofile rotate NAME) and take its line by knockknock --enroll --replace"
    )


def _usable(path: str, counter: int) -> int:
    if counter > MAX_COUNTER:
        raise CounterError(
            f"{path}: all counters are used up; have new keys made on the server (knockknock-genprofile rotate NAME)"
        )
    return counter


def store_counter(path: str, counter: int, owner: tuple[int, int] = (-1, -1)) -> None:
    """Store a counter durably. Raises CounterError, with the old one in place."""
    store_memory(path, f"{counter}\n", owner)


def store_memory(path: str, text: str, owner: tuple[int, int] = (-1, -1)) -> None:
    """Store a profile's used knocks durably. Raises CounterError, with the old text in place."""
    try:
        files.write_durably(path, text, 0o600, owner)
    except OSError as error:
        raise CounterError(f"the counter {path} cannot be stored: {error.strerror}") from None


def remember(path: str, memory: int | str) -> None:
    """Store a profile's used knocks durably, a counter in the fastest way. Raises CounterError."""
    if isinstance(memory, str):
        store_memory(path, memory)
    elif not _written_over(path, memory):
        store_slots(path, memory)


def store_slots(path: str, counter: int, owner: tuple[int, int] = (-1, -1)) -> None:
    """Store a server's counter durably, whatever the file held. Raises CounterError, with the old one in place."""
    store_memory(path, 2 * slot(counter).decode(), owner)


def _written_over(path: str, counter: int) -> bool:
    """Write a counter into the slots of a file, most often into one, with one sync. Raises CounterError.

    Returns False, with nothing done, if the file is missing, has no slots, or may not be written.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        found = places(os.pread(fd, 2 * SLOT + 1, 0), counter)
        for at in found:
            if os.pwrite(fd, slot(counter), at) != SLOT:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(fd)
    except OSError as error:
        raise CounterError(f"the counter {path} cannot be stored: {error.strerror}") from None
    finally:
        os.close(fd)
    return bool(found)


def server_memory(state: str, profiles: str, profile: Profile, latest: int = 0) -> object:
    """Return a profile's used knocks on the server; latest: see Scheme.recall(). Raises CounterError.

    A profile of knockknock 0.8 brings its counter along. Damage is logged.
    """
    recall, path = schemes.load(profile.scheme).recall, f"{state}/{profile.name}"
    try:
        text = files.read_own(path)
        memory = recall(profile, text, path, latest)
        if damaged(text):
            import logging  # imported here, because a client does not log

            logging.getLogger("knockknock").warning(
                "profile %s: a part of %s is damaged: all counters that it can have held are taken for used",
                profile.name,
                path,
            )
        return memory
    except FileNotFoundError:
        if not profile.legacy:
            return recall(profile, None, path, latest)
    except OSError as error:
        raise CounterError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return read_counter(f"{profiles}/{profile.name}/counter")
    except FileNotFoundError:
        raise CounterError(f"{profiles}/{profile.name} has no counter; mint the profile anew") from None


def _from(path: str, clock: int) -> int:
    """Return a client's next counter, by its file or by the clock, whichever is higher."""
    try:
        return max(read_counter(path), clock)
    except FileNotFoundError:
        if not clock:
            raise
        return clock


@contextlib.contextmanager
def taking(directory: str, clock: int = 0, end: float | None = None) -> Iterator[int]:
    """Yield a counter of a client's profile that nobody else gets, durably used up from then on. Raises CounterError.

    The next one stays locked until this ends, so the body sends before others do.

    clock: seconds since 1970 for a profile that counts by it, whose lost file does no harm; 0 for others. end: the
    monotonic time until which to wait for others; None: without end.
    """
    path = f"{directory}/counter"
    with contextlib.ExitStack() as stack:
        try:
            _lock(stack.enter_context(files.directory_fd(directory)), directory, end)
            counter = _usable(path, _from(path, clock))
            store_counter(path, counter + 1)
        except FileNotFoundError:
            raise _missing(path) from None
        except OSError as error:
            raise CounterError(f"the counter {path} cannot be taken: {error.strerror}; nothing was sent") from None
        yield counter


def _lock(fd: int, directory: str, end: float | None) -> None:
    while end is not None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if monotonic() >= end:
                raise CounterError(
                    f"another knock holds the profile {directory} and does not end: end it (`fuser -v {directory}` "
                    "names it); nothing was sent"
                ) from None
            sleep(0.005)
    fcntl.flock(fd, fcntl.LOCK_EX)


def server_counter(state: str, profiles: str, profile: Profile) -> int:
    """Return the same for a profile whose memory is the next counter that the server accepts."""
    return cast(int, server_memory(state, profiles, profile))


def adopt(state: str, profiles: str, profile: Profile, become: Callable[[], AbstractContextManager[None]]) -> None:
    """Copy the counter of knockknock 0.8, once, as the daemon's user, which `become` makes us. Raises CounterError."""
    if profile.legacy and not os.path.lexists(path := f"{state}/{profile.name}"):
        counter = server_counter(state, profiles, profile)
        with become():
            store_slots(path, counter)
