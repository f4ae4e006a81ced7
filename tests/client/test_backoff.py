"""When the door is tried: early, often at first, and with a new knock once or twice."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockknock.client.backoff import attempts

timeouts = st.floats(0.001, 100)


@given(timeouts)
def test_ascending_and_in_time(timeout: float) -> None:
    times = [at for at, _ in attempts(timeout)]
    assert all(0 < at < timeout for at in times)
    assert all(early < late for early, late in itertools.pairwise(times))


@given(timeouts)
def test_a_knock_is_sent_again_twice_at_most_and_never_at_once(timeout: float) -> None:
    again = [at for at, knock in attempts(timeout) if knock]
    assert len(again) <= 2
    assert all(at >= 1 for at in again)


def test_the_default_timeout() -> None:
    """Of five seconds: a try within milliseconds, after each knock; a new knock leaves time to be answered."""
    plan = list(attempts(5))
    assert plan[0][0] <= 0.005
    assert len(plan) < 100, "a server's log would take this for a scan"
    again = [index for index, (_, knock) in enumerate(plan) if knock]
    assert len(again) == 2
    for index in again:
        assert plan[index + 1][0] - plan[index][0] <= 0.005
        assert plan[index][0] <= 4


@pytest.mark.parametrize("opens", [0.001, 0.01, 0.05, 0.3, 0.9, 1.7, 2.9, 4.1])
def test_an_open_door_is_found_soon(opens: float) -> None:
    """A door that opens at any time is tried again before half as long has passed, or a third of a second."""
    found = next(at for at, _ in attempts(5) if at >= opens)
    assert found - opens <= max(0.002, min(opens / 2 + 0.002, 0.34))
