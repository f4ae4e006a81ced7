"""Messages of our own to the kernel's nf_tables, for what libnftables does too slowly.

libnftables asks for all tables, chains and sets before each command, and somebody waits at the door; before it lists
anything it asks for all elements of all sets of others, too. The layout is that of
include/uapi/linux/netfilter/nf_tables.h and net/netfilter/nfnetlink.c: changes are a batch, which is carried out as a
whole or not at all.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import FirewallError
from ..grant import Grant
from . import NAME

NETFILTER = 12  # NETLINK_NETFILTER of include/uapi/linux/netlink.h
INET, IP, IP6 = 1, 2, 10
"""NFPROTO_*."""
TABLES, CHAINS, RULES, SETS, ELEMENTS = 1, 4, 7, 10, 13
"""NFT_MSG_GET*."""
NEW_RULE, DELETE_RULE = 6, 8
NESTED = 0x8000
_REQUEST, _ACK, _INTERRUPTED, _DUMP, _CREATE, _ERROR, _DONE = 1, 4, 0x10, 0x300, 0x400, 2, 3
_BEGIN, _END, _NFTABLES, _NEW_ELEMENT, _DELETE_ELEMENT = 16, 17, 10, 12, 14
"""NFNL_MSG_BATCH_*, NFNL_SUBSYS_NFTABLES, NFT_MSG_*SETELEM."""
_GET_GENERATION, _GENERATION, _GET_OBJECT = 16, 1, 19
"""NFT_MSG_GETGEN, NFTA_GEN_ID, NFT_MSG_GETOBJ."""
_TABLE, _SET, _LIST, _ELEMENT = 1, 2, 3, 1
"""NFTA_SET_ELEM_LIST_*, NFTA_LIST_ELEM."""
_KEY, _TIMEOUT, _EXPIRATION, _VALUE = 1, 4, 5, 1
"""NFTA_SET_ELEM_*, NFTA_DATA_VALUE."""
_OBJECT_TABLE, _OBJECT_NAME, _OBJECT_TYPE, _OBJECT_DATA, _COUNTER, _PACKETS = 1, 2, 3, 4, 1, 2
"""NFTA_OBJ_*, NFT_OBJECT_COUNTER, NFTA_COUNTER_PACKETS."""
_HEADER, _ANSWER = struct.Struct("=IHHII"), struct.Struct("=IHHIIi")
"""struct nlmsghdr, alone and with the error of struct nlmsgerr."""
_PATIENCE = 5.0
"""Seconds to wait for an answer."""
_TRIES = 20
"""Times that something is listed anew because it changed meanwhile."""


class Change(NamedTuple):
    """One message of a batch."""

    kind: int
    """NFT_MSG_NEW* or NFT_MSG_DEL*."""
    flags: int
    body: bytes
    family: int = INET


class Element(NamedTuple):
    """An element of a set."""

    key: bytes
    seconds: int | None
    """That are left, rounded up; None: for ever."""


class Kernel:
    """A socket to the kernel's nf_tables.

    It stays open: to close one waits until the kernel has cleared away what was deleted, which takes 20 milliseconds.
    """

    def __init__(self) -> None:
        """Raises FirewallError if this kernel has no nf_tables."""
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
            self._socket.connect((0, 0))
            self._socket.settimeout(_PATIENCE)
            self._number = 0
            self.dump(TABLES)
        except OSError as error:
            raise FirewallError(
                f"this kernel has no nf_tables, which knockknock is made for ({error.strerror}): modprobe nf_tables"
            ) from None

    def change(self, *changes: Change) -> None:
        """Have some changes carried out together. Raises OSError with nothing changed."""
        begin = self._number % (1 << 31) + 1
        self._number = last = begin + len(changes)
        messages = [
            _packed(_NFTABLES << 8 | one.kind, _REQUEST | _ACK | one.flags, one.family, 0, begin + at, one.body)
            for at, one in enumerate(changes, 1)
        ]
        bounds = [_packed(kind, _REQUEST, socket.AF_UNSPEC, _NFTABLES, begin, b"") for kind in (_BEGIN, _END)]
        self._socket.send(b"".join([bounds[0], *messages, bounds[1]]))
        failed, answered = 0, 0
        while answered != last:
            _, kind, _, number, _, code = _ANSWER.unpack_from(self._socket.recv(4096))
            if kind == _ERROR and number >= begin:  # else left over from a change whose answers were not waited for
                failed = failed or -code
                # What is wrong with the whole batch is said of its beginning alone.
                answered = last if number == begin else number
        if failed:
            raise OSError(failed, os.strerror(failed))

    def generation(self) -> int:
        """The number of the ruleset: each transaction, anybody's, adds one. Raises OSError."""
        _, found = next(self._answers(_GET_GENERATION, _REQUEST, 0, b""))
        return int.from_bytes(found[_GENERATION], "big")

    def packets(self, table: str, counter: str) -> int:
        """What a named counter has counted. Raises OSError."""
        asked = text(_OBJECT_TABLE, table) + text(_OBJECT_NAME, counter) + word(_OBJECT_TYPE, _COUNTER)
        _, found = next(self._answers(_GET_OBJECT, _REQUEST, INET, asked))
        return int.from_bytes(dict(attributes(found[_OBJECT_DATA]))[_PACKETS], "big")

    def dump(self, kind: int, family: int = 0, body: bytes = b"") -> list[tuple[int, dict[int, bytes]]]:
        """All objects of a kind, one of those above: the family and the attributes of each. Raises OSError."""
        for _ in range(_TRIES):
            try:
                return list(self._answers(kind, _REQUEST | _DUMP, family, body))
            except InterruptedError:
                continue
        raise OSError(errno.EBUSY, "its rules change too fast to be listed")

    def elements(self, name: str) -> list[Element]:
        """What is in a set of our table. Raises OSError."""
        asked = text(_TABLE, NAME) + text(_SET, name)
        return [
            _element(dict(attributes(one)))
            for _, found in self.dump(ELEMENTS, INET, asked)
            for _, one in attributes(found.get(_LIST, b""))
        ]

    def _answers(self, kind: int, flags: int, family: int, body: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
        """Raises OSError; InterruptedError if what is listed has changed meanwhile."""
        self._number = number = self._number % (1 << 31) + 1
        self._socket.send(_packed(_NFTABLES << 8 | kind, flags, family, 0, number, body))
        interrupted = False
        while True:
            data = self._socket.recv(1 << 16)
            while data:
                size, kind, flags, answered, _ = _HEADER.unpack_from(data)
                message, data = data[_HEADER.size : size], data[(size + 3) & ~3 :]
                if answered != number:
                    continue  # left over, as above
                interrupted = interrupted or bool(flags & _INTERRUPTED)
                if kind == _ERROR:
                    code = -int(struct.unpack_from("=i", message)[0])
                    raise OSError(code, os.strerror(code))
                if kind == _DONE:
                    if interrupted:
                        raise InterruptedError
                    return
                yield message[0], dict(attributes(message[4:]))


def add(name: str, key: bytes, seconds: int = 0) -> Change:
    """To put an element into a set of ours for some seconds; where it is already this changes nothing. 0: for ever."""
    timeout = attribute(_TIMEOUT, struct.pack("!Q", seconds * 1000)) if seconds else b""
    return Change(_NEW_ELEMENT, _CREATE, _listed(name, key, timeout))


def delete(name: str, key: bytes) -> Change:
    """To take an element out of a set of ours; refused with ENOENT where it is not."""
    return Change(_DELETE_ELEMENT, 0, _listed(name, key, b""))


def _listed(name: str, key: bytes, more: bytes) -> bytes:
    element = attribute(_KEY | NESTED, attribute(_VALUE, key)) + more
    return text(_TABLE, NAME) + text(_SET, name) + attribute(_LIST | NESTED, attribute(_ELEMENT | NESTED, element))


def _element(found: dict[int, bytes]) -> Element:
    left = found.get(_EXPIRATION, found.get(_TIMEOUT))
    key = dict(attributes(found[_KEY]))[_VALUE]
    return Element(key, None if left is None else -(-int.from_bytes(left, "big") // 1000))


def door(grant: Grant) -> bytes:
    """The key of a door: address, protocol and port, each padded to registers of 4 bytes, as nft makes it."""
    return grant.address + struct.pack("!B3xH2x", grant.protocol, grant.port)


def _packed(kind: int, flags: int, family: int, subsystem: int, number: int, body: bytes) -> bytes:
    """struct nlmsghdr, struct nfgenmsg, attributes."""
    head = _HEADER.pack(20 + len(body), kind, flags, number, 0)
    return head + struct.pack("!BBH", family, 0, subsystem) + body


def attribute(kind: int, data: bytes) -> bytes:
    """struct nlattr and its data."""
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def text(kind: int, name: str) -> bytes:
    """A name as an attribute."""
    return attribute(kind, name.encode() + b"\0")


def word(kind: int, number: int) -> bytes:
    """A number of 4 bytes, network order, as an attribute."""
    return attribute(kind, struct.pack("!I", number))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """What attribute() packed, one behind the other: kind, without the flag for nesting, and data."""
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        yield kind & ~NESTED, data[4:size]
        data = data[max(4, (size + 3) & ~3) :]
