"""The changes that the helper sends to the kernel for a door."""

from functools import partial

import pytest

from knockknock.root import helper
from knockknock.root.netlink import Change
from knockknock.root.record import Grant, Order
from knockknock.root.record_limits import Limits

LIMITS = Limits(b"", 600, 0, 0, 0, ((6, 1, 65535, 60),))
NEW, DELETE = 12, 14
"""NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM."""


def put(host: int) -> list[Change]:
    """Return the changes for a door of 15 seconds; the last one adds it to one of the sets, whose name is in it."""
    return helper.changes(Grant(Order.OPEN_ONCE, bytes([192, 0, 2, host]), 6, 22, 15), LIMITS)


def test_two_doors_of_one_source_are_two_elements_whatever_others_open_in_between() -> None:
    first = put(7)[-1][3]
    for host in range(20, 35):
        put(host)
    assert b"once4_" in first
    assert put(7)[-1][3] != first


def test_only_a_door_that_may_still_be_there_is_taken_out_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits allow 60 seconds: so long an element may be there, and a little longer."""
    monkeypatch.setattr(helper, "_LAST", [(0, 0.0)] * len(helper._LAST))
    kinds = []
    for now in (1000.0, 1069.5, 1140.0):
        monkeypatch.setattr("knockknock.root.helper.time.monotonic", partial(float, now))
        kinds.append([kind for kind, *_ in put(7)])
    assert kinds == [[NEW, NEW], [NEW, DELETE, NEW, DELETE, NEW, NEW], [NEW, NEW]]
