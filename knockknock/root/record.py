"""Message formats between the daemon and the root helper: records, expected values, answers, notices.

    order 1 | family 1 | protocol 1 | zero 1 | port 2 | seconds 2 | address 16      (network order)

IPv4 addresses take the first 4 bytes of the last field, the other 12 are zero. The answer to STATUS is the number of
open doors, 4 bytes, and a record of each, up to MOST_DOORS, with the seconds that are left, 0: for ever. These records
may hold any protocol and port, because others may add elements to our sets. The answer to LOGGED is two numbers of
8 bytes.

    set 1 | zero 1 | number of values to add 2 | values

A message that begins with a number of EXPECTED changes a set that selects the SYNs to log: values to add, then values
to delete.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

from ..errors import GrantError

RECORD = struct.Struct("!BBBxHH16s")

DONE, FAILED = b"\x00", b"\x01"
"""First byte of an answer: the order is carried out; or it is refused, and the reason follows as text."""
NOTICE, SURVEYED, PLACED = b"\x02", b"\x03", b"\x04"
"""First byte of an unsolicited message: text to log; the chains that may refuse what a door lets in, one a line, each
after "any" or PROTOCOL/PORT and a space; the same, and our table is new."""

EXPECTED = {8: ("every_syn", 2), 9: ("compact", 12), 10: ("stealth", 12), 11: ("classic", 16)}
"""Name and value size in bytes of each set, by number: TCP knock ports whose every SYN is logged; expected values of a
format, with identification, sequence number and its other sealed fields, each padded to registers of 4 bytes."""
VALUES = struct.Struct("!BxH")

MOST_SECONDS = 65535
LONGEST_REASON = 1000
"""The most bytes of a reason; the rest is cut off."""
MOST_DOORS = 1000
"""The most records in the answer to STATUS."""


class Order(IntEnum):
    """The orders of a record: all that the helper can be asked, apart from changes of EXPECTED."""

    OPEN_ONCE = 1
    """Let one new connection in, within the seconds."""
    OPEN = 2
    """Let any number of new connections in, for the seconds."""
    CLOSE = 3
    RELOAD = 4
    """Read the policy anew, from root's own files; the rest of the record is zero."""
    STATUS = 5
    """List the open doors, all or those of one address; the rest of the record is zero."""
    BLOCK = 6
    """Block the address for the time that the policy sets; the rest of the record is zero."""
    LOGGED = 7
    """Return the numbers of packets that our rules logged and passed over; the rest of the record is zero."""


class Grant(NamedTuple):
    """One order, with the source address, port and time of its door."""

    order: Order
    address: bytes
    """Source address, network order, 4 or 16 bytes; empty with RELOAD, LOGGED, and with a STATUS of all."""
    protocol: int
    """6 (TCP) or 17 (UDP); 0 with RELOAD, STATUS, BLOCK and LOGGED."""
    port: int
    seconds: int
    """Seconds in which new connections may begin; 0 if the order opens no door; 0 in the answer to STATUS: for ever."""


RELOAD = Grant(Order.RELOAD, b"", 0, 0, 0)


def pack(grant: Grant) -> bytes:
    """Return the record of a grant, 24 bytes."""
    family = {0: 0, 4: 4, 16: 6}[len(grant.address)]
    return RECORD.pack(grant.order, family, grant.protocol, grant.port, grant.seconds, grant.address)


def unpack(record: bytes, *, listed: bool = False) -> Grant:
    """Return the grant of a record. Raises GrantError unless pack() can have made the record from a valid grant.

    listed: the record is from the answer to STATUS, which may hold any protocol, port and time.
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
        raise GrantError(f"the order {grant.order.name} does not fit the other fields of the record")
    return grant


def pack_doors(doors: list[Grant]) -> bytes:
    """Return the answer to STATUS: the number of doors, and records of the first MOST_DOORS."""
    listed = [door._replace(seconds=min(door.seconds, MOST_SECONDS)) for door in doors[:MOST_DOORS]]
    return len(doors).to_bytes(4, "big") + b"".join(map(pack, listed))
