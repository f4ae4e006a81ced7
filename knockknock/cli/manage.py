"""Lists, revokes and rotates profiles, and shows their lines again, for knockknock-genprofile."""

import argparse
import os
import sys

from .. import clock, counters, loading, minting, moment, running
from ..config import Config
from ..errors import KnockError, ProfileError
from . import columns, expiry, genprofile, handover

HEAD = ("NAME", "KNOCKPORT", "FORMAT", "NEXT", "EXPIRES", "MAY OPEN")


def show(settings: Config) -> None:
    """Print the profiles that are good, then say what is wrong with others. Raises KnockError if there are such."""
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
    minting.revoke(settings.profiles, options.revoke)
    print(f"Revoked {options.revoke}.")
    if options.reload and running.reload(settings.state):
        print("The daemon hears it no more.")
    elif pid := running.daemon(settings.state):
        # Its counter stays where it is, for the daemon to go on with, until it knows; a later mint takes the place.
        print(f"The daemon (process {pid}) hears it until it is told:\n    sudo systemctl reload knockknock")
        return
    try:
        os.unlink(path := f"{settings.state}/{options.revoke}")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise KnockError(f"it is revoked, but {path} cannot be removed: {error.strerror}") from None


def rotate(options: argparse.Namespace, settings: Config, owner: minting.Owner) -> None:
    """New keys for a profile. Raises KnockError."""
    now, name = clock.seconds(), options.rotate
    until = now + (moment.span(genprofile.GRACE) if options.grace is None else options.grace)
    current = minting.find(settings.profiles, name)
    expires = options.expires or current.expires
    if expires and expires <= now:
        raise ProfileError(f"{name} expired on {moment.show(expires)}: say --expires with a later date")
    fresh = genprofile.fresh_keys(current._replace(expires=expires))
    with handover.handed_over(options, fresh) as line:
        minting.rotate(settings.profiles, settings.state, current, fresh, until, now, owner)
    old = (
        f"; the old ones are good until {moment.show(until)}, as {name}.old"
        if until > now
        else "; the old ones are gone"
    )
    with handover.shown_again(name):
        print(f"Made new keys for {name} in {settings.profiles}{old}.\n", flush=True)
        heard = running.reload(settings.state)
        print(handover.steps(options, fresh, line, replace=True, heard=heard), flush=True)


def show_line(options: argparse.Namespace, settings: Config) -> None:
    """Print the line of a profile that was never used. Raises KnockError."""
    profile = minting.find(settings.profiles, options.show_line)
    if counters.server_memory(settings.state, settings.profiles, profile):
        raise ProfileError(
            f"{profile.name} was used already, so a client has it: for another one mint another profile, or --rotate it"
        )
    with handover.handed_over(options, profile) as line:
        print(handover.steps(options, profile, line, replace=False, heard=True))


def manage(options: argparse.Namespace, settings: Config, owner: minting.Owner) -> None:
    """Do what was asked for. Raises KnockError."""
    if options.list:
        show(settings)
    elif options.revoke:
        revoke(options, settings)
    elif options.show_line:
        show_line(options, settings)
    else:
        rotate(options, settings, owner)
