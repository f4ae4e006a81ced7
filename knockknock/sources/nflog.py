"""Receives packets from the kernel's packet logger (NFLOG) by netlink, at most COPY bytes of each.

The configuration messages are those of include/uapi/linux/netfilter/nfnetlink_log.h. They are packed here because a
netlink library would take more memory and start time than the rest of the daemon together.
"""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator

from ..core.packet import Packet
from ..errors import SourceError
from .datagrams import BATCH, Datagrams
from .nflog_packet import Parser

COPY = 512
"""The most bytes of a packet that the kernel copies: IP and TCP headers with all options are at most 120, IPv6
extension headers seldom more than 64; the rest is for a payload. A flood's large packets take no more of the buffer."""
RECEIVE = 8 << 20
"""Bytes of receive buffer to ask for. The kernel doubles it; a SYN takes 832 of it, so it holds 20,000 SYNs."""
BUFFER = 2048
"""Bytes for one message, which has at most COPY and 300 more."""
MESSAGE = 512
"""Bytes that the kernel allocates for a message at first; a larger one gets more. The default, a page, would fill the
receive buffer with unused space."""

_NOTHING = (None,)
_NETLINK_NETFILTER, _SO_RCVBUFFORCE = 12, 33  # linux/netlink.h, asm-generic/socket.h
_NLMSG_ERROR, _REQUEST_ACK = 2, 1 | 4
_CONFIG = 4 << 8 | 1  # NFNL_SUBSYS_ULOG, NFULNL_MSG_CONFIG
_CMD, _MODE, _NLBUFSIZ, _TIMEOUT, _QTHRESH, _FLAGS = range(1, 7)  # NFULA_CFG_*
_BIND, _COPY_PACKET = 1, 2
_BOUND = "/proc/net/netfilter/nfnetlink_log"


class NfLog:
    """Reads one NFLOG group (sources.Source)."""

    GIVES = frozenset({"tcp timestamps", "payload"})
    group = None

    def __init__(self, path: str, number: int, bound: socket.socket) -> None:
        """path: for people. number: of the group. bound: the socket, non-blocking."""
        self.path, self._socket = path, bound
        self._parser = Parser(number)
        self._datagrams = Datagrams(bound, BUFFER)
        self._overruns, self._heard = 0, False

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> Iterator[Packet | None]:
        """Yield packets until the socket's buffer is empty. Raises SourceError."""
        buffer, packets = self._datagrams.buffer, self._parser.packets
        while True:
            try:
                sizes = self._datagrams.receive()
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise SourceError(f"{self.path} cannot be read any more: {error.strerror}") from None
                # One error for all messages lost since the buffer was full; those in the buffer are still there.
                self._overruns += 1
                continue
            for number, size in enumerate(sizes):
                found = packets(buffer, number * BUFFER, size)
                self._heard = self._heard or bool(found)
                yield from found or _NOTHING
            if len(sizes) < BATCH:
                return

    def hearing(self) -> tuple[bool, str]:
        heard, self._heard = self._heard, False
        return heard, ""

    def drain(self) -> None:
        """Do nothing: the socket's buffer is the queue."""

    def complaint(self) -> str:
        count, self._overruns = self._overruns, 0
        return f"the buffer of {self.path} was full {count} time(s): knocks may have been lost" if count else ""


def open_source(place: str) -> NfLog:
    """Bind the group of this number, in digits; needs root or CAP_NET_ADMIN for that. Raises SourceError."""
    source = look(place)
    try:
        _bind(source, int(place))
    except OSError as error:
        owner = _owner(place)
        if owner:
            why = f"another program has it (netlink port {owner}, most often its process id); stop that one, or set"
            raise SourceError(f"NFLOG group {place}: {why} nflog_group to another number") from None
        raise SourceError(f"NFLOG group {place} cannot be had: {error.strerror}; set source = kmsg") from None
    return source


def look(place: str) -> NfLog:
    """Return a source that is not bound to its group, so that another program can keep it. Raises SourceError."""
    path = f"NFLOG group {place}"
    try:
        unbound = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        unbound.setblocking(False)
    except OSError as error:
        raise SourceError(
            f"the kernel gives no netlink socket for {path}: {error.strerror}; set source = kmsg"
        ) from None
    return NfLog(path, int(place), unbound)


def _bind(source: NfLog, group: int) -> None:
    """Bind a source to its group. Raises OSError, with EPERM also if another socket has the group."""
    one = source._socket
    try:
        one.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE)
    except PermissionError:  # root of a user namespace may not force it
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE)
    one.connect((0, 0))  # to the kernel: no other program can send to this socket now
    one.send(bind_request(group))
    while True:
        answer = one.recv(BUFFER)
        length, kind = struct.unpack_from("=IH", answer)
        if kind == _NLMSG_ERROR and length >= 20:
            break  # anything else is a packet already
    if code := -struct.unpack_from("=i", answer, 16)[0]:
        raise OSError(code, os.strerror(code))


def _owner(group: str) -> str:
    """The netlink port that a group is bound to; "" if it is free, or if /proc does not tell."""
    with contextlib.suppress(OSError), open(_BOUND) as file:
        for line in file:
            if (words := line.split())[:1] == [group]:
                return words[1]
    return ""


def bind_request(group: int) -> bytes:
    """Return the netlink message that binds a group to the socket that sends it; other loggers are not affected.

    The threshold is 1, so that the kernel sends each packet at once; it holds packets back below the threshold, at most
    for the timeout, a hundredth of a second.
    """
    numbers = (_NLBUFSIZ, MESSAGE), (_TIMEOUT, 1), (_QTHRESH, 1)
    body = struct.pack("!BBH", socket.AF_UNSPEC, 0, group)
    body += _attribute(_CMD, bytes([_BIND]))
    body += _attribute(_MODE, struct.pack("!IBx", COPY, _COPY_PACKET))
    body += b"".join(_attribute(kind, struct.pack("!I", value)) for kind, value in numbers)
    body += _attribute(_FLAGS, struct.pack("!H", 0))
    return struct.pack("=IHHII", 16 + len(body), _CONFIG, _REQUEST_ACK, 1, 0) + body


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)
