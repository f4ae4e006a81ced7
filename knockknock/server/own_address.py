"""Tells whether an address is this machine's own, by the kernel's routes (rtnetlink(7)).

The daemon opens the socket before it locks itself in, and has no right to change a route by it.
"""

import ipaddress
import socket
import struct

from ..errors import FirewallError

# include/uapi/linux/netlink.h, rtnetlink.h
_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=8BI")
_TYPE = _HEADER.size + 7
"""Offset of rtm_type in a struct rtmsg of an answer."""
_REQUEST, _NEW_ROUTE, _GET_ROUTE, _DESTINATION = 1, 24, 26, 1
_OURS = {2, 3, 4}
"""RTN_LOCAL, RTN_BROADCAST (of a network that we are in), RTN_ANYCAST."""


def connect() -> socket.socket:
    """A socket to the kernel's routes."""
    routes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    routes.connect((0, 0))
    return routes


def refuse(routes: socket.socket, address: bytes) -> None:
    """Raise FirewallError for an address of this machine, or if the kernel's route to it cannot be looked up.

    The daemon goes on after it, because a program on this machine may knock, too. Works with
    ip_nonlocal_bind and without, and sends nothing.
    """
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    message = _ROUTE.pack(family, 8 * len(address), *[0] * 7)
    message += struct.pack("=HH", 4 + len(address), _DESTINATION) + address
    try:
        routes.send(_HEADER.pack(_HEADER.size + len(message), _GET_ROUTE, _REQUEST, 0, 0) + message)
        answer = routes.recv(4096)
    except OSError as error:
        raise FirewallError(f"the kernel does not tell whose {ipaddress.ip_address(address)} is: {error}") from None
    _, kind, *_ = _HEADER.unpack_from(answer)
    if kind == _NEW_ROUTE and answer[_TYPE] in _OURS:  # else a route to another host, or the error that there is none
        raise FirewallError(f"{ipaddress.ip_address(address)} is this machine itself")
