"""Takes the SYN that this kernel would send to a host, as the template of a knock; sends on the loopback alone.

kernel_syn() has the kernel make a SYN to this machine itself over the loopback, which has the options and flags of any
connection. unsent() has it prepare a connection to the host without sending, as TCP Fast Open does until there is data.
That gives what depends on the other end: the source port, the timestamp (its clock belongs to a pair of addresses, in
newer kernels to addresses and ports) and the hop limit.
"""

import contextlib
import errno
import os
import socket
import struct
from typing import NamedTuple

from ..errors import SendError
from . import route

# include/uapi/linux: in.h, in6.h, tcp.h
_IP_MTU, _IP_BIND_ADDRESS_NO_PORT, _IPV6_MTU = 14, 24, 24
_TCP_TIMESTAMP, _TCP_SAVE_SYN, _TCP_SAVED_SYN, _TCP_FASTOPEN_CONNECT, _TCP_FASTOPEN_NO_COOKIE = 24, 27, 28, 30, 34
_MAX_MAXSEG = 32767
"""include/net/tcp.h: MAX_TCP_WINDOW"""


class Unsent(NamedTuple):
    """The fields that a connection to a host would have."""

    source: str
    """The address of this machine; a link-local one with its zone behind it (RFC 4007)."""
    port: int
    """The source port, or 0 if it could not be learned."""
    timestamp: int
    """TSval (RFC 7323), 32 bits."""
    hops: int
    """TTL or hop limit."""
    mtu: int
    """Bytes, of the route."""


def unsent(family: int, destination: str, port: int, source: str) -> Unsent:
    """Return the fields of the next connection to a port of a host; send nothing. Raises SendError.

    source: the address to connect from if it is this machine's, or "" for the kernel's choice. If the kernel may not
    defer a connection (net.ipv4.tcp_fastopen without 1, tcp_fastopen_blackhole_timeout_sec not 0), the port is 0 and
    the timestamp random.
    """
    with route.opened(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, destination) as probe:
        try:
            # The kernel may have disabled Fast Open for a while, after losses; then a SYN would leave.
            if _setting("ipv4/tcp_fastopen_blackhole_timeout_sec", 0):
                raise BlockingIOError
            for option in _TCP_FASTOPEN_CONNECT, _TCP_FASTOPEN_NO_COOKIE:
                probe.setsockopt(socket.IPPROTO_TCP, option, 1)
        except OSError:
            source, mtu, hops = route.find(family, destination, port, source)
            return Unsent(source, 0, int.from_bytes(os.urandom(4), "big"), hops, mtu)
        probe.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        if source:
            with contextlib.suppress(OSError):  # that of a NAT, which no socket of ours can have
                probe.bind(route.end(source, 0))
        try:
            probe.connect(route.end(destination, port))
        except OSError as error:
            raise SendError(f"there is no way to {destination} from here: {error.strerror}") from None
        level, option = (socket.IPPROTO_IP, _IP_MTU) if family == socket.AF_INET else (socket.IPPROTO_IPV6, _IPV6_MTU)
        return Unsent(
            route.text(probe.getsockname()),
            probe.getsockname()[1],
            probe.getsockopt(socket.IPPROTO_TCP, _TCP_TIMESTAMP) & 0xFFFFFFFF,
            route.hops(family, probe),
            probe.getsockopt(level, option),
        )


def kernel_syn(family: int, segment: int) -> bytes:
    """Return the SYN that this machine's kernel sends now, from the IP header on. Raises SendError.

    segment: the maximum segment size that it announces, which the window follows. If the kernel keeps no SYN
    (net.ipv4.tcp_syncookies = 2), usual_syn() makes it.
    """
    with contextlib.ExitStack() as stack:
        try:
            listener, caller = (stack.enter_context(socket.socket(family, socket.SOCK_STREAM)) for _ in range(2))
            listener.setsockopt(socket.IPPROTO_TCP, _TCP_SAVE_SYN, 1)
            listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
            listener.listen(1)
            for end in (listener, caller):
                end.settimeout(1)
            if segment <= _MAX_MAXSEG:  # a larger one is the loopback's own, which it announces unasked
                caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
            caller.connect(listener.getsockname())
            # Closed with a reset: nothing of it stays behind in TIME_WAIT.
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            answered, peer = listener.accept()
            stack.enter_context(answered)
            while peer != caller.getsockname():  # somebody else on this machine was faster
                answered, peer = listener.accept()
                stack.enter_context(answered)
            saved = answered.getsockopt(socket.IPPROTO_TCP, _TCP_SAVED_SYN, 256)
        except OSError as error:
            hint = "" if error.errno in (errno.EMFILE, errno.ENFILE) else ", is the loopback interface up?"
            raise SendError(f"the kernel's own SYN cannot be looked at{hint} {error.strerror or error}") from None
    return saved or usual_syn(family, segment)


def usual_syn(family: int, segment: int) -> bytes:
    """Return the SYN that Linux sends by its settings, as tcp_connect() makes it; addresses and numbers are 0.

    segment: as for kernel_syn(). The rules are those of tcp_syn_options() and tcp_select_initial_window() in
    net/ipv4/tcp_output.c.
    """
    space = _setting("ipv4/tcp_rmem", 131072, 1) // 2
    whole = min(65535, space // segment * segment or space)
    largest = max(_setting("ipv4/tcp_rmem", 6291456), _setting("core/rmem_max", 212992))
    options = struct.pack("!BBH", 2, 4, segment)
    if _setting("ipv4/tcp_timestamps", 1):
        options += (b"\4\2" if _setting("ipv4/tcp_sack", 1) else b"\1\1") + struct.pack("!BBII", 8, 10, 0, 0)
    elif _setting("ipv4/tcp_sack", 1):
        options += b"\1\1\4\2"
    if _setting("ipv4/tcp_window_scaling", 1):
        options += b"\1\3\3" + bytes([min(14, max(0, largest.bit_length() - 16))])
    flags = 0xC2 if _setting("ipv4/tcp_ecn", 2) == 1 else 2
    head = struct.pack("!HHIIBBHHH", 0, 0, 0, 0, 20 + len(options) << 2, flags, whole, 0, 0) + options
    if family == socket.AF_INET:
        return struct.pack("!BBHHHBBH8x", 0x45, 0, 20 + len(head), 0, 0x4000, 64, 6, 0) + head
    return struct.pack("!IHBB32x", 0x60000000, len(head), 6, 64) + head


def _setting(name: str, usual: int, which: int = -1) -> int:
    """Return a number of a sysctl below net, by default the last one, or `usual` if it cannot be read."""
    try:
        with open(f"/proc/sys/net/{name}") as file:
            return int(file.read().split()[which])
    except (OSError, ValueError, IndexError):
        return usual


def label() -> int:
    """Return upper bits for an IPv6 flow label as the kernel chooses them, 1 to 15 (PROTOCOL.md step 6)."""
    number = os.urandom(1)[0]
    return 8 | number % 8 if _setting("ipv6/flowlabel_state_ranges", 0) else 1 + number % 15
