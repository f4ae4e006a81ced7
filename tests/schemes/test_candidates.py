"""The table of prefixes behaves as a multimap, however its places collide."""

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockknock.core.events import Accepted
from knockknock.core.packet import Packet
from knockknock.core.request import TCP, Ports, Request, Verb
from knockknock.schemes.syn import seal
from knockknock.schemes.syn.candidates import Candidates
from knockknock.schemes.syn.profile import Profile

from ..helpers import keeper_of

# Few prefixes that all begin at the same few places, at the end of the array too, and some that are anywhere.
prefixes = st.one_of(
    st.integers(0, 3), st.integers(60, 66), st.sampled_from([63 + 64 * n for n in range(5)]), st.integers(0, 2**32 - 1)
)
pairs = st.tuples(prefixes, st.integers(0, 4) | st.just(2**32 - 2))


@pytest.fixture(scope="module", autouse=True)
def small_tables() -> Iterator[None]:
    """So that few pairs are enough for a second and a third table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("knockknock.schemes.syn.candidates._SMALLEST", 64)
        yield


@given(st.integers(0, 200), st.lists(st.tuples(st.booleans(), pairs), max_size=300))
def test_multimap(before: int, steps: list[tuple[bool, tuple[int, int]]]) -> None:
    """before: pairs that are there already, so that the steps go on in one table, in two or in three."""
    table, model = Candidates(), Counter[tuple[int, int]]()
    for number in range(before):
        table.add(number % 70, 5)
        model[number % 70, 5] += 1
    for add, pair in steps:
        if add:
            table.add(*pair)
            model[pair] += 1
        elif model[pair]:
            table.remove(*pair)
            model[pair] -= 1
        else:
            with pytest.raises(KeyError):
                table.remove(*pair)
    assert len(table) == model.total()
    for prefix in {prefix for prefix, _ in model}:
        assert sorted(table.find(prefix)) == sorted(number for known, number in model.elements() if known == prefix)


def test_grows_and_stays_right() -> None:
    table = Candidates()
    for number in range(5000):
        table.add(number * 64 % 2**32, number)
    assert all(number in table.find(number * 64 % 2**32) for number in range(5000))
    assert len(table._tables) > 5
    places = [one.places for one in table._tables]
    for number in range(5000):
        table.remove(number * 64 % 2**32, number)
        table.add(number, number)
    assert [one.places for one in table._tables] == places, "room that was left is used again"
    assert all(number in table.find(number) for number in range(5000))


def test_room_for_what_is_expected() -> None:
    table = Candidates(5000)
    for number in range(5000):
        table.add(number * 7919 % 2**32, number)
    assert len(table._tables) == 1


def packet(profile: Profile, counter: int) -> Packet:
    fields = seal.carry(profile.format, seal.seal(profile, counter, Request(Verb.OPEN, TCP, 22), b"\x0a\x4d\0\2"))
    return Packet(b"\x0a\x4d\0\2", 1, profile.knock_port, fields.ident, fields.sequence, 0, fields.window or 0)


def test_a_thousand_profiles_at_one_port() -> None:
    """Each is heard, again and again and with losses, and none is taken for another."""
    ports = (Ports(TCP, 22, 22),)
    profiles = [Profile(f"p{n}", n.to_bytes(16), bytes(15) + b"m", 4242, "compact", ports) for n in range(1000)]
    keeper = keeper_of(profiles, {one.name: 0 for one in profiles}, 15, 20, True)
    for counter in (0, 1, 20, 39, 40):
        for profile in profiles[:: 97 if counter else 1]:
            knock = packet(profile, counter)
            event = keeper.hear(knock, 0.0)
            assert isinstance(event, Accepted)
            assert (event.profile, event.counter) == (profile.name, counter)
            assert not isinstance(keeper.hear(knock, 0.0), Accepted)
