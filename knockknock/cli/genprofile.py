"""knockknock-genprofile: mints a client's keys on the server."""

import argparse
import base64
import contextlib
import os
import secrets
import socket

from .. import __version__, config, ini, minting, privsep, store
from ..errors import ConfigError, KnockError, ProfileError
from ..profile import KEY_SIZES, check_name, parse_config, write_config
from ..request import TCP, UDP, Ports, parse_ports, port_number
from ..schemes import KnockPort, otp, sequence
from ..schemes import Profile as AnyProfile
from ..schemes.synprofile import FORMATS, Profile
from . import formatter, run

MOST_SEQUENCES = 1000
"""One-time sequences of a new profile: all of their ports are watched."""


def _ports(text: str) -> tuple[Ports, ...]:
    try:
        return parse_ports(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number(text: str) -> int:
    try:
        return ini.whole(1, MOST_SEQUENCES)(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _steps(text: str) -> sequence.Steps:
    try:
        return sequence.parse_steps(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _port(text: str) -> int:
    try:
        return port_number(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(
        prog="knockknock-genprofile",
        formatter_class=formatter,
        description="Makes a profile: the keys of one client, the port that it knocks at, and what it may open.",
        epilog="Exit status: 0 only if a profile was made, 1 could not, 2 usage.",
    )
    options.add_argument("name", metavar="NAME", help="of the client: letters, digits, dots, dashes, underscores")
    options.add_argument(
        "knock_port",
        metavar="KNOCKPORT",
        nargs="?",
        type=_port,
        help="a port where nothing listens, TCP or, with --scheme otp, UDP; profiles may share it",
    )
    options.add_argument(
        "--scheme",
        choices=["syn", "otp"],
        default="syn",
        help="how it knocks at KNOCKPORT: encrypted SYN, or one-time password by UDP, for which the daemon needs "
        "source = nflog (default %(default)s)",
    )
    options.add_argument(
        "--otp-layout",
        choices=otp.LAYOUTS,
        help=f"what a one-time password is made of; pknock: as for xt_pknock (default {otp.LAYOUTS[0]})",
    )
    options.add_argument(
        "--format",
        choices=sorted(FORMATS),
        help="header fields that carry the knock (default compact)",
    )
    options.add_argument(
        "--ports",
        type=_ports,
        default="tcp/22",
        metavar="LIST",
        help="what it may open: tcp/22,udp/51820,tcp/8000-8010 (default %(default)s)",
    )
    options.add_argument(
        "--bind-source",
        action="store_true",
        help="make a knock valid from the client's own address only; not through NAT",
    )
    options.add_argument(
        "--counter",
        choices=["event", "clock"],
        default="event",
        help="clock: knocks are numbered by the time of day, so that a lost counter does no harm (default %(default)s)",
    )
    options.add_argument(
        "--sequence",
        metavar="LIST",
        type=_steps,
        help="instead of KNOCKPORT: a port sequence, tcp/2002,udp/2001,tcp/2004; much weaker, see PROTOCOL.md",
    )
    options.add_argument(
        "--one-time",
        metavar="N",
        type=_number,
        help=f"instead of --sequence: N sequences of random ports, each good once; at most {MOST_SEQUENCES}",
    )
    options.add_argument("--close", metavar="LIST", type=_steps, help="a sequence that closes; with --sequence")
    options.add_argument(
        "--out",
        metavar="DIR",
        help="make this directory, with the client's copy, for root alone; must be given if profiles are in a database",
    )
    options.add_argument(
        "--config", metavar="FILE", default=config.DEFAULT_PATH, help="the daemon's configuration (default %(default)s)"
    )
    options.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return options


def check_port(port: int, protocol: int = TCP) -> None:
    """Raises ProfileError if a service of this machine listens on a port."""
    kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
    for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family, kind) as probe:
                if protocol == TCP:  # for UDP it would let two services share the port
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((any_address, port))
        except OSError as error:
            if error.errno == 98:
                raise ProfileError(
                    f"a service of this machine listens on port {port}: take a knock port where nothing answers"
                ) from None


def command(arguments: list[str]) -> None:
    options = parser().parse_args(arguments)
    settings = (
        store.load_config(options.config)
        if options.config != config.DEFAULT_PATH or os.path.exists(options.config)
        else config.Config()
    )
    name = check_name(options.name)
    beyond = options.bind_source or options.counter == "clock" or any(one.protocol != 6 for one in options.ports)
    if options.format == "classic" and beyond:
        parser().error(
            "--format classic binds no source, knows no clock and opens no udp port: take compact or stealth"
        )
    plain = options.sequence or options.one_time
    if [bool(one) for one in (options.knock_port, options.sequence, options.one_time)].count(True) != 1:
        parser().error("say one of KNOCKPORT, --sequence and --one-time")
    if options.close and not plain:
        parser().error("--close goes with --sequence or --one-time")
    if plain and (options.format or options.bind_source or options.counter == "clock"):
        parser().error("--format, --bind-source and --counter are for encrypted SYNs: they do not go with a sequence")
    if options.scheme == "otp":
        _check_otp(options)
    elif options.otp_layout:
        parser().error("--otp-layout goes with --scheme otp")
    options.format = options.format or "compact"
    if options.one_time and store.is_database(settings.profiles):
        parser().error(f"{settings.profiles} is a database: --one-time needs a directory for its file")
    if store.is_database(settings.profiles) and not options.out:
        parser().error(f"{settings.profiles} is a database: say with --out DIR where to write the client's copy")
    if os.geteuid() != 0:
        raise KnockError(f"it must be run as root, to write {settings.profiles}")
    user = privsep.find_user(settings.user)
    profile = _profile(name, options)
    for protocol, port in sorted(profile.knock_ports):
        check_port(port, protocol)
    out = os.path.abspath(options.out) if options.out else None
    minting.mint(settings.profiles, settings.state, profile, (user.pw_uid, user.pw_gid), out)
    print(_next_steps(settings.profiles, name, out, options.ports[0], "sudo " if isinstance(profile, Profile) else ""))
    if "payload" in profile.needs and settings.source != "nflog":
        print(f"\nFor this profile the daemon needs source = nflog in {options.config}, and a restart.")


def _check_otp(options: argparse.Namespace) -> None:
    """Ends with a usage error if other options do not go with --scheme otp."""
    if options.sequence or options.one_time:
        parser().error("--scheme otp does not go with a sequence")
    if options.format or options.bind_source or options.counter == "clock":
        parser().error("--format, --bind-source and --counter are for encrypted SYNs: not with --scheme otp")
    if sum(one.last - one.first + 1 for one in options.ports) > otp.MAX_DOORS:
        parser().error(f"--scheme otp opens all of --ports at once, and at most {otp.MAX_DOORS}")


def _profile(name: str, options: argparse.Namespace) -> AnyProfile:
    if options.sequence or options.one_time:
        draft = sequence.Profile(name, options.sequence or (), options.ports, close=options.close or ())
        if options.one_time:
            steps = tuple(_random_steps() for _ in range(options.one_time))
            draft = draft._replace(one_time="sequences", sequences=steps)
        parse_config(write_config(draft), "these options")  # raises ConfigError for what does not go together
        return draft
    if options.scheme == "otp":
        opensecret, closesecret = (base64.b64encode(os.urandom(otp.NEW_SECRET)) for _ in otp.SECRETS)
        layout = options.otp_layout or otp.LAYOUTS[0]
        return otp.Profile(name, opensecret, closesecret, options.knock_port, layout, options.ports)
    size = KEY_SIZES[0] if options.format == "classic" else KEY_SIZES[1]  # all that knockknock 0.8 knows
    keys = os.urandom(size), os.urandom(size)
    profile = Profile(name, *keys, options.knock_port, options.format, options.ports, options.bind_source)
    return profile._replace(clock=options.counter == "clock")


def _random_steps() -> sequence.Steps:
    """A sequence of four ports where nothing listens, chosen by chance."""
    found: list[KnockPort] = []
    while len(found) < 4:
        step = TCP if secrets.randbits(1) else UDP, 1024 + secrets.randbelow(64512)
        with contextlib.suppress(ProfileError):
            check_port(step[1], step[0])
            found.append(step)
    return tuple(found)


def _next_steps(profiles: str, name: str, out: str | None, first: Ports, sudo: str) -> str:
    directory = out or f"{profiles}/{name}"
    made = f"{name} in {profiles}, and the client's copy {out}" if out else directory
    remove = f"\nThen remove the copy here:\n    sudo rm -r {out}" if out else ""
    port = f"{first.first}" if first.protocol == 6 else f"{first.first}/udp"
    server = socket.gethostname()
    return f"""Made {made}.

Let the daemon read it (or start it, if it does not run yet):
    sudo systemctl reload knockknock
Take the profile to the client, over a connection that you trust, under the name that the client calls this server:
    sudo tar -C {directory} -cf - . |
        ssh USER@CLIENT 'umask 077; d=~/.knockknock/{server}; mkdir -p $d &&
            tar --no-same-owner --no-same-permissions -C $d -xf -'{remove}
Then, on the client:
    {sudo}knockknock -p {port} {server}"""


def main() -> None:
    """The entry point of the command."""
    run("knockknock-genprofile", command)
