"""Stores used counters on disk, the client's and the server's, with locks and fsync."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from time import monotonic, sleep
from typing import Any

from . import schemes, store
from .errors import CounterError
from .profile import MAX_COUNTER
from .schemes import Profile
from .slots import SLOT, damaged, parse_counter, places, slot


def read_counter(path: str) -> int:
    """The next counter to be used or accepted, in a file (slots.py). Raises CounterError, FileNotFoundError."""
    try:
        return parse_counter(store.read(path), path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CounterError(f"{path} cannot be read: {error.strerror}") from None


def next_counter(directory: str, ahead: int, clock: int = 0) -> int:
    """The counter that a client's knock would have that many knocks from now, left as it is. Raises CounterError.

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
        "(knockknock-genprofile --rotate NAME) and take its line by knockknock --enroll --replace"
    )


def _usable(path: str, counter: int) -> int:
    if counter > MAX_COUNTER:
        raise CounterError(
            f"{path}: all counters are used up; have new keys made on the server (knockknock-genprofile --rotate NAME)"
        )
    return counter


def store_counter(path: str, counter: int, owner: tuple[int, int] = (-1, -1)) -> None:
    """Make a counter durable. Raises CounterError, with the old one in place."""
    store_memory(path, f"{counter}\n", owner)


def store_memory(path: str, text: str, owner: tuple[int, int] = (-1, -1)) -> None:
    """Make what a profile has used up durable. Raises CounterError, with what was there in place."""
    try:
        store.write_durably(path, text, 0o600, owner)
    except OSError as error:
        raise CounterError(f"the counter {path} cannot be stored: {error.strerror}") from None


def remember(path: str, memory: int | str) -> None:
    """Make what a profile has used up durable, a counter as fast as can be. Raises CounterError, with the old there."""
    if isinstance(memory, str):
        store_memory(path, memory)
    elif not _written_over(path, memory):
        store_slots(path, memory)


def store_slots(path: str, counter: int, owner: tuple[int, int] = (-1, -1)) -> None:
    """Make a server's counter durable, whatever the file had before. Raises CounterError, with the old one in place."""
    store_memory(path, 2 * slot(counter).decode(), owner)


def _written_over(path: str, counter: int) -> bool:
    """Put a counter into the slots of a file (slots.py), most often into one, with one sync. Raises CounterError.

    False: nothing was done, because there is no such file, or none that we may write to.
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


def server_memory(state: str, profiles: str, profile: Profile, latest: int = 0) -> Any:
    """Read a profile's used knocks on the server; latest: see schemes.Scheme.recall(). Raises CounterError.

    A profile that knockknock 0.8 made brings its counter along. What is damaged is logged.
    """
    recall, path = schemes.load(profile.scheme).recall, f"{state}/{profile.name}"
    try:
        text = store.read_own(path)
        memory = recall(profile, text, path, latest)
        if damaged(text):
            import logging  # a client has no use for it

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
    """The next counter of a client, by its file and by the clock, whichever is further."""
    try:
        return max(read_counter(path), clock)
    except FileNotFoundError:
        if not clock:
            raise
        return clock


@contextlib.contextmanager
def taking(directory: str, clock: int = 0, end: float | None = None) -> Iterator[int]:
    """A counter of a client's profile that nobody else gets, durably used up from here on. Raises CounterError.

    Nobody takes the next one until this ends: what the body sends is before what others send.

    clock: seconds since 1970 for a profile that counts by it, of which a lost file is no loss; 0 for others. end: the
    monotonic time until which others who take one are waited for; None: without end.
    """
    path = f"{directory}/counter"
    with contextlib.ExitStack() as stack:
        try:
            _lock(stack.enter_context(store.directory_fd(directory)), directory, end)
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


def adopt(state: str, profiles: str, profile: Profile, become: Callable[[], AbstractContextManager[None]]) -> None:
    """Make the counter that knockknock 0.8 left the daemon's, whom `become` makes us, once. Raises CounterError."""
    if profile.legacy and not os.path.lexists(path := f"{state}/{profile.name}"):
        counter = server_memory(state, profiles, profile)
        with become():
            store_slots(path, counter)
