"""Opens raw sockets, sends knocks through them, and drops the root privileges that opening them needs."""

import contextlib
import errno
import os
import pwd
import socket
from typing import NamedTuple

from ..core.request import Request
from ..errors import SendError
from . import route

RATE, BURST = 20, 40
"""SYNs a second, and at once, that a server hears of a source (ruleset.PER_SOURCE) and `--send` sends of a user."""
_IPV6_HDRINCL = 36
"""include/uapi/linux/in6.h"""
_WITHOUT = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.ENOPROTOOPT)
"""Errors of a kernel that lacks an address family."""


class Knock(NamedTuple):
    """A packet that is ready to be sent."""

    packet: bytes
    """From the IP header on."""
    destination: str
    request: Request
    counter: int
    source: str
    """The address of this machine that it leaves from; the connection must leave from it, too."""


def open_raw(user: int = -1) -> dict[int, socket.socket]:
    """Return a raw socket for each address family of this machine. Raises SendError without the right to them.

    user: the owner of sockets that root opens; what they send is routed like that user's connections (ip-rule(8),
    uidrange). -1: the user who has called sudo.
    """
    if os.geteuid() == 0 and user < 0:
        invoker = os.environ.get("SUDO_UID", "")
        user = int(invoker) if invoker.isdecimal() and len(invoker) < 10 else -1
    found: dict[int, socket.socket] = {}
    for family, level, option in (
        (socket.AF_INET, socket.IPPROTO_IP, socket.IP_HDRINCL),
        (socket.AF_INET6, socket.IPPROTO_IPV6, _IPV6_HDRINCL),
    ):
        try:
            raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
            raw.setsockopt(level, option, 1)
            if user >= 0:  # the unit of --send would be killed for the call
                os.fchown(raw.fileno(), user, -1)
            found[family] = raw
        except PermissionError:
            raise SendError(
                "you may not send a knock from here, it takes a raw socket (the capability net_raw): run it with sudo, "
                "or have it sent for you (see docs/laptop.md, Without sudo)"
            ) from None
        except OSError as error:
            if error.errno not in _WITHOUT:
                raise SendError(f"a raw socket cannot be opened: {error.strerror}") from None
    return found


def send(raw: socket.socket, knock: Knock) -> None:
    """Send a knock. Raises SendError."""
    with contextlib.suppress(OSError):  # then it is routed by its source, as the connection will be (ip-rule(8))
        raw.bind(route.end(knock.source, 0))
    try:
        raw.sendto(knock.packet, route.end(knock.destination, 0))
    except OSError as error:
        raise SendError(f"the knock to {knock.destination} could not be sent: {error.strerror}") from None


def become_invoker() -> str:
    """Give up the root that sudo gave, for good; return the user's home directory. Raises SendError."""
    invoker = os.environ.get("SUDO_UID") or "0"
    if os.geteuid() != 0 or invoker == "0":
        return os.path.expanduser("~")
    try:
        user = pwd.getpwuid(int(invoker))
    except (ValueError, KeyError):
        raise SendError(f"root cannot be given up: SUDO_UID={invoker} is no user of this machine") from None
    from ..profiles import legacy  # without sudo there is nothing to look for

    legacy.look()
    os.initgroups(user.pw_name, user.pw_gid)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    if os.getresuid() != (user.pw_uid,) * 3 or os.getresgid() != (user.pw_gid,) * 3:
        raise SendError("root could not be given up")
    return user.pw_dir
