"""Who may shut which door."""

from knockknock.doors import Doors
from knockknock.grant import Grant, Order

from .helpers import SOURCE, SOURCE6

DOOR = Grant(Order.OPEN, SOURCE, 6, 22, 15)


def test_a_door_of_ones_own_and_one_that_nobody_knows() -> None:
    doors = Doors()
    assert doors.shut("alice", DOOR, 0.0) == ""
    doors.opened("alice", DOOR, 0.0)
    assert doors.shut("alice", DOOR, 1.0) == ""
    assert doors.shut("bob", DOOR, 1.0) == "", "it is shut already"


def test_a_door_of_another() -> None:
    doors = Doors()
    doors.opened("alice", DOOR, 0.0)
    assert doors.shut("bob", DOOR, 14.9) == "alice"
    for other in (DOOR._replace(address=SOURCE6), DOOR._replace(protocol=17), DOOR._replace(port=23)):
        assert doors.shut("bob", other, 14.9) == ""
    assert doors.shut("bob", DOOR, 15.0) == "", "its time is over"


def test_a_door_of_two() -> None:
    """Behind one NAT: it stays until neither of them needs it."""
    doors = Doors()
    doors.opened("alice", DOOR, 0.0)
    doors.opened("bob", DOOR, 1.0)
    assert doors.shut("bob", DOOR, 2.0) == "alice"
    assert doors.shut("alice", DOOR, 3.0) == ""


def test_opened_again_it_counts_from_then() -> None:
    doors = Doors()
    doors.opened("alice", DOOR, 0.0)
    doors.opened("alice", DOOR, 10.0)
    assert doors.shut("bob", DOOR, 24.0) == "alice"


def test_keys_that_are_rotated_are_still_the_client() -> None:
    doors = Doors()
    doors.opened("alice.old", DOOR, 0.0)
    assert doors.shut("alice", DOOR, 1.0) == ""


def test_nothing_is_kept_of_what_is_over() -> None:
    doors = Doors()
    for number in range(1000):
        doors.opened(f"p{number}", DOOR._replace(port=1 + number % 50, seconds=1 + number % 7), number / 100)
    doors.shut("alice", DOOR, 100.0)
    assert len(doors) == len(doors._ends) == 0
