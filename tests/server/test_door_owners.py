"""Tests of the owners of doors: the doors that each may shut, and its share of doors in a minute."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockknock.core.profile import SHARE
from knockknock.errors import GrantError
from knockknock.root.record import Grant, Order
from knockknock.server.door_owners import DoorOwners

from ..helpers import SOURCE, SOURCE6, profile

DOOR = Grant(Order.OPEN, SOURCE, 6, 22, 15)


def test_a_door_of_ones_own_and_one_that_nobody_knows() -> None:
    doors = DoorOwners()
    assert doors.shut("alice", DOOR, 0.0) == ""
    doors.opened("alice", DOOR, 0.0)
    assert doors.shut("alice", DOOR, 1.0) == ""
    assert doors.shut("bob", DOOR, 1.0) == "", "it is shut already"


def test_a_door_of_another() -> None:
    doors = DoorOwners()
    doors.opened("alice", DOOR, 0.0)
    assert doors.shut("bob", DOOR, 14.9) == "alice"
    for other in (DOOR._replace(address=SOURCE6), DOOR._replace(protocol=17), DOOR._replace(port=23)):
        assert doors.shut("bob", other, 14.9) == ""
    assert doors.shut("bob", DOOR, 15.0) == "", "its time is over"


def test_a_door_of_two() -> None:
    """Behind one NAT: it stays until neither of them needs it."""
    doors = DoorOwners()
    doors.opened("alice", DOOR, 0.0)
    doors.opened("bob", DOOR, 1.0)
    assert doors.shut("bob", DOOR, 2.0) == "alice"
    assert doors.shut("alice", DOOR, 3.0) == ""


def test_opened_again_it_counts_from_then() -> None:
    doors = DoorOwners()
    doors.opened("alice", DOOR, 0.0)
    doors.opened("alice", DOOR, 10.0)
    assert doors.shut("bob", DOOR, 24.0) == "alice"


def test_keys_that_are_rotated_are_still_the_client() -> None:
    doors = DoorOwners()
    doors.opened("alice.old", DOOR, 0.0)
    assert doors.shut("alice", DOOR, 1.0) == ""


def test_nothing_is_kept_of_what_is_over() -> None:
    doors = DoorOwners()
    for number in range(1000):
        doors.opened(f"p{number}", DOOR._replace(port=1 + number % 50, seconds=1 + number % 7), number / 100)
    doors.shut("alice", DOOR, 100.0)
    assert len(doors) == len(doors._ends) == 0


def test_doors_of_profiles_that_are_gone() -> None:
    """Not what another has open, too, nor what was opened with keys that were rotated since."""
    doors, other = DoorOwners(), DOOR._replace(port=23)
    for name, door in (("alice", DOOR), ("alice", other), ("bob", other), ("carol.old", DOOR._replace(port=24))):
        doors.opened(name, door, 0.0)
    gone = {"alice", "alice.old", "carol.old"}.__contains__
    assert list(doors.left(gone, 1.0)) == [("alice", DOOR._replace(order=Order.CLOSE, seconds=0))]
    assert list(doors.left(gone, 1.0)) == []
    assert doors.shut("bob", other, 1.0) == ""


def test_a_share_for_each_profile() -> None:
    """Sixty a minute unless it says so; one that is refused does not count, nor does what shuts a door."""
    doors, alice, bob = DoorOwners(), profile("alice"), profile("bob", doors_per_minute=2)
    for number in range(SHARE):
        doors.ask(alice, DOOR, number / 10)
    doors.ask(bob, DOOR, 6.0)
    doors.ask(bob, DOOR, 6.0)
    for one, most in ((alice, SHARE), (bob, 2), (bob, 2)):
        with pytest.raises(
            GrantError, match=f"it opened {most} doors within a minute, its share: raise doors_per_minute"
        ):
            doors.ask(one, DOOR, 30.0)
    doors.ask(bob, DOOR._replace(order=Order.CLOSE, seconds=0), 30.0)
    with pytest.raises(GrantError, match="its share"):
        doors.ask(alice._replace(name="alice.old"), DOOR, 59.9)
    doors.ask(alice, DOOR, 60.0)
    doors.ask(bob, DOOR, 66.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 40)), max_size=60), st.integers(1, 4))
def test_no_minute_has_more(asked: list[tuple[str, float]], most: int) -> None:
    doors, now = DoorOwners(), 0.0
    opened: dict[str, list[float]] = {name: [] for name in "abc"}
    for name, seconds in asked:
        now += seconds
        expected = sum(time > now - 60 for time in opened[name]) < most
        try:
            doors.ask(profile(name, doors_per_minute=most), DOOR, now)
        except GrantError:
            assert not expected
        else:
            assert expected
            opened[name].append(now)
    doors.ask(profile("last"), DOOR, now + 61)
    assert list(doors._asked) == ["last"], "nothing is kept of who has not come for a minute"
