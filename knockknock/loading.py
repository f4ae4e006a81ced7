"""Loads profiles: at once at the start, in small steps between packets at a reload."""

import os
import shlex
from collections.abc import Generator, Hashable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from . import clock, counters, legacy, moment, schemes, store
from .config import Config
from .errors import CounterError, GuardError, KnockError
from .gatekeeper import Gatekeeper, Settings
from .schemes import Profile

_ = legacy, moment, shlex
"""Modules for names of knockknock 0.8 and profiles that expire; a sandboxed daemon cannot import them later."""


ANY_SOURCE = frozenset({"tcp timestamps", "payload"})
"""Everything that some source gives (sources.GIVES), for readers of profiles that know of no source."""


class Found(NamedTuple):
    """The differences between profiles on disk and those that are heard."""

    gone: set[str]
    """The names of profiles that are to be heard no more."""
    changes: list[tuple[Profile, Any]]
    """Profiles to add or replace, each with its used knocks."""
    bad: dict[str, KnockError]
    """By name, what is wrong with the profiles that cannot be used, or are kept as they were."""


def settings(config: Config) -> Settings:
    """The part of the configuration that a gatekeeper goes by."""
    return Settings(config.delay, config.error_window, config.single_use, config.resync_window, config.clock_skew)


def find(
    config: Config, gives: frozenset[str], keeper: Gatekeeper, recall: bool = True
) -> Generator[None, None, Found]:
    """Read all profiles, one at each step. Changes nothing. Raises ProfileError.

    gives: of the source. recall: read what is known of their used knocks, too; else that is None.
    """
    found, twins = Found(keeper.names(), [], {}), _Twins(config, keeper)
    for one in store.profiles(config.profiles):
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
                found.changes.append((profile, None))  # goes on as it is
            found.gone.discard(name)
        except KnockError as error:
            found.bad[name] = error
    return found


def _check_guard(config: Config, profile: Profile) -> None:
    """Raises GuardError."""
    if config.scan_guard and profile.tries > config.scan_ports:
        raise GuardError(
            f"its knock tries {profile.tries} TCP ports, and the scan guard shuts out who tries more than "
            f"{config.scan_ports}: set scan_ports = {profile.tries} or more"
        )


class _Twins:
    """Finds profiles with the same secrets: each knock by them would be good once for every name.

    The one that is heard now stays, else the one that has a counter, else the one with the older key file.
    """

    def __init__(self, config: Config, keeper: Gatekeeper) -> None:
        self._config, self._keeper = config, keeper
        self._names: dict[int, str] = {}
        """By the hash of a secret: for a hundred thousand profiles the secrets themselves take too much memory."""

    def younger_than(self, profile: Profile) -> set[str]:
        """The names that a profile takes the place of. Raises KnockError if it is the younger one itself."""
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
        """The key that sorts the older profile first; profile: one with the same secret. In a database: by rows."""
        scheme, before = schemes.load(profile.scheme), self._keeper.profile(name)
        heard = before is not None and before.scheme == profile.scheme and secret in scheme.unshared(before)
        if store.is_database(self._config.profiles):
            return (not heard,)
        counted = os.path.lexists(f"{self._config.state}/{name}")
        return not heard, not counted, store.made(f"{self._config.profiles}/{name}", profile), len(name), name

    @staticmethod
    def refusal(other: str) -> KnockError:
        return KnockError(
            f"it has the secrets of {other}, and a recorded knock would open once for each of the two: "
            "remove one of them, or revoke this one and mint it anew"
        )


def recalled(config: Config, profile: Profile) -> Any:
    """Read a profile's used knocks: for most schemes the next counter that the server accepts. Raises CounterError."""
    latest = clock.seconds() + config.clock_skew + 1
    return counters.server_memory(config.state, config.profiles, profile, latest)


def _kept(config: Config, name: str, error: KnockError, before: Profile | None, bad: dict[str, KnockError]) -> Profile:
    """The profile as it was, if its files can be read by root only. Raises KnockError for any other."""
    if store.is_database(config.profiles) or _readable(f"{config.profiles}/{name}"):
        raise error
    bad[name] = KnockError(
        f"{'kept as it was, whatever its files say now' if before else 'not taken'}, because only root may read it: "
        f"cd {config.profiles} && chgrp -R {config.user} {name} && chmod -R g+rX {name}"
    )
    if before is None:
        raise bad[name]
    return before


def _readable(directory: str) -> bool:
    """Return whether we may read all that is in a directory."""
    try:
        return all(os.access(f"{directory}/{file}", os.R_OK) for file in os.listdir(directory))
    except OSError as error:
        return not isinstance(error, PermissionError)


def apply(keeper: Gatekeeper, found: Found, state: str) -> Iterator[None]:
    """Hear what was found, a profile at each step; the keeper's settings are the new ones already.

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


def _name(change: tuple[Profile, Any]) -> str:
    return change[0].name


def _secrets(profile: Profile) -> set[int]:
    """Hashes of the secrets that no other profile may have."""
    return {hash((profile.scheme, secret)) for secret in schemes.load(profile.scheme).unshared(profile)}


def _moved(keeper: Gatekeeper, state: str, profile: Profile, counter: Any, gone: Mapping[int, str]) -> Any:
    """The next counter of a profile; if its keys were heard until now under another name, it takes over from there.

    gone: by their secrets, the names that are to be heard no more. NAME.old takes over from NAME, too, or NAME from it.
    So what was heard before keys were rotated, or a profile was renamed, is not good once more.
    """
    if not isinstance(counter, int):  # of a scheme without a counter, whose memory has the time in it
        return counter
    secrets = _secrets(profile)
    names = {profile.name.removesuffix(".old"), f"{profile.name}.old", *(gone.get(secret, "") for secret in secrets)}
    for name in names - {profile.name}:
        before = keeper.profile(name)
        if before and secrets & _secrets(before):
            counter = max(counter, counters.server_memory(state, "", before))
            counters.store_slots(f"{state}/{profile.name}", counter)
            keeper.remove(name)
    return counter


def look(config: Config, gives: frozenset[str], recall: bool = True) -> Found:
    """All that a start needs: everything is new. Raises ProfileError, GuardError. Arguments: as of find()."""
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
    """A gatekeeper for what look() has found, and has no more when this returns."""
    for at, (profile, memory) in reversed(list(enumerate(found.changes))):
        if memory is None:
            try:
                found.changes[at] = profile, recalled(config, profile)
            except CounterError as error:
                found.bad[profile.name] = error
                del found.changes[at]
    keeper = Gatekeeper(settings(config), len(found.changes))
    for _ in apply(keeper, found, config.state):
        pass
    return keeper
