"""knockknock: sends a knock."""

import argparse
import os
import socket
import stat
from typing import TYPE_CHECKING

from .. import __version__, client
from ..errors import ConfigError, KnockError, SendError
from ..request import Request, Verb, port_number, protocol_number
from . import formatter, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client import Knock

_LINKTYPE_RAW = 101
"""A capture file's packets begin with the IP header."""


def _port(text: str) -> tuple[int, int]:
    port, slash, protocol = text.partition("/")
    try:
        return protocol_number(protocol if slash else "tcp"), port_number(port)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(
        prog="knockknock",
        formatter_class=formatter,
        description="Asks the server HOST to open a port for this machine, for a moment and one connection.",
        epilog="Profiles are in ~/.knockknock/HOST/; under sudo, of the user who called it. "
        "Exit status: 0 sent, 1 could not, 2 usage.",
    )
    options.add_argument("host", metavar="HOST", help="name or address of the server, as its profile is called")
    options.add_argument(
        "-p",
        dest="ports",
        metavar="PORT[/udp]",
        type=_port,
        action="append",
        required=True,
        help="port to open; may be repeated",
    )
    options.add_argument("--close", action="store_true", help="ask to close the port instead")
    family = options.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=socket.AF_INET, help="use IPv4")
    family.add_argument("-6", dest="family", action="store_const", const=socket.AF_INET6, help="use IPv6")
    options.add_argument(
        "--dry-run", action="store_true", help="show the packet's fields, use no counter, send nothing"
    )
    options.add_argument("--explain", action="store_true", help="show the packet layer by layer")
    options.add_argument(
        "--pcap",
        metavar="FILE",
        help="write the packet to a file; with --dry-run it is still a valid knock, so keep it secret",
    )
    options.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return options


def shower(options: argparse.Namespace) -> "Callable[[Knock], None]":
    """What does as --dry-run, --explain and --pcap say, by scapy's dissection of a packet. Raises KnockError."""
    # Imported here, because it takes longer than everything else together and a knock comes before every login.
    import logging

    logging.getLogger("scapy").setLevel(logging.ERROR)
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6
    from scapy.utils import PcapWriter

    writer = None
    if options.pcap:
        try:
            fd = os.open(options.pcap, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise KnockError(f"--pcap {options.pcap} cannot be written: {error.strerror}") from None
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            if status.st_mode & 0o077:
                raise KnockError(
                    f"--pcap {options.pcap} may be read by others, and a knock is a secret: remove it first"
                )
            os.ftruncate(fd, 0)
        writer = PcapWriter(os.fdopen(fd, "wb"), linktype=_LINKTYPE_RAW, sync=True)

    def show(knock: "Knock") -> None:
        packet = (IP if knock.packet[0] >> 4 == 4 else IPv6)(knock.packet)
        if options.dry_run:
            print(f"{knock.request}, counter {knock.counter}: {packet.command()}")
        if options.explain:
            packet.show()
        if writer:
            try:
                writer.write(packet)
            except OSError as error:
                raise KnockError(f"--pcap {options.pcap} cannot be written: {error.strerror}") from None

    return show


def command(arguments: list[str]) -> None:
    options = parser().parse_args(arguments)
    raw = {} if options.dry_run else client.open_raw()
    profiles = f"{client.become_invoker()}/.knockknock"
    profile = client.find_profile(profiles, options.host)
    verb = Verb.CLOSE if options.close else Verb.OPEN
    requests = [Request(verb, protocol, port) for protocol, port in options.ports]
    for request in requests:
        if profile.format == "classic" and (request.protocol != 6 or options.close):
            raise SendError(f"the profile's format classic can only open TCP ports, not {request}")
        if not profile.permits(request):
            raise SendError(f"the profile may not {request}; it may: {', '.join(map(str, profile.ports))}")
    address = client.resolve(options.host, options.family or socket.AF_UNSPEC)
    directory = f"{profiles}/{profile.name}"
    show = shower(options) if options.dry_run or options.explain or options.pcap else None
    for knock in client.prepare(directory, profile, requests, address, dry=options.dry_run):
        if show:
            show(knock)
        if not options.dry_run:
            if address[0] not in raw:
                raise SendError(
                    "this kernel has no raw sockets for IPv6"
                    if address[0] == socket.AF_INET6
                    else "no raw socket for IPv4"
                )
            client.send(raw[address[0]], knock)


def main() -> None:
    """The entry point of the command."""
    run("knockknock", command)
    # Nothing is left to be done, and to take the interpreter down in good order takes a fifth of a knock's time.
    os._exit(0)
