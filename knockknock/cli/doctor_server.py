"""The options of knockknock-daemon --doctor. What it does is in examine.py, which a daemon need not load."""

import argparse
import ipaddress

WAIT = 60.0
"""Seconds to wait for a knock, unless told."""


def add_options(options: argparse.ArgumentParser) -> None:
    """What the daemon's command takes for this."""
    options.add_argument(
        "--doctor", action="store_true", help="wait for a knock, and say why it opens or not; changes nothing"
    )
    options.add_argument("--pcap", metavar="FILE", help="with --doctor: the packets in a capture file (takes scapy)")
    options.add_argument(
        "--sent-from",
        metavar="ADDRESS",
        help="with --doctor: what the client takes for its own address, if it binds it",
    )
    options.add_argument(
        "--wait", metavar="SECONDS", type=float, help=f"with --doctor: how long to wait (default {WAIT:.0f})"
    )


def asked(parser: argparse.ArgumentParser, options: argparse.Namespace) -> bool:
    """Whether it is; ends the command where its options make no sense."""
    if not options.doctor and (options.pcap or options.sent_from or options.wait is not None):
        parser.error("--pcap, --sent-from and --wait go with --doctor")
    if options.doctor and (options.status or options.events or options.check or options.daemonize):
        parser.error("--doctor goes without --status, --events, --check and --daemonize")
    if options.sent_from:
        try:
            options.sent_from = ipaddress.ip_address(options.sent_from)
        except ValueError:
            parser.error(f"--sent-from: {options.sent_from!r} is no IP address")
    if options.wait is not None and not 0 < options.wait <= 86400:
        parser.error("--wait: a number of seconds up to a day is expected")
    return bool(options.doctor)
