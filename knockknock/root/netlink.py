"""Netlink messages to the kernel's nf_tables, for what libnftables does too slowly.

libnftables asks for all tables, chains and sets before each command, and somebody waits at the door; before it lists
anything it asks for all elements of all sets of others, too. The layout is that of
include/uapi/linux/netfilter/nf_tables.h and net/netfilter/nfnetlink.c: changes are a batch, which is carried out as a
whole or not at all.
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

    It stays open: to close one waits until the kernel has cleared away what was deleted, which takes 20 milliseconds.
    """

    def __init__(self, fileno: int | None = None) -> None:
        """fileno: of such a socket; None: a new one."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER, fileno)
        self._socket.connect((0, 0))
        self._socket.settimeout(5.0)  # seconds to wait for an answer
        self._number = 0

    def change(self, *changes: Change) -> None:
        """Have some changes carried out together. Raises OSError with nothing changed."""
        begin, failed = self._number % (1 << 31) + 1, 0
        self._number = last = begin + len(changes)
        batch = [_packed(_BEGIN, 0, socket.AF_UNSPEC, _NFTABLES, begin, b"")]
        for number, (kind, flags, family, body) in enumerate(changes, begin + 1):
            batch.append(_packed(_NFTABLES << 8 | kind, ACK | flags, family, 0, number, body))
        batch.append(_packed(_END, 0, socket.AF_UNSPEC, _NFTABLES, begin, b""))
        self._socket.send(b"".join(batch))
        for kind, _, number, message in self._messages():
            if kind == _ERROR and number >= begin:  # else left over from a change whose answers were not waited for
                failed = failed or -struct.unpack_from("=i", message)[0]
                if number in (begin, last):  # what is wrong with the whole batch is said of its beginning alone
                    break
        if failed:
            raise OSError(failed, os.strerror(failed))

    def ask(self, kind: int, flags: int, family: int = 0, body: bytes = b"", tries: int = 20) -> list[Object]:
        """List the kernel's objects of a kind: the family and the attributes of each.

        flags: DUMP for all of them; ACK for one. tries: times to ask because something has changed meanwhile.
        """
        self._number = number = self._number % (1 << 31) + 1
        self._socket.send(_packed(_NFTABLES << 8 | kind, flags, family, 0, number, body))
        found, interrupted = list[Object](), 0
        for answer, flagged, answered, message in self._messages():
            if answered != number:
                continue  # left over, as above
            interrupted |= flagged & _INTERRUPTED
            if answer in (_ERROR, _DONE):
                break
            found.append((message[0], dict(attributes(message[4:]))))
        if code := -struct.unpack_from("=i", message)[0] or (interrupted and tries == 1 and errno.EBUSY):
            raise OSError(code, os.strerror(code))
        return self.ask(kind, flags, family, body, tries - 1) if interrupted else found

    def packets(self, table: str, counter: str) -> int:
        """The packets that a named counter has counted."""
        asked = text(_OBJECT_TABLE, table) + text(_OBJECT_NAME, counter) + attribute(_OBJECT_TYPE, _COUNTER)
        ((_, found),) = self.ask(_OBJECT, ACK, INET, asked)
        return int.from_bytes(dict(attributes(found[_OBJECT_DATA]))[_PACKETS], "big")

    def elements(self, name: str) -> Iterator[tuple[bytes, int]]:
        """The elements of a set of our table: key, and seconds that are left, rounded up; 0: for ever."""
        for _, found in self.ask(_ELEMENTS, DUMP, INET, text(_TABLE, NAME) + text(_SET, name)):
            for _, one in attributes(found.get(_LIST, b"")):
                element = dict(attributes(one))
                left = element.get(_EXPIRATION) or element.get(_TIMEOUT, b"")
                yield dict(attributes(element[_KEY]))[_VALUE], -(-int.from_bytes(left, "big") // 1000)

    def _messages(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Type, flags, number and rest of each message that comes."""
        while data := self._socket.recv(1 << 16):
            while data:
                size, kind, flags, number, _ = _HEADER.unpack_from(data)
                yield kind, flags, number, data[_HEADER.size : size]
                data = data[(size + 3) & ~3 :]


def add(name: str, *keys: bytes, seconds: int = 0) -> Change:
    """To put elements into a set of ours for some seconds; where one is already nothing changes. 0: for ever."""
    timeout = attribute(_TIMEOUT, struct.pack("!Q", seconds * 1000)) if seconds else b""
    return _NEW_ELEMENT, CREATE, INET, _listed(name, keys, timeout)


def delete(name: str, *keys: bytes) -> Change:
    """To take elements out of a set of ours; refused with ENOENT where one is not."""
    return _DELETE_ELEMENT, 0, INET, _listed(name, keys, b"")


def taken(names: list[str], key: bytes) -> list[Change]:
    """To take an element out of sets, whether it is there or not, in a change that is not refused for it.

    First it is added: the kernel takes 14 ms to undo what is refused in part.
    """
    return [change(name, key) for name in names for change in (add, delete)]


def _listed(name: str, keys: Iterable[bytes], more: bytes) -> bytes:
    elements = [attribute(_ELEMENT | NESTED, attribute(_KEY | NESTED, attribute(_VALUE, key)) + more) for key in keys]
    return text(_TABLE, NAME) + text(_SET, name) + attribute(_LIST | NESTED, b"".join(elements))


def _packed(kind: int, flags: int, family: int, subsystem: int, number: int, body: bytes) -> bytes:
    """struct nlmsghdr, struct nfgenmsg, attributes."""
    head = _HEADER.pack(20 + len(body), kind, _REQUEST | flags, number, 0)
    return head + struct.pack("!BBH", family, 0, subsystem) + body


def attribute(kind: int, data: bytes) -> bytes:
    """struct nlattr and its data."""
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def text(kind: int, name: str) -> bytes:
    """A name as an attribute."""
    return attribute(kind, name.encode() + b"\0")


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Unpack attributes that attribute() packed one behind the other: kind, without the flag for nesting, and data."""
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        yield kind & ~NESTED, data[4:size]
        data = data[max(4, (size + 3) & ~3) :]
