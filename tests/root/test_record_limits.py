"""The number of doors in a minute."""

from collections import deque

import pytest

from knockknock.errors import FirewallError
from knockknock.root.record_limits import admit


def test_so_many_within_any_minute() -> None:
    opened = deque[float]()
    for now in (0.0, 1.0, 30.0):
        admit(opened, 3, now)
    with pytest.raises(FirewallError, match=r"3 doors were opened within a minute.* raise doors_per_minute"):
        admit(opened, 3, 59.9)
    admit(opened, 3, 60.0)
    with pytest.raises(FirewallError):
        admit(opened, 3, 60.5)
    admit(opened, 3, 61.0)


def test_one_that_is_refused_does_not_count() -> None:
    opened = deque[float]()
    admit(opened, 1, 0.0)
    for second in range(1, 60):
        with pytest.raises(FirewallError):
            admit(opened, 1, float(second))
    admit(opened, 1, 60.0)


def test_new_limit_holds_for_what_was_opened_before() -> None:
    opened = deque(map(float, range(5)))
    with pytest.raises(FirewallError):
        admit(opened, 2, 10.0)
    admit(opened, 6, 10.0)
