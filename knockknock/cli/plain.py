"""Makes profiles of port sequences and one-time passwords, which no enrolment line can hold."""

import argparse
import base64
import contextlib
import os
import secrets

from .. import minting, running, store
from ..config import Config
from ..errors import KnockError, ProfileError
from ..packet import TCP, UDP
from ..profile import parse_config, write_config
from ..schemes import KnockPort, Profile, otp, sequence
from ..schemes.steps import Steps
from . import free, genprofile, handover


def mint(options: argparse.Namespace, settings: Config, owner: minting.Owner) -> None:
    """Make a new profile. Raises KnockError."""
    if store.is_database(settings.profiles):
        raise KnockError(
            f"{settings.profiles} is a database: a profile of this scheme is made in a directory of profiles"
        )
    profile = _passwords(options) if options.scheme == "otp" else _sequence(options)
    parse_config(write_config(profile), "these options")  # raises ConfigError for what does not go together
    for protocol, port in sorted(profile.knock_ports):
        free.check_port(port, protocol)
    minting.mint(settings.profiles, settings.state, profile, owner)
    print(f"Made {profile.name} in {settings.profiles}.\n", flush=True)
    if options.import_one_time:
        print("Stop knockd: as long as it runs, each of these sequences is good once for it, too.")
    if "payload" in profile.needs and settings.source != "nflog":
        print(f"For this profile the daemon needs source = nflog in {options.config}, and a restart.")
    heard = options.reload and running.reload(settings.state)
    reload = "" if heard else "Let the daemon read it (or start it):\n    sudo systemctl reload knockknock\n"
    server = handover.server(options)
    print(f"""{reload}Take the profile to the client, over a connection that you trust, under its name for this server:
    sudo tar -C {settings.profiles}/{profile.name} -cf - . |
        ssh USER@CLIENT 'umask 077; d=~/.knockknock/{server}; mkdir -p $d &&
            tar --no-same-owner --no-same-permissions -C $d -xf -'
Then, on the client:
    knockknock {server}""")


def _passwords(options: argparse.Namespace) -> Profile:
    opensecret, closesecret = (base64.b64encode(os.urandom(otp.NEW_SECRET)) for _ in otp.SECRETS)
    return otp.Profile(
        options.name,
        opensecret,
        closesecret,
        options.knock_port,
        options.otp_layout,
        options.ports,
        delay=options.delay,
    )


def _sequence(options: argparse.Namespace) -> Profile:
    profile = sequence.Profile(
        options.name, options.sequence or (), options.ports, close=options.close or (), delay=options.delay
    )
    if options.import_one_time:
        return _imported(profile, options.import_one_time)
    if not options.one_time:
        return profile
    steps = tuple(_random_steps() for _ in range(options.one_time))
    return profile._replace(one_time="sequences", sequences=steps)


def _imported(profile: sequence.Profile, path: str) -> sequence.Profile:
    """With the one-time sequences of a file of knockd, which puts a # before those that are used up."""
    try:
        found = sequence.complete(profile._replace(one_time="sequences"), store.read(path), path)
    except OSError as error:
        raise ProfileError(f"--import-one-time {path} cannot be read: {error.strerror}") from None
    if len(found.sequences) > genprofile.MOST_SEQUENCES:
        raise ProfileError(
            f"--import-one-time {path} has {len(found.sequences)} sequences, and all of their ports are watched: "
            f"take {genprofile.MOST_SEQUENCES} at most"
        )
    return found


def _random_steps() -> Steps:
    """A sequence of four ports where nothing listens, chosen by chance."""
    found: list[KnockPort] = []
    while len(found) < 4:
        step = TCP if secrets.randbits(1) else UDP, 1024 + secrets.randbelow(64512)
        with contextlib.suppress(ProfileError):
            free.check_port(step[1], step[0])
            found.append(step)
    return tuple(found)
