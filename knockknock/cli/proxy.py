"""Opens the raw sockets and the port, gives up root, serves: the command knockknock-proxy."""

import argparse
import asyncio
import contextlib
import gc
import ipaddress
import logging
import os
import pwd
import resource
import socket
import stat
import sys
from importlib import import_module

from .. import __version__
from ..client import raw_socket
from ..errors import ConfigError, KnockError, PrivilegeError
from ..profiles import files
from ..proxy import Login
from ..server import privsep
from . import formatter, run

log = logging.getLogger("knockknock")

LATER = ("client.send_client", "core.dates", "profiles.clock", "schemes.syn.seal")
"""Modules that a knock imports later: they are imported as root, because the user may not be able to read them."""


def _seconds(text: str) -> float:
    try:
        if 0 < (number := float(text)) <= 3600:
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds, above 0 and up to 3600")


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text[:9]) <= 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 to 65536")


def _listen(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        ipaddress.ip_address(bare)
        if (
            not colon
            or not (port.isascii() and port.isdigit())
            or not int(port) < 65536
            or (":" in host) != (host != bare)
        ):
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not ADDRESS:PORT, an IPv6 address in brackets") from None
    return bare, int(port)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    options = argparse.ArgumentParser(
        prog="knockknock-proxy",
        formatter_class=formatter,
        description="A SOCKS 4, 4a and 5 and HTTP CONNECT proxy for programs on this machine: knocks for hosts\n"
        "that have a profile, and passes everything else through.",
        epilog="Profiles are in ~/.knockknock/HOST/; under sudo, of the user who called it. A browser finds its\n"
        "configuration at http://127.0.0.1:1080/proxy.pac. Signals: TERM and INT stop.\n"
        "Exit status: 0 stopped, 1 could not, 2 usage.",
    )
    options.add_argument(
        "--listen",
        metavar="ADDRESS:PORT",
        type=_listen,
        default=("127.0.0.1", 1080),
        help="where to listen (default 127.0.0.1:1080; port 0: one that is free)",
    )
    options.add_argument(
        "--listen-beyond-loopback",
        action="store_true",
        help="let --listen name an address that other machines reach; takes --login-file",
    )
    options.add_argument(
        "--login-file",
        metavar="FILE",
        help="serve only clients that give the name and password in FILE, one line NAME:PASSWORD, its owner's alone",
    )
    options.add_argument("--user", metavar="NAME", help="the user to become instead of root, whose profiles are used")
    options.add_argument("--profiles", metavar="DIR", help="the profiles (default ~/.knockknock of that user)")
    options.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=5.0,
        help="to get a connection, with up to three knocks (default 5)",
    )
    options.add_argument(
        "--handshake", metavar="SECONDS", type=_seconds, default=10.0, help="for a client to say its wish (default 10)"
    )
    options.add_argument(
        "--connections",
        metavar="N",
        type=_count,
        default=512,
        help="at a time; others are refused, or take the place of one that was idle for a minute (default %(default)s)",
    )
    options.add_argument("--print-pac", action="store_true", help="print the proxy auto-configuration file, and end")
    options.add_argument("--debug", action="store_true", help="log who asks for what, too")
    options.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return options


def read_login(path: str) -> Login:
    """Return the name and password in a file. Raises ConfigError."""
    try:
        if os.stat(path).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(f"{path} holds a password, and others than its owner may open it: chmod 600 {path}")
        text = files.read(path, secret=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    user, colon, password = text.rstrip("\r\n").encode().partition(b":")
    # RFC 1929 has one byte for the length of each.
    if not (colon and 0 < len(user) < 256 and 0 < len(password) < 256) or b"\n" in password:
        raise ConfigError(f"{path} does not hold one line NAME:PASSWORD, each of at most 255 bytes")
    return Login(user, password)


def open_listener(address: tuple[str, int]) -> socket.socket:
    """Open the port. Raises KnockError."""
    listener = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listener.family == socket.AF_INET6:  # else [::] is IPv4 too, and IPv4's loopback would not look like one
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        raise KnockError(f"{at(address)} cannot be listened at: {error.strerror}; take another with --listen") from None
    return listener


def at(address: tuple[str, int]) -> str:
    """Return an address as HOST:PORT."""
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def become(name: str | None) -> str:
    """Give up root and all capabilities, for good; return the user's home directory. Raises KnockError.

    name: the user to become; None: the user who called sudo, or the present one.
    """
    if os.geteuid() != 0:
        if name not in (None, pwd.getpwuid(os.getuid()).pw_name):
            raise PrivilegeError("--user takes root: leave it out, or call this with sudo")
        privsep.stay(os.getuid(), os.getgid(), os.getgroups())
        return os.path.expanduser("~")
    try:
        user = pwd.getpwnam(name) if name else pwd.getpwuid(int(os.environ.get("SUDO_UID") or "0"))
    except (ValueError, KeyError):
        raise PrivilegeError(f"there is no user {name or os.environ['SUDO_UID']} on this machine") from None
    if user.pw_uid == 0:
        raise PrivilegeError(
            "the proxy does not stay root: call it with sudo from your own account, or name another with --user"
        )
    privsep.drop(user.pw_uid, user.pw_gid, os.getgrouplist(user.pw_name, user.pw_gid))
    return user.pw_dir


def _number(name: str) -> int:
    """Return the id of a user, -1 if there is none."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return -1


def check(options: argparse.Namespace) -> None:
    """Check that the port may be opened to everybody who could reach it. Raises SystemExit as a usage error."""
    if ipaddress.ip_address(options.listen[0]).is_loopback:
        return
    if not options.listen_beyond_loopback:
        parser().error(
            f"--listen {at(options.listen)} can be reached by other machines, and all that reach the proxy can use "
            "your profiles: name an address of the loopback, or say --listen-beyond-loopback"
        )
    if not options.login_file:
        parser().error("--listen-beyond-loopback takes --login-file: everybody could use your profiles")


def command(arguments: list[str]) -> None:
    options = parser().parse_args(arguments)
    check(options)
    # Import everything before root is given up: the user may not be able to read this Python.
    try:
        from .. import schemes
        from ..proxy import pac
        from ..proxy.hidden_hosts import HiddenHosts
        from ..proxy.sender import sender
        from ..proxy.server import ClientLimits, Server
    except ModuleNotFoundError as error:
        raise KnockError(
            f"the Python package {error.name} is not installed: pip install '.[proxy]' in a copy of this project"
        ) from None
    for word in schemes.SCHEMES:
        schemes.load(word)
    for name in LATER:
        import_module(f"knockknock.{name}")
    if options.print_pac:
        home = become(options.user) if options.user else raw_socket.become_invoker()
        profiles = options.profiles or f"{home}/.knockknock"
        print(pac.write(files.names(profiles), at(_seen(options.listen)), bool(options.login_file)), end="")
        return
    send = sender(_number(options.user) if options.user else -1)
    listener = open_listener(options.listen)
    home = become(options.user)
    login = read_login(options.login_file) if options.login_file else None
    os.umask(0o077)  # threads store counters and change the umask for a moment, which is the whole process's
    doors = HiddenHosts(options.profiles or f"{home}/.knockknock", send, options.timeout)
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.DEBUG if options.debug else logging.INFO)
    if "JOURNAL_STREAM" not in os.environ:
        log.handlers[0].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.enable()
    bound = listener.getsockname()[:2]
    log.info("listening at %s, for %d hosts with profiles", at(bound), len(doors.hosts()))
    server = Server(doors, at(_seen(bound)), login, ClientLimits(options.connections, options.handshake))
    asyncio.Runner().run(server.serve(listener))
    listener.close()
    log.info("stopped")


def _seen(address: tuple[str, int]) -> tuple[str, int]:
    """Return the address at which a browser on this machine finds a listener."""
    unspecified = ipaddress.ip_address(address[0]).is_unspecified
    return ("::1" if ":" in address[0] else "127.0.0.1", address[1]) if unspecified else address


def main() -> None:
    """The entry point of the command."""
    run("knockknock-proxy", command)
    sys.stderr.flush()
    # Threads that still look up a name are not waited for.
    os._exit(0)
