"""Finds what knockknock 0.8 left behind: profiles in root's home, and profiles with names no longer allowed."""

import contextlib
import os
import re

_PLACE = "/root/.knockknock"
_found: list[str] = []
"""Names in root's own directory of profiles, read while we were root."""


def look() -> None:
    """Note root's own profiles, for way_out(); call it as root, before root is given up."""
    with contextlib.suppress(OSError):
        import shlex  # noqa: F401  # for way_out(), when this Python may not be readable any more

        _found[:] = [name for name in os.listdir(_PLACE) if os.path.isdir(f"{_PLACE}/{name}")]


def way_out(place: str, name: str = "") -> str:
    """Return how to move root's profiles, "" if there are none (of that name). place: where they must be."""
    if not _found or (name and name not in _found):
        return ""
    import shlex  # imported here, because most have no such profiles

    here, user = shlex.quote(place), os.environ.get("SUDO_USER") or os.getuid()
    return (
        f"Root has profiles of its own, where sudo left those of knockknock 0.8: sudo sh -c 'mkdir -p -m 700 {here} && "
        f"mv -n {_PLACE}/* {here}/ && chown -R {user}: {here}'"
    )


def renamed(place: str, name: str) -> str:
    """Return the command that renames a profile's directory to a valid name."""
    import shlex  # as above

    fitting = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("._-")[:60] or "profile"
    free, number = fitting, 1
    while os.path.lexists(f"{place}/{free}"):
        number += 1
        free = f"{fitting}-{number}"
    return f"mv {shlex.quote(f'{place}/{name}')} {shlex.quote(f'{place}/{free}')}"
