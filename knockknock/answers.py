"""Unpacks the root helper's longer answers: open doors, and counts of packets."""

from .errors import GrantError
from .grant import MOST_DOORS, RECORD, Grant, Order, unpack

LONGEST = 1 + 4 + MOST_DOORS * RECORD.size
"""Bytes of the longest answer."""


def unpack_counts(answer: bytes) -> tuple[int, int]:
    """Return the numbers of packets logged and passed over, from the answer to LOGGED. Raises GrantError."""
    if len(answer) != 16:
        raise GrantError(f"{len(answer)} bytes are not two numbers")
    return int.from_bytes(answer[:8], "big"), int.from_bytes(answer[8:], "big")


def unpack_doors(answer: bytes) -> tuple[int, list[Grant]]:
    """Return the number of open doors and the doors listed, from a pack_doors() answer. Raises GrantError."""
    number, records = int.from_bytes(answer[:4], "big"), answer[4:]
    doors = [unpack(records[at : at + RECORD.size], listed=True) for at in range(0, len(records), RECORD.size)]
    if len(answer) < 4 or len(doors) != min(number, MOST_DOORS):
        raise GrantError(f"{len(answer)} bytes do not list {number} doors")
    if not all(door.order in (Order.OPEN_ONCE, Order.OPEN) and door.address for door in doors):
        raise GrantError("what is listed is not a door that is open")
    return number, doors
