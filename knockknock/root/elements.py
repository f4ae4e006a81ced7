"""Elements of nftables sets, put in and taken out, and counters, by messages of our own to the kernel.

libnftables asks for all tables, chains and sets before each command, and somebody waits at the door; before it lists a
counter it asks for all elements of all sets of others, too. The layout is
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
_GET_OBJECT = 19  # NFT_MSG_GETOBJ
_INET = 1  # NFPROTO_INET
_TABLE, _SET, _ELEMENTS, _ELEMENT = 1, 2, 3, 1  # NFTA_SET_ELEM_LIST_*, NFTA_LIST_ELEM
_KEY, _TIMEOUT, _VALUE = 1, 4, 1  # NFTA_SET_ELEM_*, NFTA_DATA_VALUE
_OBJECT_TABLE, _OBJECT_NAME, _OBJECT_TYPE, _OBJECT_DATA, _COUNTER, _PACKETS = 1, 2, 3, 4, 1, 2
"""NFTA_OBJ_*, NFT_OBJECT_COUNTER, NFTA_COUNTER_PACKETS."""
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

    def packets(self, table: str, counter: str) -> int:
        """What a named counter has counted. Raises OSError."""
        self._number = number = self._number % (1 << 31) + 1
        body = _attribute(_OBJECT_TABLE, table.encode() + b"\0") + _attribute(_OBJECT_NAME, counter.encode() + b"\0")
        body += _attribute(_OBJECT_TYPE, struct.pack("!I", _COUNTER))
        self._kernel.send(_packed(_NFTABLES << 8 | _GET_OBJECT, _REQUEST, _INET, 0, number, body))
        while True:
            answer = self._kernel.recv(4096)
            size, kind, _, answered, _, code = _ANSWER.unpack_from(answer)
            if answered != number:
                continue  # left over, as above
            if kind == _ERROR:
                raise OSError(-code, os.strerror(-code))
            data = _attributes(_attributes(answer[20:size]).get(_OBJECT_DATA, b""))
            return int.from_bytes(data.get(_PACKETS, b""), "big")


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


def _attributes(data: bytes) -> dict[int, bytes]:
    """What _attribute() packed, one behind the other, by kind."""
    found = {}
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        found[kind & ~_NESTED] = data[4:size]
        data = data[max(4, (size + 3) & ~3) :]
    return found
