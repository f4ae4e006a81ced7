"""The options of doors that every scheme's config shares. Pure."""

from collections.abc import Iterable

from ..core import ini
from ..core.profile import Profile

MAX_DELAY = 3600
"""Seconds; a door that must stay open longer needs a firewall rule, not a knock."""
MAX_DOORS_PER_MINUTE = 60000

KEYS: ini.Keys = {
    "single_use": ini.boolean,
    "delay": ini.whole(1, MAX_DELAY),
    "doors_per_minute": ini.whole(1, MAX_DOORS_PER_MINUTE),
}


def write(profile: Profile) -> Iterable[str]:
    """The lines of a config that set these keys."""
    if profile.single_use is not None:
        yield f"single_use = {'yes' if profile.single_use else 'no'}"
    if profile.delay is not None:
        yield f"delay = {profile.delay}"
    if profile.doors_per_minute is not None:
        yield f"doors_per_minute = {profile.doors_per_minute}"
