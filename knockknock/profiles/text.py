"""Converts profile names and configs to and from text; each scheme defines its own options. No I/O."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

from .. import schemes
from ..core import ini
from ..core.profile import Profile
from ..errors import ConfigError, ProfileError

_SCHEME: ini.Keys = {"scheme": ini.one_of(*schemes.SCHEMES)}


def check_name(name: str) -> str:
    """Return the name if it can name a profile: at most 64 letters, digits and `._-`. Raises ProfileError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ProfileError(
            f"'{shown(name)}' cannot name a profile: take up to 64 letters, digits, dots, dashes and underscores, "
            "the first of them a letter or a digit"
        )
    return name


def shown(name: str) -> str:
    """Return a name, valid or not, as one line of printable text."""
    return name if name.isprintable() else ascii(name)[1:-1]


def parse_config(text: str, where: str) -> Profile:
    """Return a profile without name and keys from its config text. Raises ConfigError.

    `scheme` decides which other keys there may be; the default is `syn`.
    """
    try:
        return _parsed(text)
    except ConfigError:
        return _parse(text, where)  # raises it again, with the file and line


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Profile:
    """Cache the result, because most of a server's profiles have the same text."""
    return _parse(text, "config")


def _parse(text: str, where: str) -> Profile:
    found = ini.items(text, where)
    word = ini.made(text, where, _SCHEME, "scheme", found.get("scheme", schemes.DEFAULT))
    scheme = schemes.load(word)
    keys = {**_SCHEME, **scheme.KEYS}
    values = {key: ini.made(text, where, keys, key, value) for key, value in found.items()}
    values.pop("scheme", None)
    return scheme.parse(values, where)


def named(draft: Profile, name: str, secrets: Mapping[str, bytes], **more: bool) -> Profile:
    """Return a draft of parse_config() with name and secrets; secrets: by field, as in the scheme's SECRETS."""
    return cast(Profile, cast(Any, draft)._replace(name=name, **secrets, **more))


def write_config(profile: Profile) -> str:
    """Return the config text that parse_config() reads back."""
    word = [] if profile.scheme == schemes.DEFAULT else [f"scheme = {profile.scheme}"]
    return "\n".join(["[main]", *word, *schemes.load(profile.scheme).write(profile), ""])
