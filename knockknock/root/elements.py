"""Elements of nftables sets, put in and taken out by messages of our own to the kernel.

libnftables asks for all tables, chains and sets before each command, and somebody waits at the door. The layout is
that of include/uapi/linux/netfilter/nf_tables.h and net/netfilter/nfnetlink.c: a batch, which is carried out as a whole
or not at all.
"""

import os
import socket
import struct

from ..grant import Grant
from . import NAME

_NETLINK_NETFILTER = 12  # include/uapi/linux/netlink.h
_REQUEST, _ACK, _CREATE, _ERROR = 1, 4, 0x400, 2
_NESTED = 0x8000
_BEGIN, _END, _NFTABLES, _NEW, _DELETE = 16, 17, 10, 12, 14  # NFNL_MSG_BATCH_*, NFNL_SUBSYS_NFTABLES, NFT_MSG_*SETELEM
_INET = 1  # NFPROTO_INET
_TABLE, _SET, _ELEMENTS, _ELEMENT = 1, 2, 3, 1  # NFTA_SET_ELEM_LIST_*, NFTA_LIST_ELEM
_KEY, _TIMEOUT, _VALUE = 1, 4, 1  # NFTA_SET_ELEM_*, NFTA_DATA_VALUE
_ANSWER = struct.Struct("=IHHIIi")
"""struct nlmsghdr, and the error of struct nlmsgerr."""
_PATIENCE = 5.0
"""Seconds to wait for an answer."""

Change = tuple[int, int, bytes]
"""Type, flags, attributes."""


class Elements:
    """A socket to the kernel's nftables.

    It stays open: to close one waits until the kernel has cleared away what was deleted, which takes 20 milliseconds.
    """

    def __init__(self) -> None:
        self._kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._kernel.connect((0, 0))
        self._kernel.settimeout(_PATIENCE)
        self._number = 0
        """Of the last message: an answer bears the number of what it answers."""

    def change(self, *changes: Change) -> None:
        """Have some changes carried out together. Raises OSError with nothing changed."""
        begin = self._number % (1 << 31) + 1
        self._number = last = begin + len(changes)
        messages = [
            _packed(kind, flags, _INET, 0, begin + at, body) for at, (kind, flags, body) in enumerate(changes, 1)
        ]
        bounds = [_packed(kind, _REQUEST, socket.AF_UNSPEC, _NFTABLES, begin, b"") for kind in (_BEGIN, _END)]
        self._kernel.send(b"".join([bounds[0], *messages, bounds[1]]))
        failed, answered = 0, 0
        while answered != last:
            _, kind, _, number, _, code = _ANSWER.unpack_from(self._kernel.recv(4096))
            if kind == _ERROR and number >= begin:  # else left over from a change whose answers were not waited for
                failed = failed or -code
                # What is wrong with the whole batch is said of its beginning alone.
                answered = last if number == begin else number
        if failed:
            raise OSError(failed, os.strerror(failed))


def add(name: str, grant: Grant, seconds: int = 0) -> Change:
    """To put a door into a set of ours for some seconds; where it is already this changes nothing. 0: for ever."""
    timeout = _attribute(_TIMEOUT, struct.pack("!Q", seconds * 1000)) if seconds else b""
    return _change(_NEW, _CREATE, name, _key(grant) + timeout)


def delete(name: str, grant: Grant) -> Change:
    """To take a door out of a set of ours; refused with ENOENT where it is not."""
    return _change(_DELETE, 0, name, _key(grant))


def _key(grant: Grant) -> bytes:
    """Address, protocol and port, each padded to registers of 4 bytes, as nft makes it of a concatenation."""
    key = grant.address + struct.pack("!B3xH2x", grant.protocol, grant.port)
    return _attribute(_KEY | _NESTED, _attribute(_VALUE, key))


def _change(kind: int, flags: int, name: str, element: bytes) -> Change:
    listed = _attribute(_ELEMENTS | _NESTED, _attribute(_ELEMENT | _NESTED, element))
    body = _attribute(_TABLE, NAME.encode() + b"\0") + _attribute(_SET, name.encode() + b"\0") + listed
    return _NFTABLES << 8 | kind, _REQUEST | _ACK | flags, body


def _packed(kind: int, flags: int, family: int, subsystem: int, number: int, body: bytes) -> bytes:
    """struct nlmsghdr, struct nfgenmsg, attributes."""
    head = struct.pack("=IHHIIBB", 20 + len(body), kind, flags, number, 0, family, 0)
    return head + struct.pack("!H", subsystem) + body


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)
