"""The root helper's answer to a STATUS."""

from knockknock.errors import GrantError
from knockknock.root.record import MOST_DOORS, Grant, Order, pack_doors
from knockknock.server.event_text import door as told
from knockknock.server.privsep import unpack_doors

_ONE = Grant(Order.OPEN_ONCE, bytes([192, 0, 2, 7]), 6, 22, 15)
_OTHER = Grant(Order.OPEN, bytes(range(16)), 17, 51820, 3600)
CORPUS = [pack_doors([]), pack_doors([_ONE]), pack_doors([_ONE, _OTHER]), pack_doors([_OTHER] * 20), b""]


def target(data: bytes) -> None:
    """An answer raises GrantError, or lists doors that are open and is exactly what they are packed to."""
    try:
        number, doors = unpack_doors(data)
    except GrantError:
        return
    assert len(doors) == min(number, MOST_DOORS)
    assert all(door.order in (Order.OPEN_ONCE, Order.OPEN) for door in doors)
    assert all(told(door)["source"] for door in doors)
    assert number.to_bytes(4, "big") + pack_doors(doors)[4:] == data
