"""Parses the options of knockknock-genprofile, and makes a new profile."""

import argparse
import os
from collections.abc import Callable
from typing import Any, NoReturn

from .. import __version__
from ..core import dates, ini
from ..core.request import TCP, UDP, parse_ports, permitted, port_number
from ..errors import ConfigError, KnockError, ProfileError
from ..profiles import clock, mint
from ..profiles.text import check_name
from ..schemes.otp import profile as otp
from ..schemes.sequence import notation
from ..schemes.sequence.profile import MOST_NEW
from ..schemes.syn.profile import FORMATS, Profile
from ..server import config, file_ownership, instance, privsep
from ..server.config import load_config
from . import formatter, port_in_use, print_enrolment, run

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
WORDS = ("revoke", "rotate", "show-line")
"""Words, or options, that take the name of a profile."""


def _type(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def value(text: str) -> Any:
        try:
            return parse(text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return value


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    options = argparse.ArgumentParser(
        prog="knockknock-genprofile",
        formatter_class=formatter,
        usage="knockknock-genprofile [options] NAME KNOCKPORT\n"
        "       knockknock-genprofile [options] list | revoke NAME | rotate NAME | show-line NAME",
        description="""\
Makes a profile: the keys of one client, the port that it knocks at, and what it may open. Ends with
a line to be pasted into knockknock --enroll on the client.

  knockknock-genprofile laptop 4242 --for server.example     a client that may open tcp/22
  knockknock-genprofile phone 4242 --ports tcp/443 --reload  the running daemon hears it at once
  knockknock-genprofile list                                 all profiles, without keys
  knockknock-genprofile rotate laptop --grace 1d             new keys; the old ones for one more day
  knockknock-genprofile revoke phone --reload                take it away
  knockknock-genprofile show-line phone                      its line again, if it was never used

The words may have two dashes before them, as in earlier versions.""",
        epilog="Exit status: 0 only if what was asked for was done, 1 could not, 2 usage.",
    )
    options.add_argument("name", metavar="NAME", nargs="?", help="letters, digits, dots, dashes, underscores")
    options.add_argument(
        "knock_port", metavar="KNOCKPORT", nargs="?", help="a port where nothing listens; profiles may share it"
    )
    options.add_argument("--ports", type=_type(parse_ports), metavar="LIST", help="what it may open (tcp/22)")
    options.add_argument("--for", dest="server", metavar="SERVER", help="what the client calls this server")
    options.add_argument(
        "--expires", metavar="DATE", type=_type(dates.parse), help="the first day on which it opens nothing (UTC)"
    )
    options.add_argument(
        "--delay",
        metavar="SECONDS",
        type=_type(ini.whole(1, config.MAX_DELAY)),
        help="how long what it opens stays open",
    )
    options.add_argument(
        "--bind-source",
        action="store_true",
        help="make a knock good from the client's own address only; not through NAT",
    )
    options.add_argument(
        "--counter",
        choices=["event", "clock"],
        help="clock: number knocks by the time of day; a lost counter does no harm",
    )
    options.add_argument("--format", choices=sorted(FORMATS), help="header fields that carry the knock (compact)")
    options.add_argument("--scheme", choices=["syn", "otp"], help="otp: a one-time password by UDP, to KNOCKPORT")
    options.add_argument("--otp-layout", choices=otp.LAYOUTS, help="pknock: as for xt_pknock (portable)")
    options.add_argument(
        "--sequence",
        metavar="LIST",
        type=_type(notation.parse_steps),
        help="instead of KNOCKPORT: tcp/2002,udp/2001,tcp/2004; much weaker",
    )
    options.add_argument(
        "--one-time",
        metavar="N",
        type=_type(ini.whole(1, MOST_NEW)),
        help="instead: N sequences of random ports, each good once",
    )
    options.add_argument("--import-one-time", metavar="FILE", help="instead: those of knockd's that are not used up")
    options.add_argument(
        "--close", metavar="LIST", type=_type(notation.parse_steps), help="with --sequence: one that closes"
    )
    options.add_argument("--out", metavar="FILE", help="write the client's line there, for root alone")
    options.add_argument("--qr", action="store_true", help="draw the line as a QR code, too")
    options.add_argument("--reload", action="store_true", help="let a running daemon know, and wait until it does")
    options.add_argument("--config", metavar="FILE", default=config.DEFAULT_PATH, help="(%(default)s)")
    options.add_argument(
        "--grace", metavar="TIME", type=_type(dates.span), help=f"with rotate: 12h, 7d, 0s (default {GRACE})"
    )
    do = options.add_mutually_exclusive_group()
    do.add_argument("--list", action="store_true", help=argparse.SUPPRESS)
    for word in WORDS:
        do.add_argument(f"--{word}", metavar="NAME", help=argparse.SUPPRESS)
    options.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return options


def _understand_words(options: argparse.Namespace, error: Callable[[str], NoReturn]) -> None:
    """Turn `list`, `revoke NAME` and so on into their options, and KNOCKPORT into a number."""
    word, name = options.name, options.knock_port
    if (word == "list" and name is None) or word in WORDS:
        if options.list or any(getattr(options, one.replace("-", "_")) for one in WORDS):
            error("say one of list, revoke, rotate and show-line")
        if word in WORDS and name is None:
            error(f"{word}: name the profile")
        setattr(options, word.replace("-", "_"), name or True)
        options.name = options.knock_port = None
    elif name is not None:
        try:
            options.knock_port = port_number(name)
        except ConfigError as reason:
            error(f"argument KNOCKPORT: {reason}")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options. Ends with a usage error if they do not go together."""
    usage = parser()
    options = usage.parse_args(arguments)
    _understand_words(options, usage.error)
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
        usage.error(f"argument --expires: {dates.show(options.expires)} is over")
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
    options.grace = dates.span(GRACE) if options.grace is None else options.grace
    return options


def new_profile(options: argparse.Namespace, settings: config.Config, owner: mint.Owner) -> None:
    """Make a new profile. Raises KnockError."""
    if options.scheme == "otp" or not options.knock_port:
        from . import other_schemes  # imported only when asked for

        other_schemes.new_profile(options, settings, owner)
        return
    port_in_use.check_port(options.knock_port)
    clock = options.counter == "clock"
    bare = Profile(
        options.name, b"", b"", options.knock_port, options.format, options.ports, options.bind_source, clock=clock
    )
    profile = mint.fresh_keys(bare._replace(expires=options.expires, delay=options.delay))
    with print_enrolment.handed_over(options, profile) as line:
        mint.mint(settings.profiles, settings.state, profile, owner, instance.reload)
    with print_enrolment.shown_again(profile.name):
        print(f"Made {profile.name} in {settings.profiles}.\n", flush=True)
        heard = options.reload and instance.reload(settings.state)
        print(print_enrolment.steps(options, profile, line, replace=False, heard=heard), flush=True)


def command(arguments: list[str]) -> None:
    options = parse(arguments)
    settings = (
        load_config(options.config)
        if options.config != config.DEFAULT_PATH or os.path.exists(options.config)
        else config.Config()
    )
    if not options.list:
        check_name(options.revoke or options.rotate or options.show_line or options.name)
    if os.geteuid() != 0:
        raise KnockError(f"it must be run as root, to {'read' if options.list else 'write'} {settings.profiles}")
    user = privsep.find_user(settings.user)
    owner = (user.pw_uid, user.pw_gid)
    for complaint in () if options.list else file_ownership.place(options.config, settings):
        raise ProfileError(complaint)
    if options.name or options.rotate or options.show_line:
        print_enrolment.server(options)
        print_enrolment.check_qr(options)
    if options.name:
        new_profile(options, settings, owner)
        return
    from . import existing_profiles  # imported only when asked for

    existing_profiles.manage(options, settings, owner)


def main() -> None:
    """The entry point of the command."""
    run("knockknock-genprofile", command)
