"""Elements of nftables sets, put in and taken out by messages of our own to the kernel.

libnftables asks for all tables, chains and sets before each command, which takes a millisecond that somebody waits at
the door. The layout is that of include/uapi/linux/netfilter/nf_tables.h and net/netfilter/nfnetlink.c: a batch, which
is carried out as a whole or not at all.
"""

import os
import socket
import struct
from collections.abc import Sequence

from ..grant import Grant
from . import NAME

_NETLINK_NETFILTER = 12  # include/uapi/linux/netlink.h
_REQUEST, _ACK, _EXCL, _CREATE, _ERROR = 1, 4, 0x200, 0x400, 2
_NESTED = 0x8000
_BEGIN, _END, _NFTABLES, _NEW, _DELETE = 16, 17, 10, 12, 14  # NFNL_MSG_BATCH_*, NFNL_SUBSYS_NFTABLES, NFT_MSG_*SETELEM
_INET = 1  # NFPROTO_INET
_TABLE, _SET, _ELEMENTS, _ELEMENT = 1, 2, 3, 1  # NFTA_SET_ELEM_LIST_*, NFTA_LIST_ELEM
_KEY, _TIMEOUT, _VALUE = 1, 4, 1  # NFTA_SET_ELEM_*, NFTA_DATA_VALUE


def create(name: str, grant: Grant) -> bytes:
    """The message that puts a door into a set of ours for its seconds; refused with EEXIST where it is."""
    timeout = _attribute(_TIMEOUT, struct.pack("!Q", grant.seconds * 1000))
    return _message(_NEW, _CREATE | _EXCL, name, _key(grant) + timeout)


def delete(name: str, grant: Grant) -> bytes:
    """The message that takes a door out of a set of ours; refused with ENOENT where it is not."""
    return _message(_DELETE, 0, name, _key(grant))


def change(messages: Sequence[bytes]) -> None:
    """Have some of these carried out together. Raises OSError with nothing changed."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as kernel:
        kernel.connect((0, 0))
        kernel.send(_bound(_BEGIN) + b"".join(messages) + _bound(_END))
        for _ in messages:  # each is answered
            answer = kernel.recv(4096)
            kind, code = struct.unpack_from("=H10xi", answer, 4)
            if kind != _ERROR:
                raise OSError(f"an answer of type {kind}")
            if code:
                raise OSError(-code, os.strerror(-code))


def _key(grant: Grant) -> bytes:
    """Address, protocol and port, each padded to registers of 4 bytes, as nft makes it of a concatenation."""
    key = grant.address + struct.pack("!B3xH2x", grant.protocol, grant.port)
    return _attribute(_KEY | _NESTED, _attribute(_VALUE, key))


def _message(kind: int, flags: int, name: str, element: bytes) -> bytes:
    listed = _attribute(_ELEMENTS | _NESTED, _attribute(_ELEMENT | _NESTED, element))
    body = _attribute(_TABLE, NAME.encode() + b"\0") + _attribute(_SET, name.encode() + b"\0") + listed
    return _packed(_NFTABLES << 8 | kind, _REQUEST | _ACK | flags, _INET, 0, body)


def _bound(kind: int) -> bytes:
    """The beginning or the end of a batch."""
    return _packed(kind, _REQUEST, socket.AF_UNSPEC, _NFTABLES, b"")


def _packed(kind: int, flags: int, family: int, number: int, body: bytes) -> bytes:
    """struct nlmsghdr, struct nfgenmsg, attributes."""
    return struct.pack("=IHHIIBBH", 20 + len(body), kind, flags, 0, 0, family, 0, socket.htons(number)) + body


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)
