"""Identifies the other end of a connection: a user of this machine, or an address."""

import contextlib
import socket
import struct

_SOCK_DIAG, _BY_FAMILY, _REQUEST = 4, 20, 1
"""NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY and NLM_F_REQUEST of linux/netlink.h and linux/sock_diag.h."""
_OWNER = 80
"""Bytes of an answer before the socket's user and inode (struct inet_diag_msg), its header included."""


def name(client: socket.socket) -> str:
    """Return the user of a local process at the other end, else the address, of IPv6 its network (/64)."""
    try:
        peer = client.getpeername()
    except OSError:
        return "a client that has gone"
    packed = socket.inet_pton(client.family, peer[0].partition("%")[0])
    with contextlib.suppress(OSError):
        if (user := _owner(client, peer[1], packed)) is not None:
            return f"user {user} of this machine"
    if client.family == socket.AF_INET:
        return str(peer[0])
    return socket.inet_ntop(socket.AF_INET6, packed[:8] + bytes(8)) + "/64"


def _owner(client: socket.socket, port: int, peer: bytes) -> int | None:
    """Return the user of a client's socket if it is local and open, as the kernel says. Raises OSError.

    port, peer: the client's, the address packed.
    """
    ours = client.getsockname()
    near = socket.inet_pton(client.family, ours[0].partition("%")[0])
    every_state = 0xFFFFFFFF
    head = 72, _BY_FAMILY, _REQUEST, 0, 0, client.family, socket.IPPROTO_TCP, 0, every_state
    ends = struct.pack("!HH16s16s", port, ours[1], peer, near)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.send(struct.pack("=IHHIIBBHI", *head) + ends + struct.pack("=I8s", 0, b"\xff" * 8))
        answer = kernel.recv(1024)
    if struct.unpack_from("=H", answer, 4) != (_BY_FAMILY,):
        return None
    user, inode = struct.unpack_from("=II", answer, _OWNER)
    return user if inode else None  # the kernel reports root for a socket that is closed
