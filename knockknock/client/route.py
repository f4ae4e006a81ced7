"""Resolves a host, and finds the source address that a connection to each of its addresses would have."""

import _thread
import contextlib
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import SendError

MOST_ADDRESSES = 4
"""Addresses of a host that are knocked at. With --stdio each costs up to three knocks, and all of them must stay in the
server's look-ahead window if none arrives: its default is 20."""
_IP_MTU, _IPV6_MTU = 14, 24
"""include/uapi/linux: in.h, in6.h."""
Answer = TypeVar("Answer")


def addresses(host: str, family: int) -> list[tuple[int, str]]:
    """Return all addresses of a host, each with its family, in the order to try them (RFC 8305 section 4).

    family: AF_UNSPEC for both. The resolver's first choice stays the first; from there the families take turns. Raises
    SendError.
    """
    try:
        # As bytes, an ASCII name needs no IDNA codec, whose import takes longer than the look-up.
        name = host.encode() if host.isascii() else host
        found = socket.getaddrinfo(name, None, family, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        kind = " as IPv4" if family == socket.AF_INET else " as IPv6" if family == socket.AF_INET6 else ""
        reason = error.strerror if isinstance(error, socket.gaierror) else "not a host name"
        raise SendError(f"'{host}' does not resolve{kind}: {reason}") from None
    every = list(dict.fromkeys((one[0].value, text(one[4])) for one in found))
    first = [one for one in every if one[0] == every[0][0]]
    second = [one for one in every if one[0] != every[0][0]]
    turns = [one for pair in zip(first, second, strict=False) for one in pair]
    return turns + first[len(second) :] + second[len(first) :]


def within(seconds: float, question: Callable[[], Answer]) -> Answer:
    """Return the result of a look-up, or raise its OSError or SendError. Raises SendError if it takes longer.

    The resolver itself waits for 5 seconds and more, as often as there are servers (resolv.conf(5)); the end of the
    process does not wait for it.
    """
    done, results, errors = _thread.allocate_lock(), list[Answer](), list[OSError | SendError]()

    def ask() -> None:
        try:
            results.append(question())
        except (OSError, SendError) as error:
            errors.append(error)
        done.release()

    done.acquire()
    _thread.start_new_thread(ask, ())
    if not done.acquire(timeout=seconds):
        raise SendError(f"the resolver has not answered for {seconds:g} s: look at /etc/resolv.conf")
    for error in errors:
        raise error
    return results[0]


def text(address: tuple[Any, ...]) -> str:
    """Return a socket's address as text; a link-local one has its zone behind it (RFC 4007)."""
    host = str(address[0])
    if len(address) == 4 and address[3] and "%" not in host:
        with contextlib.suppress(OSError):  # an interface that has just gone
            return f"{host}%{socket.if_indextoname(address[3])}"
    return host


def end(address: str, port: int) -> tuple[Any, ...]:
    """Return the tuple that connect(), bind() and sendto() take for an address, with its zone, and a port."""
    host, _, zone = address.partition("%")
    if not zone:
        return host, port
    return host, port, 0, int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)


def each(knock: Callable[[tuple[int, str]], object], addresses: list[tuple[int, str]]) -> None:
    """Knock at up to MOST_ADDRESSES of a host, because nobody knows which one a connection will take.

    Raises the first SendError if none of them can be reached.
    """
    errors: list[SendError] = []
    for address in addresses[:MOST_ADDRESSES]:
        try:
            knock(address)
        except SendError as error:
            errors.append(error)
    if len(errors) == len(addresses[:MOST_ADDRESSES]):
        raise errors[0]


def family_of(address: str) -> int:
    """Return the family of an address in text. Raises SendError."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, address)
            return family
    raise SendError(f"'{address}' is no address that a knock could come from: an IPv4 or IPv6 address is expected")


def find(family: int, destination: str, port: int, source: str) -> tuple[str, int, int]:
    """Return the source address, the MTU and the TTL or hop limit that a connection would have; send nothing.

    source: the address to leave from if it is this machine's, or "". Raises SendError.
    """
    level, option = (socket.IPPROTO_IP, _IP_MTU) if family == socket.AF_INET else (socket.IPPROTO_IPV6, _IPV6_MTU)
    with opened(family, socket.SOCK_DGRAM, destination) as probe:
        if source:
            with contextlib.suppress(OSError):  # that of a NAT, which no socket of ours can have
                probe.bind(end(source, 0))
        try:
            probe.connect(end(destination, port))
        except OSError as error:
            raise SendError(f"there is no way to {destination} from here: {error.strerror}") from None
        return text(probe.getsockname()), probe.getsockopt(level, option), hops(family, probe)


def hops(family: int, connected: socket.socket) -> int:
    """Return the TTL or hop limit that a socket sends with; for IPv6 its route's, as a router may have announced it."""
    if family == socket.AF_INET:
        return connected.getsockopt(socket.IPPROTO_IP, socket.IP_TTL)
    return connected.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)


def opened(family: int, kind: int, destination: str) -> socket.socket:
    """Return a socket for a destination. Raises SendError if the kernel lacks the family, or is out of sockets."""
    try:
        return socket.socket(family, kind)
    except OSError as error:
        raise SendError(f"there is no way to {destination} from here: {error.strerror}") from None


def packed(family: int, address: str) -> bytes:
    """Return the bytes of an address; a link-local one may have its zone behind it (RFC 4007)."""
    return socket.inet_pton(family, address.partition("%")[0])


def same(family: int, one: str, other: str) -> bool:
    """Return True if two texts are one address."""
    return packed(family, one) == packed(family, other)
