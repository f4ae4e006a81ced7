"""The changes that the helper sends to the kernel for a door."""

from knockknock.root import helper
from knockknock.root.record import Grant, Order
from knockknock.root.record_limits import Limits

LIMITS = Limits(b"", 600, 64, 0, 0, ((6, 1, 65535, 60),))


def test_two_doors_of_one_source_are_two_elements_whatever_others_open_in_between() -> None:
    def put(host: int) -> bytes:
        """The last change adds the door to one of the sets, whose name is in it."""
        return helper.changes(Grant(Order.OPEN_ONCE, bytes([192, 0, 2, host]), 6, 22, 15), LIMITS)[5][3]

    first = put(7)
    for host in range(20, 35):
        put(host)
    assert b"once4_" in first
    assert put(7) != first
