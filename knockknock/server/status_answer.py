"""Builds the daemon's answer to `knockknock-daemon status`."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .. import __version__, schemes
from ..core.counter_text import parse_counter
from ..core.events import Reason
from ..core.profile import Profile
from ..errors import CounterError, FirewallError, GrantError
from ..profiles import files
from ..root.record import Grant
from ..sources import Source
from . import event_text
from .expected_values import Expected
from .privsep import Helper

PROFILES, PORTS = 1000, 100
"""The most profiles in an answer, and ports of each; so it has at most 4 MiB (cli.status.LONGEST)."""


def counted(counts: Mapping[tuple[str, str], int], seconds: float) -> dict[str, Any]:
    """Return the answer's part about events since the start. counts: by name and reason. seconds: since the start."""
    refused = {reason.value: counts.get(("refused", reason.value), 0) for reason in Reason}
    refused["unexamined"] = counts.get(("ignored", ""), 0)
    knocks = {
        "accepted": counts.get(("accepted", ""), 0),
        "failed": sum(number for (event, _), number in counts.items() if event == "failed"),
        "refused": refused,
    }
    return {"running": True, "version": __version__, "pid": os.getpid(), "seconds": int(seconds), "knocks": knocks}


def now(
    state: str,
    profiles: Sequence[Profile],
    in_all: int,
    source: Source,
    deaf: str,
    expected: Expected,
    helper: Helper,
    address: bytes,
) -> dict[str, Any]:
    """Return the part of the answer about this moment. Raises PrivilegeError.

    state: the directory of the counters. profiles: those to list. in_all: the number of all. deaf: what is wrong with
    the source, or "". expected: the values in the kernel's sets. address: of the source whose doors to list, b"": all.
    """
    problem, number, doors, passed = "", 0, list[Grant](), 0
    try:
        number, doors = helper.doors(address)
        passed = helper.logged()[1]
    except (FirewallError, GrantError) as error:
        problem = str(error)
    return {
        "source": source.path,
        "deaf": deaf,
        "expected": {"profiles": len(expected), "ahead": expected.ahead, "passed_over": passed},
        "every_syn": sorted(expected.every)[:PORTS],
        "firewall": helper.summary,
        "problem": problem,
        "open": [event_text.door(door) for door in doors],
        "open_in_all": number,
        "profiles": [_profile(state, profile) for profile in profiles],
        "profiles_in_all": in_all,
    }


def _profile(state: str, profile: Profile) -> dict[str, Any]:
    path = f"{state}/{profile.name}"
    counter, used = None, None
    try:
        text = files.read(path)
        # Minting writes the first text; every knock changes it.
        used = int(os.stat(path).st_mtime) if text != schemes.load(profile.scheme).first(profile) else None
        counter = parse_counter(text, path)
    except (CounterError, OSError):  # CounterError: not every scheme has a counter
        pass
    return {
        "name": profile.name,
        "knock_port": profile.where,
        "format": profile.kind,
        "ports": [str(ports) for ports in profile.ports[:PORTS]],
        "ports_in_all": len(profile.ports),
        "next_counter": counter,
        "last_use": used,
    }
