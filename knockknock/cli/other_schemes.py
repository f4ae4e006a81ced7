"""Makes profiles of the schemes that have no enrolment line: port sequences and one-time passwords."""

import argparse
import base64
import contextlib
import os
import secrets

from ..core.packet import TCP, UDP
from ..core.profile import KnockPort, Profile
from ..errors import KnockError, ProfileError
from ..profiles import files, mint
from ..profiles.text import parse_config, write_config
from ..schemes.otp import profile as otp
from ..schemes.sequence import profile as sequence
from ..schemes.sequence.notation import Steps
from ..server import instance
from ..server.config import Config
from . import port_in_use, print_enrolment


def new_profile(options: argparse.Namespace, settings: Config, owner: mint.Owner) -> None:
    """Make a new profile. Raises KnockError."""
    if files.is_database(settings.profiles):
        raise KnockError(
            f"{settings.profiles} is a database: a profile of this scheme is made in a directory of profiles"
        )
    profile = _passwords(options) if options.scheme == "otp" else _sequence(options)
    parse_config(write_config(profile), "these options")  # raises ConfigError if options do not go together
    for protocol, port in sorted(profile.knock_ports):
        port_in_use.check_port(port, protocol)
    mint.mint(settings.profiles, settings.state, profile, owner, instance.reload)
    print(f"Made {profile.name} in {settings.profiles}.\n", flush=True)
    if options.import_one_time:
        print("Stop knockd: as long as it runs, each of these sequences is good once for it, too.")
    if "payload" in profile.needs and settings.source != "nflog":
        print(f"For this profile the daemon needs source = nflog in {options.config}, and a restart.")
    heard = options.reload and instance.reload(settings.state)
    reload = "" if heard else "Let the daemon read it (or start it):\n    sudo systemctl reload knockknock\n"
    server = print_enrolment.server(options)
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
    """Add the one-time sequences of a file of knockd, which comments out those that are used up."""
    try:
        found = sequence.complete(profile._replace(one_time="sequences"), files.read(path), path)
    except OSError as error:
        raise ProfileError(f"--import-one-time {path} cannot be read: {error.strerror}") from None
    if len(found.sequences) > sequence.MOST_NEW:
        raise ProfileError(
            f"--import-one-time {path} has {len(found.sequences)} sequences, and all of their ports are watched: "
            f"take {sequence.MOST_NEW} at most"
        )
    return found


def _random_steps() -> Steps:
    """Return a sequence of four random ports where nothing listens."""
    found: list[KnockPort] = []
    while len(found) < 4:
        step = TCP if secrets.randbits(1) else UDP, 1024 + secrets.randbelow(64512)
        with contextlib.suppress(ProfileError):
            port_in_use.check_port(step[1], step[0])
            found.append(step)
    return tuple(found)
