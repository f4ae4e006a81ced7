"""Sends a knock, then connects or runs a program: the command knockknock."""

import contextlib
import os
import socket
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING

from .. import __version__, schemes
from ..client import raw_socket, route
from ..client.knock import find_any, sender
from ..core.request import TCP, Request, Verb, parse_port, permitted, port_number
from ..errors import ConfigError, KnockError, SendError
from . import formatter, run
from .knock_dispatch import by_connects, by_raw_socket
from .knock_options import Options, plain

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable
    from typing import Any, NoReturn

    from ..client.host_config import Host
    from ..core.profile import Profile

    Send = Callable[[raw_socket.Knock], None]

TIMEOUT = 5.0
"""Seconds within which a connection must be established."""


GOES_WITH: "dict[str, set[str]]" = {
    "enroll": {"replace"},
    "list": set(),
    "doctor": {"host", "ports", "family", "source"},
    "send": set(),
}
"""Modes that send no knock, and the options that go with each."""


def _type(parse: "Callable[[str], Any]") -> "Callable[[str], Any]":
    from argparse import ArgumentTypeError

    def value(text: str) -> "Any":
        try:
            return parse(text)
        except ConfigError as error:
            raise ArgumentTypeError(str(error)) from None

    return value


def _seconds(text: str) -> float:
    from ..client.host_config import seconds

    return seconds(text)


def parser() -> "ArgumentParser":
    """Return the parser of the command's options."""
    from argparse import ArgumentParser  # imported here, because most command lines are plain

    options = ArgumentParser(
        prog="knockknock",
        formatter_class=formatter,
        usage="knockknock [-p PORT[/udp]]... [options] HOST [-- PROGRAM [ARGUMENT]...]\n"
        "       knockknock [-p PORT]... [options] --stdio HOST [PORT]\n"
        "       knockknock --enroll [--replace] | --list | --doctor HOST",
        description="Asks the server HOST to open a port for this machine, for a moment and one connection.\n\n"
        "  knockknock --enroll                               take the line that the server printed\n"
        "  knockknock -p 22 server.example                   open ssh, then connect\n"
        "  knockknock -p 22 server.example -- ssh server.example   open and connect\n"
        "  knockknock --stdio server.example 22              knock for ssh's ProxyCommand\n"
        "  knockknock --doctor server.example                find out why it does not open",
        epilog="Profiles are in ~/.knockknock/HOST/, settings by host in ~/.knockknock/config; under sudo, of the\n"
        "user who called it. Exit status: 0 sent, 1 could not, 2 usage; after --, that of PROGRAM.",
    )
    options.add_argument(
        "host", metavar="HOST", nargs="?", default="", help="name or address of the server, as its profile is called"
    )
    options.add_argument("port", metavar="PORT", nargs="?", type=_type(port_number), help="where --stdio connects to")
    options.add_argument(
        "-p",
        dest="ports",
        metavar="PORT[/udp]",
        type=_type(parse_port),
        action="append",
        help="port to open; may be repeated (default: Ports in the configuration, or PORT; a sequence opens all)",
    )
    options.add_argument("--close", action="store_true", help="ask to close the port instead")
    options.add_argument(
        "--stdio",
        action="store_true",
        help="connect as soon as the door is open, and pass standard input and output on: for ssh's ProxyCommand",
    )
    options.add_argument(
        "--timeout", metavar="SECONDS", type=_type(_seconds), help=f"for --stdio: give up then (default: {TIMEOUT:.0f})"
    )
    family = options.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=socket.AF_INET, help="use IPv4")
    family.add_argument("-6", dest="family", action="store_const", const=socket.AF_INET6, help="use IPv6")
    options.add_argument(
        "--source", metavar="ADDRESS", help="the address that the server sees this machine as, if it is not its own"
    )
    options.add_argument(
        "--dry-run", action="store_true", help="show the packet's fields, use no counter, send nothing"
    )
    options.add_argument("--explain", action="store_true", help="show the packet layer by layer")
    options.add_argument(
        "--pcap",
        metavar="FILE",
        help="write the packet to a file; with --dry-run it is still a valid knock, so keep it secret",
    )
    others = options.add_mutually_exclusive_group()
    others.add_argument(
        "--enroll", action="store_true", help="make a profile of the line that is pasted or comes on standard input"
    )
    options.add_argument("--replace", action="store_true", help="for --enroll: in the place of one of that server")
    others.add_argument("--list", action="store_true", help="list the profiles, without keys")
    others.add_argument("--doctor", action="store_true", help="find out why a knock does not open; sends nothing")
    options.add_argument(
        "--send", action="store_true", help="send the SYNs on standard input: for sudo and systemd, who start it so"
    )
    options.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return options


def _wrong(text: str) -> "NoReturn":
    parser().error(text)


def parse(arguments: list[str]) -> tuple[Options, list[str]]:
    """Return the options and the program to run. Ends with a usage error if options do not go together."""
    mark = arguments.index("--") if "--" in arguments else len(arguments)
    ours, program = arguments[:mark], arguments[mark + 1 :]
    found = plain(ours) or parser().parse_args(ours, Options())
    mode = next((word for word in GOES_WITH if getattr(found, word)), "")
    given = {name for name, value in vars(found).items() if value != getattr(Options, name)} - {mode}
    if mode and (more := sorted(given - GOES_WITH[mode]) + ["PROGRAM"] * bool(program)):
        named = {"ports": "-p", "family": "-4 or -6", "host": "HOST", "port": "PORT", "PROGRAM": "PROGRAM"}
        word = named.get(more[0], f"--{more[0].replace('_', '-')}")
        _wrong(f"argument --{mode}: does not go with {word}")
    if found.replace and not found.enroll:
        _wrong("argument --replace: goes with --enroll only")
    if mode and mode != "doctor":
        return found, program
    if not found.host and program and "" not in ours:  # -- HOST, for a host that looks like an option
        found.host, program = program[0], program[1:]
        program = program[1:] if program[:1] == ["--"] else program
    elif mark < len(arguments) and not "".join(program[:1]):
        _wrong("the name of a PROGRAM is expected after --")
    if not found.host:
        _wrong("the following arguments are required: HOST")
    if found.port and not found.stdio:
        _wrong(f"argument PORT: {found.port} goes with --stdio only; -p says what to open")
    if found.timeout and not found.stdio:
        _wrong("argument --timeout: goes with --stdio only")
    if (found.stdio or program) and (found.close or found.dry_run or found.explain or (found.stdio and program)):
        other = "a PROGRAM" if found.stdio and program else "--close, --dry-run or --explain"
        _wrong(f"{'--stdio' if found.stdio else 'a PROGRAM'} does not go with {other}")
    return found, program


def requests(options: Options, profile: "Profile") -> list[Request]:
    """Return the requests that the options name. Raises SendError for one that the profile cannot make."""
    verb = Verb.CLOSE if options.close else Verb.OPEN
    if not options.ports:
        return [Request(verb, one.protocol, one.first) for one in profile.ports[:1]]
    wanted = [Request(verb, protocol, port) for protocol, port in options.ports]
    for request in wanted:
        if profile.kind == "classic" and (request.protocol != 6 or options.close):
            raise SendError(f"the profile's format classic can only open TCP ports, not {request}")
        if not permitted(profile.ports, request.protocol, request.port):
            raise SendError(f"the profile may not {request}; it may: {', '.join(map(str, profile.ports))}")
    return wanted


def _profile(options: Options, found: "Host | None", home: str) -> "Profile":
    """Return the profile to knock with. Raises KnockError."""
    name = (found and found.host_name) or options.host
    names = [found.profile] if found and found.profile else dict.fromkeys((options.host, name))
    return find_any(f"{home}/.knockknock", *names)


def ask(
    options: Options, found: "Host | None", profiles: str, profile: "Profile", send: "Send | None"
) -> "socket.socket | None":
    """Knock, and with --stdio connect. Raises KnockError.

    found: the host's settings. profiles: their directory. send: sends a knock that takes a raw socket; None to choose
    one later.
    """
    name = (found and found.host_name) or options.host
    wanted = requests(options, profile)
    family = options.family or socket.AF_UNSPEC
    if options.source:
        family = route.family_of(options.source)
        if options.family and family != options.family:
            raise SendError(f"the source {options.source} is of another IP version than the one that is asked for")
    port = options.port or next((one.port for one in wanted if one.protocol == TCP), 0)
    if options.stdio and not port:
        raise SendError("--stdio connects by TCP only: say -p PORT")
    begin, seconds = monotonic(), options.timeout or TIMEOUT
    if options.stdio:
        addresses = route.within(seconds, lambda: route.addresses(name, family))[: route.MOST_ADDRESSES]
    else:
        addresses = route.addresses(name, family)[: route.MOST_ADDRESSES]
        # Each knock has its own time, because many knocks are paced.
        begin, seconds = monotonic(), seconds + len(wanted) * len(addresses) / raw_socket.RATE
    end = begin + seconds
    with contextlib.ExitStack() as stack:
        if schemes.load(profile.scheme).RAW:
            if not send and not options.dry_run:
                send = stack.enter_context(sender(end - monotonic()))
            knock, hint = by_raw_socket(options, profiles, profile, wanted, send, end)
        else:
            knock, hint = by_connects(options, profiles, profile, wanted, end), ""
        if not options.stdio:
            route.each(knock, addresses)
            return None
        from ..client import connect

        try:
            return connect.Dialer(addresses, port, end - monotonic(), knock).connect()
        except SendError as error:
            raise SendError(f"{error}{hint}") from None


def _other(options: Options) -> None:
    word = next(word for word in ("enroll", "list", "doctor") if getattr(options, word))
    name = {"list": "list_profiles", "doctor": "client_doctor"}.get(word, word)
    import_module(f"knockknock.cli.{name}").command(options)


def command(arguments: list[str]) -> None:
    if arguments == ["--send"]:
        from ..client import send_service

        send_service.serve()
        return
    options, program = parse(arguments)
    if options.enroll or options.list or options.doctor:
        _other(options)
        return
    with contextlib.ExitStack() as stack:
        send = profile = None
        if os.geteuid() == 0 and not options.dry_run:  # now, before it is given up
            with contextlib.suppress(SendError):  # not every knock needs it
                send = stack.enter_context(sender(options.timeout or TIMEOUT))
        home = raw_socket.become_invoker()
        found = None
        if os.path.isfile(path := f"{home}/.knockknock/config"):
            from .host_settings import configure  # imported here, because most have no such file

            found = configure(options, path)
        if options.stdio and options.port and not options.ports:
            options.ports = [(TCP, options.port)]
        with contextlib.suppress(KnockError):
            profile = _profile(options, found, home)
        raw = not profile or schemes.load(profile.scheme).RAW
        if not options.ports and raw:
            _profile(options, found, home)  # there may be no such profile, or host
            _wrong("say what to open: -p PORT, or Ports in ~/.knockknock/config")
        profile = profile or _profile(options, found, home)  # raises what it did
        connection = ask(options, found, f"{home}/.knockknock", profile, send)
    if connection:
        from ..client import connect

        connect.join(connection)
    if program:
        from ..client import execute as other

        other.become(program, home)


def main() -> None:
    """The entry point of the command."""
    run("knockknock", command)
    # Nothing is left to do, and an orderly end of the interpreter takes a fifth of a knock's time.
    os._exit(0)
