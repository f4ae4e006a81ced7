"""Names the schemes; imports a scheme's modules when a profile names it."""

from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:  # a client would spend a millisecond on them
    from ..core.profile import Profile, Settings
    from .protocols import Listener, Scheme

SCHEMES = ("syn", "sequence", "otp")
"""Each is a package of this name, with the modules profile (protocols.Scheme) and listener (protocols.Listener)."""
DEFAULT = "syn"


@lru_cache
def load(scheme: str) -> "Scheme[Profile, object]":
    """Return the profile module of a scheme. Raises KeyError for a word that is not in SCHEMES.

    It takes only profiles and memory of its own scheme, so look the module up by Profile.scheme.
    """
    return cast("Scheme[Profile, object]", _module(scheme, "profile"))


def new_listener(scheme: str, settings: "Settings", expected: int) -> "Listener[Profile, object]":
    """Return a listener of a scheme; expected: the number of profiles that are about to be added."""
    return cast("Listener[Profile, object]", _module(scheme, "listener").new_listener(settings, expected))


def _module(scheme: str, name: str) -> ModuleType:
    if scheme not in SCHEMES:
        raise KeyError(scheme)
    return import_module(f"{__name__}.{scheme}.{name}")
