"""Makes, lists, rotates and revokes the profiles of a server: the command knockknock-genprofile."""

import argparse
import os
from collections.abc import Callable
from typing import Any

from .. import __version__, clock, config, ini, minting, moment, ownership, privsep, running, store
from ..errors import ConfigError, KnockError, ProfileError
from ..profile import KEY_SIZES, check_name
from ..request import TCP, UDP, parse_ports, permitted, port_number
from ..schemes import otp, steps
from ..schemes.synprofile import FORMATS, Profile
from . import formatter, free, handover, run

GRACE = "7d"
"""Time that the old keys stay good after a rotation."""
FOR_NEW = {
    "scheme": "syn",
    "otp_layout": otp.LAYOUTS[0],
    "format": "compact",
    "ports": "tcp/22",
    "bind_source": False,
    "counter": "event",
}
"""Options that go with a new profile only, and their defaults."""

MOST_SEQUENCES = 1000
"""One-time sequences of a new profile: all of their ports are watched."""


def _type(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def value(text: str) -> Any:
        try:
            return parse(text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return value


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(
        prog="knockknock-genprofile",
        formatter_class=formatter,
        usage="knockknock-genprofile [options] NAME KNOCKPORT\n"
        "       knockknock-genprofile [options] --list | --revoke NAME | --rotate NAME | --show-line NAME",
        description="Makes a profile: the keys of one client, the port that it knocks at, and what it may open. Ends "
        "with a line to be pasted into knockknock --enroll on the client.",
        epilog="Exit status: 0 only if what was asked for was done, 1 could not, 2 usage.",
    )
    options.add_argument(
        "name", metavar="NAME", nargs="?", help="of the client: letters, digits, dots, dashes, underscores"
    )
    options.add_argument(
        "knock_port",
        metavar="KNOCKPORT",
        nargs="?",
        type=_type(port_number),
        help="a port where nothing listens, TCP or, with --scheme otp, UDP; profiles may share it",
    )
    options.add_argument(
        "--scheme",
        choices=["syn", "otp"],
        help="how it knocks at KNOCKPORT: encrypted SYN, or one-time password by UDP, for which the daemon needs "
        "source = nflog (default: syn)",
    )
    options.add_argument(
        "--otp-layout",
        choices=otp.LAYOUTS,
        help=f"what a one-time password is made of; pknock: as for xt_pknock (default: {otp.LAYOUTS[0]})",
    )
    options.add_argument(
        "--format", choices=sorted(FORMATS), help="header fields that carry the knock (default: compact)"
    )
    options.add_argument(
        "--ports",
        type=_type(parse_ports),
        metavar="LIST",
        help="what it may open: tcp/22,udp/51820,tcp/8000-8010 (default: tcp/22)",
    )
    options.add_argument(
        "--bind-source",
        action="store_true",
        help="make a knock valid from the client's own address only; not through NAT",
    )
    options.add_argument(
        "--counter",
        choices=["event", "clock"],
        help="clock: knocks are numbered by the time of day, so that a lost counter does no harm (default: event)",
    )
    options.add_argument(
        "--sequence",
        metavar="LIST",
        type=_type(steps.parse_steps),
        help="instead of KNOCKPORT: a port sequence, tcp/2002,udp/2001,tcp/2004; much weaker, see PROTOCOL.md",
    )
    options.add_argument(
        "--one-time",
        metavar="N",
        type=_type(ini.whole(1, MOST_SEQUENCES)),
        help=f"instead of --sequence: N sequences of random ports, each good once; at most {MOST_SEQUENCES}",
    )
    options.add_argument(
        "--import-one-time", metavar="FILE", help="instead of --one-time: those of knockd's file that are not used up"
    )
    options.add_argument(
        "--close", metavar="LIST", type=_type(steps.parse_steps), help="a sequence that closes; with --sequence"
    )
    options.add_argument(
        "--delay",
        metavar="SECONDS",
        type=_type(ini.whole(1, config.MAX_DELAY)),
        help="how long what it opens stays open (default: as the daemon's configuration says)",
    )
    options.add_argument(
        "--expires", metavar="DATE", type=_type(moment.parse), help="the first day on which it opens nothing (UTC)"
    )
    options.add_argument(
        "--for", dest="server", metavar="SERVER", help="what the client calls this server (default: its host name)"
    )
    options.add_argument("--out", metavar="FILE", help="write the client's line there, for root alone, and print none")
    options.add_argument("--qr", action="store_true", help="draw the line as a QR code, too")
    do = options.add_mutually_exclusive_group()
    do.add_argument("--list", action="store_true", help="list the profiles, without keys")
    do.add_argument("--revoke", metavar="NAME", help="remove a profile")
    do.add_argument("--rotate", metavar="NAME", help="give it new keys; the old ones live on as NAME.old for a time")
    do.add_argument("--show-line", metavar="NAME", help="print the line of a profile again that was never used")
    options.add_argument(
        "--grace", metavar="TIME", type=_type(moment.span), help=f"that time: 12h, 7d, 0s (default: {GRACE})"
    )
    options.add_argument("--reload", action="store_true", help="let a running daemon know, and wait until it does")
    options.add_argument(
        "--config", metavar="FILE", default=config.DEFAULT_PATH, help="the daemon's configuration (default %(default)s)"
    )
    options.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return options


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options. Ends with a usage error if they do not go together."""
    usage = parser()
    options = usage.parse_args(arguments)
    other = next((word for word in ("list", "revoke", "rotate", "show_line") if getattr(options, word)), "")
    ways = [one for one in (options.sequence, options.one_time, options.import_one_time) if one]
    plain = bool(ways)
    if plain and (other or options.knock_port or len(ways) > 1):
        usage.error("say one of KNOCKPORT, --sequence, --one-time and --import-one-time")
    if options.close and not plain:
        usage.error("argument --close: goes with --sequence, --one-time or --import-one-time")
    if not other and not options.knock_port and not (options.name and plain):
        usage.error(f"the following arguments are required: {'KNOCKPORT' if options.name else 'NAME, KNOCKPORT'}")
    excluded = ["name", "delay", *FOR_NEW] if other else []
    if plain or options.scheme == "otp":
        other = other or ("sequence" if plain else "scheme otp")
        excluded += ["format", "bind_source", "counter", "expires", "out", "qr"]
    if plain:
        excluded += ["scheme", "otp_layout"]
    elif options.otp_layout and options.scheme != "otp":
        usage.error("argument --otp-layout: goes with --scheme otp")
    if other in ("list", "revoke"):
        excluded += ["expires", "server", "out", "qr"]
    if other == "show_line":
        excluded.append("expires")
    if other in ("list", "show_line"):
        excluded.append("reload")
    if other != "rotate":
        excluded.append("grace")
    mode = f"--{other.replace('_', '-')}" if other else ""
    for word in excluded:
        if getattr(options, word) not in (None, False):
            flag = "NAME" if word == "name" else f"--{'for' if word == 'server' else word.replace('_', '-')}"
            usage.error(f"argument {flag}: does not go with {mode or 'a new profile'}")
    if options.expires is not None and options.expires <= clock.seconds():
        usage.error(f"argument --expires: {moment.show(options.expires)} is over")
    for word, default in FOR_NEW.items():
        if not getattr(options, word):
            setattr(options, word, parse_ports(str(default)) if word == "ports" else default)
    beyond = options.bind_source or options.counter == "clock" or any(one.protocol != 6 for one in options.ports)
    if options.format == "classic" and beyond:
        usage.error("--format classic binds no source, knows no clock and opens no udp port: take compact or stealth")
    own = [
        (UDP if options.scheme == "otp" else TCP, options.knock_port),
        *(options.sequence or ()),
        *(options.close or ()),
    ]
    for protocol, port in own:
        if port and permitted(options.ports, protocol, port):
            usage.error(
                f"argument --ports: nothing may listen at {port}, which is knocked at: name what is to be opened"
            )
    if options.scheme == "otp" and sum(one.last - one.first + 1 for one in options.ports) > otp.MAX_DOORS:
        usage.error(f"argument --ports: --scheme otp opens all of them at once, and at most {otp.MAX_DOORS}")
    return options


def fresh_keys(profile: Profile) -> Profile:
    """The profile with new keys, as long as its format has them."""
    size = KEY_SIZES[0] if profile.format == "classic" else KEY_SIZES[1]  # all that knockknock 0.8 knows
    return profile._replace(cipher_key=os.urandom(size), mac_key=os.urandom(size), legacy=False)


def mint(options: argparse.Namespace, settings: config.Config, owner: minting.Owner) -> None:
    """Make a new profile. Raises KnockError."""
    if options.scheme == "otp" or not options.knock_port:
        from . import plain  # imported only when asked for

        plain.mint(options, settings, owner)
        return
    free.check_port(options.knock_port)
    clock = options.counter == "clock"
    bare = Profile(
        options.name, b"", b"", options.knock_port, options.format, options.ports, options.bind_source, clock=clock
    )
    profile = fresh_keys(bare._replace(expires=options.expires, delay=options.delay))
    with handover.handed_over(options, profile) as line:
        minting.mint(settings.profiles, settings.state, profile, owner)
    with handover.shown_again(profile.name):
        print(f"Made {profile.name} in {settings.profiles}.\n", flush=True)
        heard = options.reload and running.reload(settings.state)
        print(handover.steps(options, profile, line, replace=False, heard=heard), flush=True)


def command(arguments: list[str]) -> None:
    options = parse(arguments)
    settings = (
        store.load_config(options.config)
        if options.config != config.DEFAULT_PATH or os.path.exists(options.config)
        else config.Config()
    )
    if not options.list:
        check_name(options.revoke or options.rotate or options.show_line or options.name)
    if os.geteuid() != 0:
        raise KnockError(f"it must be run as root, to {'read' if options.list else 'write'} {settings.profiles}")
    user = privsep.find_user(settings.user)
    owner = (user.pw_uid, user.pw_gid)
    for complaint in () if options.list else ownership.place(options.config, settings):
        raise ProfileError(complaint)
    if options.name or options.rotate or options.show_line:
        handover.server(options)
        handover.check_qr(options)
    if options.name:
        mint(options, settings, owner)
        return
    from . import manage  # imported only when asked for

    manage.manage(options, settings, owner)


def main() -> None:
    """The entry point of the command."""
    run("knockknock-genprofile", command)
