"""Announcements as the watch reads them, and its pace of looking at the rules; the real ones are in tests/netns."""

import socket
import struct

import pytest

from knockknock.root import watch
from knockknock.root.watch import BUSY, LONGEST, SETTLE, Pace

NEW_TABLE, DELETE_TABLE, DELETE_RULE, NEW_ELEMENT, DELETE_ELEMENT, NEW_GENERATION = 0, 2, 8, 12, 14, 15
INET, IP = 1, 2


def message(kind: int, table: str = "other", family: int = INET, subsystem: int = 10) -> bytes:
    """One netlink message about something in a table."""
    name = table.encode() + b"\0"
    body = struct.pack("=BBHHH", family, 0, 0, 4 + len(name), 1) + name + bytes(-len(name) % 4)
    return struct.pack("=IHHII", 16 + len(body), subsystem << 8 | kind, 0, 0, 0) + body


@pytest.mark.parametrize(
    ("sent", "meaning"),
    [
        (message(NEW_GENERATION), ""),
        (message(NEW_ELEMENT), ""),
        (message(DELETE_ELEMENT, "knockknock"), ""),
        (message(DELETE_RULE), "others"),
        (message(NEW_TABLE), "others"),
        (message(DELETE_TABLE), "others"),
        (message(DELETE_RULE, "knockknock"), "ours"),
        (message(DELETE_RULE, "knockknock2"), "others"),
        (message(DELETE_RULE, "knockknock", IP), "others"),
        (message(DELETE_TABLE, "knockknock", IP), "others"),
        (message(DELETE_TABLE, "knockknock"), "gone"),
        (message(NEW_TABLE, "knockknock"), "there"),
        (message(DELETE_TABLE, "knockknock", subsystem=1), ""),
    ],
)
def test_meaning(sent: bytes, meaning: str) -> None:
    other = message(NEW_ELEMENT, "x")
    assert [watch.meaning(one) for one in watch.messages(other + sent + other)] == ["", meaning, ""]


@pytest.mark.parametrize("data", [b"", b"x", bytes(15), bytes(64), b"\xff" * 64, message(DELETE_RULE)[:17]])
def test_nonsense_ends(data: bytes) -> None:
    found = list(watch.messages(data))
    assert len(found) <= len(data) // 16
    assert {watch.meaning(one) for one in found} <= {"", "others"}


def look(pace: Pace, began: float, took: float = 0.01, healed: bool = False) -> float:
    """Look at the rules; when that has ended."""
    pace.looked(began, began + took, healed)
    return began + took


def test_a_table_of_ours_that_is_gone_is_looked_at_at_once_all_else_a_moment_later() -> None:
    pace = Pace()
    pace.changed(100.0, gone=False)
    assert pace.due == 100.0 + SETTLE
    pace.changed(100.1, gone=False)
    assert pace.due == 100.0 + SETTLE, "one look for a burst of changes"
    pace.changed(100.1, gone=True)
    assert pace.due == 100.1


def test_looks_that_find_nothing_are_made_more_and_more_seldom_and_healing_still_at_once() -> None:
    pace, now, pauses = Pace(), 100.0, []
    for _ in range(12):
        pace.changed(now, gone=False)
        pauses.append(pace.due - now)
        now = look(pace, pace.due)
    assert pauses == sorted(pauses)
    assert pauses[0] == SETTLE
    assert pauses[-1] == pytest.approx(BUSY)
    pace.changed(now, gone=True)
    assert pace.due == now
    now += 100
    look(pace, now)
    pace.changed(now + 1, gone=False)
    assert pace.due == now + 1 + SETTLE


def test_a_look_that_takes_long_is_followed_by_a_pause_that_is_longer() -> None:
    pace = Pace()
    now = look(pace, 100.0, took=3.0)
    pace.changed(now, gone=False)
    assert pace.due == now + 9.0


def test_two_that_undo_each_other() -> None:
    pace, now, pauses = Pace(), 100.0, []
    for _ in range(12):
        pace.changed(now, gone=True)
        pauses.append(pace.due - now)
        now = look(pace, pace.due, healed=True)
    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(LONGEST)
    now += 1000
    look(pace, now, healed=True)
    pace.changed(now + 1, gone=True)
    assert pace.due == now + 1


def test_a_daemon_that_does_not_read_holds_nothing_up() -> None:
    daemon, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        for _ in range(2000):
            watch.say(ours, b"\2", "placed again" * 100)
        daemon.close()
        watch.say(ours, b"\2", "to nobody")
