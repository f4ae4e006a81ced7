"""Two slots for a counter: what a crash leaves of them, and where the next one is written."""

import errno
import os
import stat
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockknock.core.counter_text import MAX_COUNTER, SLOT, damaged, parse_counter, places, slot
from knockknock.errors import CounterError
from knockknock.profiles import counters

KNOWN = {
    0: b"00000000000000000000 c4854223\n",
    41: b"00000000000000000041 d7eeb7b1\n",
    2**64 - 1: b"18446744073709551615 bffe511a\n",
}
"""Made by `printf %020d 41 | gzip -c | tail -c8 | od -An -tx4 -N4`."""

any_counter = st.integers(0, MAX_COUNTER + 1)


@pytest.mark.parametrize(("counter", "known"), KNOWN.items())
def test_a_slot(counter: int, known: bytes) -> None:
    assert slot(counter) == known
    assert len(known) == SLOT
    assert parse_counter((2 * known).decode(), "") == counter


@given(any_counter, any_counter, any_counter)
def test_the_higher_counts_and_the_lower_is_written_first(one: int, other: int, next_counter: int) -> None:
    data = slot(one) + slot(other)
    assert parse_counter(data.decode(), "") == max(one, other)
    assert not damaged(data.decode())
    order = [0, SLOT] if one <= other else [SLOT, 0]
    assert places(data, next_counter) == order[: 1 if next_counter == max(one, other) + 1 else 2]


class Crash(Exception):
    """The power fails."""


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 12), st.integers(0, SLOT), st.data())
def test_whatever_a_crash_leaves_says_enough_and_no_more(
    steps: list[int], whole: int, part: int, data: st.DataObject
) -> None:
    """Against a file in memory: what was stored is never good again, and at most the next one is lost with a slot.

    The power fails in the middle of some write, of which a part has reached the disk; then one slot is damaged.
    """
    disk, stored, counter = bytearray(2 * slot(0)), 0, 0
    try:
        for step in steps:
            counter += step
            for at in places(bytes(disk), counter):
                if whole == 0:
                    disk[at : at + part] = slot(counter)[:part]
                    raise Crash
                disk[at : at + SLOT] = slot(counter)
                whole -= 1
            stored = counter
    except Crash:
        pass
    text = disk.decode()
    assert stored <= parse_counter(text, "") <= counter + 1
    if not damaged(text) and stored == counter:
        bit = data.draw(st.integers(0, 8 * len(disk) - 1))
        disk[bit // 8] ^= 1 << bit % 8
        assert damaged(disk.decode("latin-1"))
        assert stored <= parse_counter(disk.decode("latin-1"), "") <= stored + 1


@pytest.mark.parametrize("garbage", [bytes(SLOT), b"\xff" * SLOT, b"\xc0" + b"0" * (SLOT - 1)], ids=repr)
def test_garbage_in_one_slot_is_passed_over(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "alice"
    for data in (garbage + slot(41), slot(41) + garbage):
        path.write_bytes(data)
        assert counters.read_counter(str(path)) == 42
        counters.remember(str(path), 42)
        assert sorted((path.read_bytes()[:SLOT], path.read_bytes()[SLOT:])) == [slot(41), slot(42)]
        path.write_bytes(data)
        counters.remember(str(path), 43)
        assert path.read_bytes() == 2 * slot(43)


@given(st.binary(min_size=2 * SLOT, max_size=2 * SLOT) | st.binary(max_size=3 * SLOT))
def test_any_other_bytes_have_no_slots(data: bytes) -> None:
    assert places(data, 1) == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "alice"


def test_a_file_is_made_anew_once_and_then_written_into(path: Path) -> None:
    path.write_text("7\n")
    made = []
    for counter in (8, 9, 12, 13):
        counters.remember(str(path), counter)
        assert counters.read_counter(str(path)) == counter
        made.append(path.stat().st_ino)
    assert len(set(made)) == 1
    assert path.read_bytes() == slot(13) + slot(12)
    assert os.listdir(path.parent) == ["alice"]


@pytest.mark.parametrize("data", [b"", b"7\n", slot(7), 3 * slot(7), b"x" * 2 * SLOT], ids=repr)
def test_a_file_without_slots_gets_them(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    counters.remember(str(path), 8)
    assert path.read_bytes() == 2 * slot(8)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_file_and_what_is_no_file(path: Path) -> None:
    for there in (None, path.mkdir, lambda: path.symlink_to(path.parent / "elsewhere")):
        if there:
            there()
        if path.is_dir():
            with pytest.raises(CounterError, match=f"the counter {path} cannot be stored: Is a directory"):
                counters.remember(str(path), 8)
            path.rmdir()
            continue
        counters.remember(str(path), 8)
        assert path.read_bytes() == 2 * slot(8)
        path.unlink()
    assert os.listdir(path.parent) == []


def test_each_of_two_is_written_in_its_turn(path: Path) -> None:
    seen = []
    for counter in range(20):
        counters.remember(str(path), counter)
        seen.append(path.read_bytes())
    for before, after in pairwise(seen[1:]):
        same = [at for at in (0, SLOT) if before[at : at + SLOT] == after[at : at + SLOT]]
        assert len(same) == 1, "the counter before stands until the next one does"


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_a_disk_that_fails(path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    counters.remember(str(path), 8)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(CounterError, match=f"the counter {path} cannot be stored: Input/output error"):
        counters.remember(str(path), 9)


def test_a_short_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counters.remember(str(path), 8)
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:11], at))
    with pytest.raises(CounterError, match="No space left"):
        counters.remember(str(path), 9)
    assert counters.read_counter(str(path)) == 8
