"""Lists, revokes and rotates profiles, and shows their lines again, for knockknock-genprofile."""

import argparse
import contextlib
import os
import sys

from ..core import dates
from ..errors import KnockError, ProfileError
from ..profiles import clock, counters, mint
from ..server import instance, loading
from ..server.config import Config
from . import columns, expiry, print_enrolment

HEAD = ("NAME", "KNOCKPORT", "FORMAT", "NEXT", "EXPIRES", "MAY OPEN")


def show(settings: Config) -> None:
    """Print the good profiles, then what is wrong with others. Raises KnockError if there are such."""
    now, found = clock.seconds(), loading.look(settings, loading.ANY_SOURCE)
    rows = [
        (
            profile.name,
            profile.where,
            profile.kind,
            str(counter) if isinstance(counter, int) else "",
            expiry(profile.expires, now),
            ", ".join(map(str, profile.ports)),
        )
        for profile, counter in found.changes
    ]
    for name, error in found.bad.items():
        print(f"profile {name}: {error}", file=sys.stderr)
    print(columns([HEAD, *sorted(rows)]))
    if found.bad:
        raise KnockError("not all is well, see above")


def revoke(options: argparse.Namespace, settings: Config) -> None:
    """Remove a profile. Raises KnockError."""
    mint.revoke(settings.profiles, options.revoke)
    print(f"Revoked {options.revoke}.")
    old = f"{options.revoke}.old"
    with contextlib.suppress(KnockError):  # a name or a profile that is none
        previous = mint.load(settings.profiles, old)
        if previous and (previous.expires is None or previous.expires > clock.seconds()):
            print(f"Its keys of before the last rotation are {old}, and not revoked: revoke {old}, too.")
    if options.reload and instance.reload(settings.state):
        print("The daemon hears it no more.")
    elif pid := instance.daemon(settings.state):
        # The counter file stays for the daemon until its reload; a later mint replaces it.
        print(f"The daemon (process {pid}) hears it until its next reload:\n    sudo systemctl reload knockknock")
        return
    try:
        os.unlink(path := f"{settings.state}/{options.revoke}")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise KnockError(f"it is revoked, but {path} cannot be removed: {error.strerror}") from None


def rotate(options: argparse.Namespace, settings: Config, owner: mint.Owner) -> None:
    """Make new keys for a profile. Raises KnockError."""
    now, name = clock.seconds(), options.rotate
    until = now + options.grace
    current = mint.find(settings.profiles, name)
    expires = options.expires or current.expires
    if expires and expires <= now:
        raise ProfileError(f"{name} expired on {dates.show(expires)}: say --expires with a later date")
    fresh = mint.fresh_keys(current._replace(expires=expires))
    with print_enrolment.handed_over(options, fresh) as line:
        mint.rotate(settings.profiles, settings.state, current, fresh, until, now, owner, instance.reload)
    old = (
        f"; the old ones are good until {dates.show(until)}, as {name}.old"
        if until > now
        else "; the old ones are gone"
    )
    with print_enrolment.shown_again(name):
        print(f"Made new keys for {name} in {settings.profiles}{old}.\n", flush=True)
        heard = instance.reload(settings.state)
        print(print_enrolment.steps(options, fresh, line, replace=True, heard=heard), flush=True)


def show_line(options: argparse.Namespace, settings: Config) -> None:
    """Print the line of a profile that was never used. Raises KnockError."""
    profile = mint.find(settings.profiles, options.show_line)
    if counters.server_memory(settings.state, settings.profiles, profile):
        raise ProfileError(
            f"{profile.name} was used already, so a client has it: for another one mint another profile, or rotate it"
        )
    with print_enrolment.handed_over(options, profile) as line:
        print(print_enrolment.steps(options, profile, line, replace=False, heard=True))


def manage(options: argparse.Namespace, settings: Config, owner: mint.Owner) -> None:
    """Run the mode that the options ask for. Raises KnockError."""
    if options.list:
        show(settings)
    elif options.revoke:
        revoke(options, settings)
    elif options.show_line:
        show_line(options, settings)
    else:
        rotate(options, settings, owner)
