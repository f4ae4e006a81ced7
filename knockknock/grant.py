"""All that crosses the privilege line: records of 24 bytes, expected values, answers, notices.

    order 1 | family 1 | protocol 1 | zero 1 | port 2 | seconds 2 | address 16      (network order)

IPv4 addresses stand in the first 4 bytes of the last field, the other 12 are zero. The answer to a STATUS is a number,
4 bytes, and so many records at most: what is open, with the seconds that are left. There 0 seconds mean for ever, and
any protocol and port may stand, because somebody else may have put elements into our sets. The answer to a LOGGED is
two numbers, 8 bytes each.

    set 1 | zero 1 | number that come 2 | values

A message that begins with a number of EXPECTED changes a set that says of which SYNs the kernel is to tell: values that
come, then values that go.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

from .errors import GrantError

RECORD = struct.Struct("!BBBxHH16s")

DONE, FAILED = b"\x00", b"\x01"
"""First byte of the helper's answer to a record: the kernel has it; or refused it, with the reason behind as text."""
NOTICE, SURVEYED, PLACED = b"\x02", b"\x03", b"\x04"
"""First bytes of unsolicited messages: text to be logged; chains that may refuse what a door lets in, one a line, each
behind "any" or PROTOCOL/PORT and a space; the same, and our table is a new one."""

EXPECTED = {8: ("every_syn", 2), 9: ("compact", 12), 10: ("stealth", 12), 11: ("classic", 16)}
"""Sets, and the bytes of their values: TCP knock ports of which every SYN is logged; what a knock of a format can bear,
identification, sequence number and what else its format seals, each padded to registers of 4 bytes, as nft makes it."""
VALUES = struct.Struct("!BxH")

MOST_SECONDS = 65535
LONGEST_REASON = 1000
"""Bytes of a reason; what is longer is cut off."""
MOST_DOORS = 1000
"""Records in the answer to a STATUS at most."""


class Order(IntEnum):
    """Everything that may be asked of root."""

    OPEN_ONCE = 1
    """Let one new connection in, within the seconds."""
    OPEN = 2
    """Let any number of new connections in, for the seconds."""
    CLOSE = 3
    RELOAD = 4
    """Read the policy anew, from root's own files; the rest of the record is zero."""
    STATUS = 5
    """Say which doors are open, all or those of one address; nothing else is set."""
    BLOCK = 6
    """Shut the address out, for as long as the policy says; nothing else is set."""
    LOGGED = 7
    """Say how many packets our rule has logged and passed over; the rest of the record is zero."""


class Grant(NamedTuple):
    """One order: a door, for whom, how long."""

    order: Order
    address: bytes
    """Source address, network order, 4 or 16 bytes; empty with RELOAD, LOGGED, and with a STATUS of all."""
    protocol: int
    """6 (TCP) or 17 (UDP); 0 with RELOAD, STATUS, BLOCK and LOGGED."""
    port: int
    seconds: int
    """Seconds for which new connections may begin; 0 if it is no OPEN, and in the answer to a STATUS for ever."""


RELOAD = Grant(Order.RELOAD, b"", 0, 0, 0)


def pack(grant: Grant) -> bytes:
    """The record of a grant, 24 bytes."""
    family = {0: 0, 4: 4, 16: 6}[len(grant.address)]
    return RECORD.pack(grant.order, family, grant.protocol, grant.port, grant.seconds, grant.address)


def unpack(record: bytes, *, listed: bool = False) -> Grant:
    """The grant of a record. Raises GrantError for anything that pack() cannot have made from a sane grant.

    listed: it is in the answer to a STATUS, where any protocol, port and time may stand.
    """
    if len(record) != RECORD.size:
        raise GrantError(f"a record has {RECORD.size} bytes, not {len(record)}")
    order, family, protocol, port, seconds, field = RECORD.unpack(record)
    if order not in Order.__members__.values() or family not in (0, 4, 6):
        raise GrantError(f"there is no order {order} for address family {family}")
    grant = Grant(Order(order), field[: {0: 0, 4: 4, 6: 16}[family]], protocol, port, seconds)
    if pack(grant) != record:
        raise GrantError("a record has bits set where there must be none")
    if order in (Order.OPEN_ONCE, Order.OPEN, Order.CLOSE):
        sane = grant.address and protocol in (6, 17) and port and (seconds == 0) == (order == Order.CLOSE)
    else:
        fitting = (Order.BLOCK, Order.STATUS) if grant.address else (Order.RELOAD, Order.STATUS, Order.LOGGED)
        sane = order in fitting and (protocol, port, seconds) == (0, 0, 0)
    if not sane and not listed:
        raise GrantError(f"the order {grant.order.name} makes no sense with what else the record says")
    return grant


def pack_doors(doors: list[Grant]) -> bytes:
    """Pack the number of open doors, and the first MOST_DOORS of them."""
    listed = [door._replace(seconds=min(door.seconds, MOST_SECONDS)) for door in doors[:MOST_DOORS]]
    return len(doors).to_bytes(4, "big") + b"".join(map(pack, listed))
