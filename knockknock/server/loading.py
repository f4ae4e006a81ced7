"""Loads profiles: all at once at the start, in small steps between packets at a reload."""

import os
import shlex
from collections.abc import Generator, Hashable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from .. import schemes
from ..core import dates
from ..core.profile import Profile, Settings
from ..errors import CounterError, GuardError, KnockError, ProfileError
from ..profiles import clock, counters, files, legacy
from .config import Config
from .gatekeeper import Gatekeeper

_ = legacy, dates, shlex
"""Modules for names of knockknock 0.8 and profiles that expire; a sandboxed daemon cannot import them later."""


ANY_SOURCE = frozenset({"tcp timestamps", "payload"})
"""All data that sources give (sources.Source.GIVES), for commands that look at profiles without a source."""


class Found(NamedTuple):
    """The differences between the profiles on disk and those of a gatekeeper."""

    gone: set[str]
    """The names of the profiles to remove."""
    changes: list[tuple[Profile, object]]
    """The profiles to add or replace, each with the memory of its used knocks, None for as before or unread."""
    bad: dict[str, KnockError]
    """The errors of profiles that cannot be used, or are kept as they were, by name."""


def settings(config: Config) -> Settings:
    """Return the part of the configuration that a gatekeeper needs."""
    return Settings(config.delay, config.error_window, config.single_use, config.resync_window, config.clock_skew)


def find(
    config: Config, gives: frozenset[str], keeper: Gatekeeper, recall: bool = True
) -> Generator[None, None, Found]:
    """Read all profiles, one at each step. Changes nothing. Raises ProfileError.

    gives: GIVES of the source. recall: read the memory of used knocks, too; else it is None.
    """
    found, twins = Found(keeper.names(), [], {}), _Twins(config, keeper)
    for one in files.profiles(config.profiles):
        yield
        if one is None:
            continue
        name, profile = one
        before = keeper.profile(name)
        try:
            if isinstance(profile, KnockError):
                profile = _kept(config, name, profile, before, found.bad)
            for younger in twins.younger_than(profile):
                found.gone.add(younger)
                found.changes[:] = [change for change in found.changes if change[0].name != younger]
                found.bad[younger] = _Twins.refusal(name)
            if profile != before:
                if missing := profile.needs - gives:
                    raise KnockError(
                        f"a knock by {profile.kind} needs a source that gives {', '.join(missing)}: set source = nflog"
                    )
                _check_guard(config, profile)
                found.changes.append((profile, recalled(config, profile) if recall else None))
            elif (keeper.settings.window, keeper.settings.skew) != (config.error_window, config.clock_skew):
                found.changes.append((profile, None))  # keeps its memory
            found.gone.discard(name)
        except KnockError as error:
            found.bad[name] = error
    return found


def _check_guard(config: Config, profile: Profile) -> None:
    """Raise GuardError if a knock of a profile would make the scan guard block its client."""
    if config.scan_guard and profile.tries > config.scan_ports:
        raise GuardError(
            f"its knock tries {profile.tries} TCP ports, and the scan guard blocks a source that tries more "
            f"than {config.scan_ports}: set scan_ports = {profile.tries} or more"
        )


class _Twins:
    """Finds profiles with the same secrets: the server would accept each of their knocks once for every name.

    The one that is heard now stays, else the one that has a counter, else the one with the older key file.
    """

    def __init__(self, config: Config, keeper: Gatekeeper) -> None:
        self._config, self._keeper = config, keeper
        self._names: dict[int, str] = {}
        """Names by the hash of a secret: the secrets of a hundred thousand profiles would take too much memory."""

    def younger_than(self, profile: Profile) -> set[str]:
        """Return the names of younger profiles with its secrets. Raises KnockError if this is the younger one."""
        secrets, younger = {}, set()
        for secret in schemes.load(profile.scheme).unshared(profile):
            secrets[hash((profile.scheme, secret))] = profile.name
            other = self._names.get(hash((profile.scheme, secret)), profile.name)
            if other != profile.name:
                if self._age(profile.name, profile, secret) >= self._age(other, profile, secret):
                    raise self.refusal(other)
                younger.add(other)
        self._names |= secrets
        return younger

    def _age(self, name: str, profile: Profile, secret: Hashable) -> tuple[Any, ...]:
        """Return a key that sorts the older profile first; in a database rows decide. profile: one with the secret."""
        scheme, before = schemes.load(profile.scheme), self._keeper.profile(name)
        heard = before is not None and before.scheme == profile.scheme and secret in scheme.unshared(before)
        if files.is_database(self._config.profiles):
            return (not heard,)
        counted = os.path.lexists(f"{self._config.state}/{name}")
        return not heard, not counted, files.made(f"{self._config.profiles}/{name}", profile), len(name), name

    @staticmethod
    def refusal(other: str) -> KnockError:
        return KnockError(
            f"it has the secrets of {other}, and a recorded knock would open once for each of the two: "
            "remove one of them, or revoke this one and mint it anew"
        )


def recalled(config: Config, profile: Profile) -> object:
    """Return the memory of a profile's used knocks, for most schemes the next counter to accept.

    Raises CounterError, and ProfileError for one-time passwords with bad secrets.
    """
    latest = clock.seconds() + config.clock_skew + 1
    return counters.server_memory(config.state, config.profiles, profile, latest)


def _kept(config: Config, name: str, error: KnockError, before: Profile | None, bad: dict[str, KnockError]) -> Profile:
    """Return the profile as it was, if only root can read its files. Raises KnockError for any other error."""
    if files.is_database(config.profiles) or _readable(f"{config.profiles}/{name}"):
        raise error
    bad[name] = KnockError(
        f"{'kept as it was, whatever its files say now' if before else 'not taken'}, because only root may read it: "
        f"cd {config.profiles} && chgrp -R {config.user} {name} && chmod -R g+rX {name}"
    )
    if before is None:
        raise bad[name]
    return before


def _readable(directory: str) -> bool:
    """Return False if we may not read a directory, or a file in it."""
    try:
        return all(os.access(f"{directory}/{file}", os.R_OK) for file in os.listdir(directory))
    except OSError as error:
        return not isinstance(error, PermissionError)


def apply(keeper: Gatekeeper, found: Found, state: str) -> Iterator[None]:
    """Add and remove what find() returned, one profile at each step. The keeper must have the new settings.

    state: the directory of the counters.
    """
    found.changes.sort(key=_name)
    gone: dict[int, str] = {}
    for name in found.gone:
        if profile := keeper.profile(name):
            gone |= dict.fromkeys(_secrets(profile), name)
        yield
    while found.changes:  # from the end, so that NAME.old comes before NAME
        profile, counter = found.changes.pop()
        try:
            keeper.add(profile, _moved(keeper, state, profile, counter, gone))
        except CounterError as error:
            found.bad[profile.name] = error
        yield
    while found.gone:
        name = found.gone.pop()
        if keeper.profile(name):
            keeper.remove(name)
        yield


def _name(change: tuple[Profile, object]) -> str:
    return change[0].name


def _secrets(profile: Profile) -> set[int]:
    """Return hashes of the secrets that no other profile may have."""
    return {hash((profile.scheme, secret)) for secret in schemes.load(profile.scheme).unshared(profile)}


def _moved(keeper: Gatekeeper, state: str, profile: Profile, counter: object, gone: Mapping[int, str]) -> object:
    """Return the next counter of a profile. If its keys had another name until now, take over the counter from there.

    gone: the names of the profiles to remove, by the hashes of their secrets. NAME and NAME.old take over from each
    other, too. So no knock can be replayed after a rotation of keys or a change of name.
    """
    if not isinstance(counter, int):  # a scheme without a counter: its memory has times
        return counter
    secrets = _secrets(profile)
    names = {profile.name.removesuffix(".old"), f"{profile.name}.old", *(gone.get(secret, "") for secret in secrets)}
    for name in names - {profile.name}:
        before = keeper.profile(name)
        if before and secrets & _secrets(before):
            counter = max(counter, counters.server_counter(state, "", before))
            counters.store_slots(f"{state}/{profile.name}", counter)
            keeper.remove(name)
    return counter


def look(config: Config, gives: frozenset[str], recall: bool = True) -> Found:
    """Find all profiles, as for a start. Raises ProfileError, GuardError. Arguments: as of find()."""
    work = find(config, gives, Gatekeeper(settings(config)), recall)
    while True:
        try:
            next(work)
        except StopIteration as done:
            found = cast(Found, done.value)
            for name, error in found.bad.items():
                if isinstance(error, GuardError):
                    raise GuardError(f"profile {name}: {error}") from None
            return found


def start(config: Config, found: Found) -> Gatekeeper:
    """Return a gatekeeper with the profiles that look() found; this empties found.changes."""
    for at, (profile, memory) in reversed(list(enumerate(found.changes))):
        if memory is None:
            try:
                found.changes[at] = profile, recalled(config, profile)
            except (CounterError, ProfileError) as error:
                found.bad[profile.name] = error
                del found.changes[at]
    keeper = Gatekeeper(settings(config), len(found.changes))
    for _ in apply(keeper, found, config.state):
        pass
    return keeper
