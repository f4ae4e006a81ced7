"""Parses the options of knockknock-daemon, and runs what they ask for."""

import argparse
import ipaddress
import os
from collections.abc import Callable
from typing import NoReturn

from .. import __version__
from ..errors import PrivilegeError
from ..server import config
from ..server.config import load_config
from . import formatter, run

WAIT = 60.0
"""Seconds that the doctor waits for a knock by default."""
MODES = ("check", "status", "doctor", "events")
"""Words, or options, for what is done instead of listening."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    options = argparse.ArgumentParser(
        prog="knockknock-daemon",
        formatter_class=formatter,
        usage="knockknock-daemon [options] [check | status | doctor | events]",
        description="""\
Listens for knocks in the kernel's packet log and opens ports for those who knock rightly.

  knockknock-daemon check             say what is wrong with all that a start needs
  knockknock-daemon status            say what is open, who has knocked, and what was refused
  knockknock-daemon doctor            wait for a knock, and say why it opens or not; changes nothing
  knockknock-daemon events            print a JSON object for each event, until ^C
  knockknock-daemon --try 300         run, and refuse nothing more by protect = after five minutes
  knockknock-daemon                   run, until it is told to stop: what the unit knockknock does

The words may have two dashes before them, as in earlier versions.""",
        epilog="Signals: HUP reads configuration and profiles again, TERM stops. "
        "Exit status: 0, 1 could\nnot (status: does not run, or has nothing open for --source), 2 usage.",
    )
    options.add_argument("mode", metavar="MODE", nargs="?", choices=MODES, help="what to do instead of listening")
    for word in MODES:
        options.add_argument(f"--{word}", action="store_true", help=argparse.SUPPRESS)
    options.add_argument(
        "--config", metavar="FILE", default=config.DEFAULT_PATH, help="configuration (default %(default)s)"
    )
    options.add_argument("--json", action="store_true", help="with status: for programs")
    options.add_argument(
        "--source", metavar="ADDRESS", help="with status: only what is open for one source; status 1 if nothing"
    )
    options.add_argument("--pcap", metavar="FILE", help="with doctor: the packets in a capture file (takes scapy)")
    options.add_argument(
        "--sent-from", metavar="ADDRESS", help="with doctor: what the client takes for its address, if it binds it"
    )
    options.add_argument(
        "--wait", metavar="SECONDS", type=float, help=f"with doctor: how long to wait (default {WAIT:.0f})"
    )
    options.add_argument(
        "--try", metavar="SECONDS", dest="trial", type=_seconds, default=0, help="end after so many seconds, as above"
    )
    options.add_argument(
        "--open-gate", action="store_true", help="refuse nothing more by protect =, now and from the next boot on"
    )
    options.add_argument("--blocked", action="store_true", help="list the sources that the scan guard has shut out")
    options.add_argument("--prometheus", action="store_true", help="with --blocked: print counts, for a .prom file")
    options.add_argument("--unblock", metavar="ADDR", help="let an address or network in again that --blocked lists")
    options.add_argument("--daemonize", action="store_true", help="go to the background once it listens")
    options.add_argument("--pid-file", metavar="FILE", help="with --daemonize (default /run/knockknock-daemon.pid)")
    options.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return options


def _seconds(text: str) -> int:
    """Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 1 to 99999")
    return int(text)


def _check(options: argparse.Namespace, error: Callable[[str], NoReturn]) -> None:
    """End the command where its options make no sense, or not together."""
    if options.mode:
        setattr(options, options.mode, True)
    if options.pid_file and not options.daemonize:
        error("--pid-file goes with --daemonize")
    modes = (options.check, options.status, options.events, options.daemonize, options.blocked, options.unblock)
    if (options.trial or options.open_gate) and (any(modes) or (options.trial and options.open_gate)):
        error("--try and --open-gate are each used alone, or with --config")
    if not options.doctor and (options.pcap or options.sent_from or options.wait is not None):
        error("--pcap, --sent-from and --wait go with doctor")
    if options.doctor and (options.status or options.events or options.check or options.daemonize):
        error("doctor goes without status, events, check and --daemonize")
    if options.wait is not None and not 0 < options.wait <= 86400:
        error("--wait: a number of seconds up to a day is expected")
    if options.prometheus and not options.blocked:
        error("--prometheus goes with --blocked")
    others = (options.check, options.daemonize, options.status, options.events)
    scan = options.blocked, options.unblock is not None
    if any(scan) and sum([any(others), *scan]) > 1:
        error("--blocked and --unblock are each used alone, or with --config")
    if (options.json or options.source is not None) and not options.status:
        error("--json and --source go with status")
    if sum(others) > 1:
        error("status, events, check and --daemonize exclude each other")
    for name in ("sent_from", "source"):
        text = getattr(options, name)
        try:
            setattr(options, name, ipaddress.ip_address(text) if text is not None else None)
            if name == "source" and "%" in str(text):  # a zone: no door has one
                raise ValueError
        except ValueError:
            error(f"--{name.replace('_', '-')}: {text!r} is no IP address")
    options.wait = options.wait or WAIT


def open_gate(path: str) -> None:
    """Remove the gate of a daemon that does not run. Raises KnockError."""
    from ..root import firewall

    settings = load_config(path)
    if os.geteuid() != 0:
        raise PrivilegeError("only root may change what is refused: use sudo")
    firewall.open_gate(settings.state, settings.ct_label)
    print("nothing is refused by knockknock now; a daemon that starts refuses again what protect = names")


def command(arguments: list[str]) -> None:
    options = (known := parser()).parse_args(arguments)
    _check(options, known.error)
    path = os.path.abspath(options.config)
    if options.doctor:
        from . import server_doctor

        server_doctor.show(path, options)
    elif options.blocked or options.unblock is not None:
        from . import blocked

        blocked.show(path, options)
    elif options.status or options.events:
        from . import status

        status.show(load_config(path).control, options)
    elif options.open_gate:
        open_gate(path)
    elif options.check:
        from . import check

        check.check(path)
    else:
        from . import serve

        pid_file = (options.pid_file or "/run/knockknock-daemon.pid") if options.daemonize else None
        serve.serve(path, pid_file, options.trial)


def main() -> None:
    """The entry point of the command."""
    run("knockknock-daemon", command)
