"""Netlink messages to the kernel's nf_tables, for what libnftables does too slowly.

libnftables asks for all tables, chains and sets before each command, while a client waits; before it lists anything it
asks for all elements of all sets of others, too. The layout is that of include/uapi/linux/netfilter/nf_tables.h and
net/netfilter/nfnetlink.c: a batch of changes is one transaction.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator

from . import NAME

NETFILTER, INET = 12, 1
"""NETLINK_NETFILTER (include/uapi/linux/netlink.h), NFPROTO_INET."""
NESTED, ACK, DUMP, CREATE = 0x8000, 4, 0x300, 0x400
_REQUEST, _INTERRUPTED, _ERROR, _DONE = 1, 0x10, 2, 3
_BEGIN, _END, _NFTABLES, _NEW_ELEMENT, _DELETE_ELEMENT, _ELEMENTS, _OBJECT = 16, 17, 10, 12, 14, 13, 19
"""NFNL_MSG_BATCH_*, NFNL_SUBSYS_NFTABLES, NFT_MSG_*SETELEM, NFT_MSG_GETOBJ."""
_TABLE, _SET, _LIST, _ELEMENT = 1, 2, 3, 1
"""NFTA_SET_ELEM_LIST_*, NFTA_LIST_ELEM."""
_KEY, _TIMEOUT, _EXPIRATION, _VALUE = 1, 4, 5, 1
"""NFTA_SET_ELEM_*, NFTA_DATA_VALUE."""
_OBJECT_TABLE, _OBJECT_NAME, _OBJECT_TYPE, _OBJECT_DATA, _COUNTER, _PACKETS = 1, 2, 3, 4, bytes([0, 0, 0, 1]), 2
"""NFTA_OBJ_*, NFT_OBJECT_COUNTER, NFTA_COUNTER_PACKETS."""
_HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr."""
Change = tuple[int, int, int, bytes]
"""One message of a batch: NFT_MSG_NEW* or NFT_MSG_DEL*, flags, family, body."""
Object = tuple[int, dict[int, bytes]]
"""Family and attributes."""


class Kernel:
    """A socket to the kernel's nf_tables. All methods raise OSError.

    It stays open: closing waits until the kernel has freed what was deleted, which takes 20 milliseconds.
    """

    def __init__(self, fileno: int | None = None) -> None:
        """fileno: of such a socket; None: make a new one."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER, fileno)
        self._socket.connect((0, 0))
        self._socket.settimeout(5.0)  # seconds to wait for an answer
        self._number = 0

    def change(self, *changes: Change) -> None:
        """Carry out one or more changes as one transaction. Raises OSError with nothing changed."""
        begin, failed = self._number % (1 << 31) + 1, 0
        self._number = last = begin + len(changes)
        batch = [_packed(_BEGIN, 0, socket.AF_UNSPEC, _NFTABLES, begin, b"")]
        for number, (kind, flags, family, body) in enumerate(changes, begin + 1):
            batch.append(_packed(_NFTABLES << 8 | kind, ACK | flags, family, 0, number, body))
        batch.append(_packed(_END, 0, socket.AF_UNSPEC, _NFTABLES, begin, b""))
        self._socket.send(b"".join(batch))
        for kind, _, number, message in self._messages():
            if kind == _ERROR and number >= begin:  # else left over: an earlier change stopped reading
                failed = failed or -struct.unpack_from("=i", message)[0]
                if number in (begin, last):  # an error of the whole batch bears its first number alone
                    break
        if failed:
            raise OSError(failed, os.strerror(failed))

    def ask(self, kind: int, flags: int, family: int = 0, body: bytes = b"", tries: int = 20) -> list[Object]:
        """Return family and attributes of each object of a kind.

        flags: DUMP for all of them; ACK for one. tries: times to ask while the ruleset changes.
        """
        self._number = number = self._number % (1 << 31) + 1
        self._socket.send(_packed(_NFTABLES << 8 | kind, flags, family, 0, number, body))
        found, interrupted = list[Object](), 0
        for answer, flagged, answered, message in self._messages():
            if answered != number:
                continue  # left over from a change()
            interrupted |= flagged & _INTERRUPTED
            if answer in (_ERROR, _DONE):
                break
            found.append((message[0], dict(attributes(message[4:]))))
        if code := -struct.unpack_from("=i", message)[0] or (interrupted and tries == 1 and errno.EBUSY):
            raise OSError(code, os.strerror(code))
        return self.ask(kind, flags, family, body, tries - 1) if interrupted else found

    def packets(self, table: str, counter: str) -> int:
        """Return the packets that a named counter has counted."""
        asked = text(_OBJECT_TABLE, table) + text(_OBJECT_NAME, counter) + attribute(_OBJECT_TYPE, _COUNTER)
        ((_, found),) = self.ask(_OBJECT, ACK, INET, asked)
        return int.from_bytes(dict(attributes(found[_OBJECT_DATA]))[_PACKETS], "big")

    def elements(self, name: str) -> Iterator[tuple[bytes, int]]:
        """Yield key and seconds left, rounded up, 0: for ever, of each element in a set of our table."""
        for _, found in self.ask(_ELEMENTS, DUMP, INET, text(_TABLE, NAME) + text(_SET, name)):
            for _, one in attributes(found.get(_LIST, b"")):
                element = dict(attributes(one))
                left = element.get(_EXPIRATION) or element.get(_TIMEOUT, b"")
                yield dict(attributes(element[_KEY]))[_VALUE], -(-int.from_bytes(left, "big") // 1000)

    def _messages(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield type, flags, number and rest of each message received."""
        while data := self._socket.recv(1 << 16):
            while data:
                size, kind, flags, number, _ = _HEADER.unpack_from(data)
                yield kind, flags, number, data[_HEADER.size : size]
                data = data[(size + 3) & ~3 :]


def add(name: str, *keys: bytes, seconds: int = 0) -> Change:
    """Return a change that adds elements to a set of ours for some seconds, 0: for ever; present ones stay as is."""
    timeout = attribute(_TIMEOUT, struct.pack("!Q", seconds * 1000)) if seconds else b""
    return _NEW_ELEMENT, CREATE, INET, _listed(name, keys, timeout)


def delete(name: str, *keys: bytes) -> Change:
    """Return a change that deletes elements from a set of ours; refused with ENOENT if one is missing."""
    return _DELETE_ELEMENT, 0, INET, _listed(name, keys, b"")


def taken(names: list[str], key: bytes) -> list[Change]:
    """Return changes that delete an element from sets, whether it is there or not.

    They add it first: a refused transaction takes the kernel 14 ms to undo.
    """
    return [change(name, key) for name in names for change in (add, delete)]


def _listed(name: str, keys: Iterable[bytes], more: bytes) -> bytes:
    elements = [attribute(_ELEMENT | NESTED, attribute(_KEY | NESTED, attribute(_VALUE, key)) + more) for key in keys]
    return text(_TABLE, NAME) + text(_SET, name) + attribute(_LIST | NESTED, b"".join(elements))


def _packed(kind: int, flags: int, family: int, subsystem: int, number: int, body: bytes) -> bytes:
    """Return a message: struct nlmsghdr, struct nfgenmsg, attributes."""
    head = _HEADER.pack(20 + len(body), kind, _REQUEST | flags, number, 0)
    return head + struct.pack("!BBH", family, 0, subsystem) + body


def attribute(kind: int, data: bytes) -> bytes:
    """Return struct nlattr and its data."""
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def text(kind: int, name: str) -> bytes:
    """Return a name as an attribute."""
    return attribute(kind, name.encode() + b"\0")


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind, without the flag for nesting, and data of each attribute in a row."""
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        yield kind & ~NESTED, data[4:size]
        data = data[max(4, (size + 3) & ~3) :]
