"""Lists the profiles of a client without their keys, for knockknock --list."""

import os
import sys

from .. import schemes
from ..client import raw_socket
from ..client.knock import check_own, check_profile
from ..errors import KnockError
from ..profiles import clock, counters, files, legacy
from ..schemes.syn.profile import Profile
from . import columns, expiry
from .knock_options import Options

HEAD = ("SERVER", "KNOCKPORT", "FORMAT", "NEXT", "EXPIRES", "MAY OPEN")


def command(_options: Options) -> None:
    """Print the good profiles, then what is wrong with others. Raises KnockError if there are such."""
    now, rows, bad = clock.seconds(), [], []
    place = f"{raw_socket.become_invoker()}/.knockknock"
    if os.path.isdir(place):
        check_own(place)
    for name in sorted(files.names(place)):
        try:
            check_profile(f"{place}/{name}")
            profile = files.load_profile(f"{place}/{name}")
            counter = None
            if schemes.load(profile.scheme).counter(profile) is not None:
                by_clock = isinstance(profile, Profile) and profile.clock
                counter = counters.next_counter(f"{place}/{name}", 0, now if by_clock else 0)
        except KnockError as error:
            bad.append(f"{name}: {error}")
            continue
        ports = ", ".join(map(str, profile.ports))
        rows.append(
            (
                name,
                profile.where,
                profile.kind,
                "" if counter is None else str(counter),
                expiry(profile.expires, now),
                ports,
            )
        )
    if rows or bad:
        print(columns([HEAD, *rows]))
    else:
        print(f"There is no profile in {place}: {legacy.way_out(place) or 'knockknock --enroll makes one.'}")
    for line in bad:
        print(line, file=sys.stderr)
    if bad:
        raise KnockError("not all is well, see above")
