"""Counters by the clock, and clients that ran ahead, against models of a few lines."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockknock.core.events import Accepted, Reason, Refused
from knockknock.core.profile import Settings
from knockknock.errors import ConfigError, CounterError
from knockknock.profiles import counters
from knockknock.profiles.text import parse_config, write_config
from knockknock.schemes.syn.listener import SEARCHED_PER_SECOND, SynListener
from knockknock.schemes.syn.profile import Profile
from knockknock.schemes.syn.window import ProfileWindow
from knockknock.server.gatekeeper import Gatekeeper

from ..helpers import OPEN_22, knock, profile, take

NOW = 1_800_000_000
SKEW = 5
CLOCKS = [
    profile(clock=True),
    profile(format="stealth", ports="tcp/22,tcp/1-30", clock=True),
    profile(bind_source=True, clock=True),
]
"""In the table; too many requests for it; a bound source."""


def hearing(keeper: Gatekeeper) -> SynListener:
    found = keeper._listeners["syn"]
    assert isinstance(found, SynListener)
    return found


def keeper(one: Profile, at: int, *, resync: int = 0) -> Gatekeeper:
    found = Gatekeeper(Settings(15, 20, True, resync, SKEW))
    found.add(one, at)
    return found


@pytest.mark.parametrize("one", CLOCKS, ids=lambda one: f"{one.format}{'-bound' * one.bind_source}")
@given(steps=st.lists(st.tuples(st.integers(-30, 60), st.integers(-9, 9)), max_size=30))
def test_the_clock(one: Profile, steps: list[tuple[int, int]]) -> None:
    """Good is what was not used, and is no further from the clock than the skew, whichever way the clock is set."""
    listener, clock, expected = keeper(one, 0), NOW, 0
    for number, (seconds, off) in enumerate(steps):
        clock += seconds
        listener.move(clock)
        counter = clock + off
        event = listener.hear(knock(one, counter), 60.0 * number)
        if abs(off) <= SKEW and counter >= expected:
            assert isinstance(event, Accepted)
            assert event.counter == counter
            expected = counter + 1
        else:
            assert isinstance(event, Refused)
            assert event.reason is (Reason.REPLAY if abs(off) <= SKEW else Reason.UNKNOWN)
            assert event.counter is None


@given(st.lists(st.integers(-200, 200), max_size=10), st.sampled_from(CLOCKS))
def test_the_table_holds_what_is_in_the_window_and_nothing_else(jumps: list[int], one: Profile) -> None:
    listener, clock = keeper(one, 0), NOW
    listener.add(profile("bob"), 7)
    for jump in jumps:
        clock += jump
        listener.move(clock)
        listener.hear(knock(one, clock), 1.0)
    listener.remove(one.name)
    listener.remove("bob")
    assert len(hearing(listener)._candidates) == 0


def test_moving_on_costs_by_the_seconds() -> None:
    """A second costs the knocks of one counter; a year no more than the whole window, there and back."""
    (window,) = hearing(keeper(CLOCKS[0], 0))._windows.values()
    window.move(NOW)
    leave, come = window.move(NOW + 1)
    assert (len(list(leave)), len(list(come))) == (2, 2)
    leave, come = window.move(NOW + 365 * 86400)
    assert len(list(leave)) == len(list(come)) == 2 * (2 * SKEW + 1)


def test_two_machines_with_one_profile() -> None:
    """Each goes by its own clock; who comes with a lower number than the last is late, by the difference at most."""
    one = CLOCKS[0]
    listener = keeper(one, 0)
    listener.move(NOW)
    assert isinstance(listener.hear(knock(one, NOW + 2), 1.0), Accepted)
    assert isinstance(listener.hear(knock(one, NOW), 2.0), Refused)
    listener.move(NOW + 3)
    assert isinstance(listener.hear(knock(one, NOW + 3), 3.0), Accepted)


FAR = 1000


@given(st.integers(0, 2000), st.lists(st.integers(-30, FAR + 40), max_size=12))
def test_two_in_a_row_bring_a_client_back(first: int, offsets: list[int]) -> None:
    """Against a model: beyond the window a knock counts if the one before it, and no other good one, came before."""
    one = profile()
    listener, expected, ahead = keeper(one, first, resync=FAR), first, -1
    for number, offset in enumerate(offset for each in offsets for offset in (each, each + 1)):
        counter = max(0, first + offset)
        event = listener.hear(knock(one, counter), 60.0 * number)
        beyond = expected + 20 <= counter < expected + 20 + FAR
        if expected <= counter < expected + 20 or (beyond and counter == ahead):
            assert isinstance(event, Accepted)
            expected, ahead = counter + 1, -1
        else:
            assert isinstance(event, Refused)
            replay = Reason.REPLAY if max(0, expected - 20) <= counter < expected else Reason.UNKNOWN
            assert event.reason is (Reason.AHEAD if beyond else replay)
            assert event.counter is None, "a knock that opened nothing uses nothing up"
            ahead = counter + 1 if beyond else ahead


def test_the_same_knock_twice_is_not_two_in_a_row() -> None:
    one = profile()
    listener = keeper(one, 0, resync=FAR)
    for number in range(4):
        event = listener.hear(knock(one, 500), 60.0 * number)
        assert isinstance(event, Refused)
        assert event.reason is Reason.AHEAD
    assert isinstance(listener.hear(knock(one, 501), 300.0), Accepted)
    for number, counter in enumerate((500, 501, 500, 501)):
        assert isinstance(listener.hear(knock(one, counter), 400.0 + 60 * number), Refused)


def test_what_is_not_permitted_brings_nobody_back() -> None:
    listener = keeper(profile(), 0, resync=FAR)
    for number in range(2):
        event = listener.hear(knock(profile(), 500 + number, OPEN_22._replace(port=23)), 60.0 * number)
        assert isinstance(event, Refused)
        assert event.reason is Reason.UNKNOWN


def test_a_flood_costs_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far counters are tried for a few packets a second, whatever comes."""
    tried = 0
    before = ProfileWindow.hear_ahead

    def counted(self: ProfileWindow, sealed: bytes, source: bytes, far: int) -> object:
        nonlocal tried
        tried += 1
        return before(self, sealed, source, far)

    monkeypatch.setattr(ProfileWindow, "hear_ahead", counted)
    listener, junk = keeper(profile(), 0, resync=FAR), knock(profile("mallory")._replace(mac_key=bytes(16)), 3)
    for number in range(3000):
        listener.hear(junk, 1.0 + number / 1000)
    assert tried <= 4 * SEARCHED_PER_SECOND


def test_it_can_be_turned_off() -> None:
    listener = keeper(profile(), 0)
    for counter in (500, 501):
        event = listener.hear(knock(profile(), counter), 60.0 * counter)
        assert isinstance(event, Refused)
        assert event.reason is Reason.UNKNOWN


def test_the_clients_counter(tmp_path: Path) -> None:
    """The time, or the last one used and one more; a lost file is no loss, a damaged one is said."""
    directory, path = str(tmp_path), tmp_path / "counter"
    with pytest.raises(CounterError):
        take(directory)
    assert counters.next_counter(directory, 1, NOW) == NOW + 1
    assert not path.exists()
    assert [take(directory, NOW) for _ in range(3)] == [NOW, NOW + 1, NOW + 2]
    assert take(directory, NOW - 3600) == NOW + 3, "a clock that was set back"
    assert take(directory, NOW + 10) == NOW + 10
    assert path.read_text() == f"{NOW + 11}\n"
    path.write_text("five\n")
    with pytest.raises(CounterError):
        take(directory, NOW)


def test_in_a_profiles_config() -> None:
    draft = parse_config("[main]\nknock_port = 1\nformat = compact\ncounter = clock\n", "config")
    assert isinstance(draft, Profile)
    assert draft.clock is True
    assert "counter = clock\n" in write_config(CLOCKS[0])
    assert "counter" not in write_config(profile())
    for text, says in (
        ("knock_port = 1\nformat = classic\ncounter = clock", "classic cannot count by the clock"),
        ("knock_port = 1\nformat = compact\ncounter = watch", "config:4: counter: 'watch' is not one of event, clock"),
    ):
        with pytest.raises(ConfigError, match=says):
            parse_config(f"[main]\n{text}\n", "config")
