"""How many doors in a minute."""

import pytest

from knockknock.errors import FirewallError
from knockknock.root.policy import Meter


def test_so_many_within_any_minute() -> None:
    meter = Meter()
    for now in (0.0, 1.0, 30.0):
        meter.admit(3, now)
    with pytest.raises(FirewallError, match=r"3 doors were opened within a minute.* raise doors_per_minute"):
        meter.admit(3, 59.9)
    meter.admit(3, 60.0)
    with pytest.raises(FirewallError):
        meter.admit(3, 60.5)
    meter.admit(3, 61.0)


def test_one_that_is_refused_does_not_count() -> None:
    meter = Meter()
    meter.admit(1, 0.0)
    for second in range(1, 60):
        with pytest.raises(FirewallError):
            meter.admit(1, float(second))
    meter.admit(1, 60.0)


def test_new_limit_holds_for_what_was_opened_before() -> None:
    meter = Meter()
    for now in range(5):
        meter.admit(5, float(now))
    with pytest.raises(FirewallError):
        meter.admit(2, 10.0)
    meter.admit(6, 10.0)
