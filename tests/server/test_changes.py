"""A gatekeeper whose profiles come and go while it listens is one that was made anew with those profiles."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knockknock.core.events import Accepted
from knockknock.core.profile import Settings
from knockknock.schemes.syn.profile import Profile
from knockknock.server.gatekeeper import Gatekeeper

from ..helpers import keeper_of, knock, profile

NAMES = ("a", "b", "c")
SHAPES: tuple[dict[str, object], ...] = (
    {},
    {"knock_port": 4343},
    {"format": "classic"},
    {"ports": "tcp/22-23"},
    {"ports": "tcp/1-40"},
    {"bind_source": True},
)

step = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(NAMES), st.integers(0, 1), st.sampled_from(SHAPES), st.integers(0, 30)),
    st.tuples(st.just("remove"), st.sampled_from(NAMES)),
    st.tuples(st.just("window"), st.integers(1, 6)),
    st.tuples(st.just("knock"), st.sampled_from(NAMES), st.integers(-3, 8)),
)


def one(name: str, key: int, shape: dict[str, Any]) -> Profile:
    keys = {"cipher_key": f"{name}{key}".encode() * 8, "mac_key": f"{key}{name}".encode() * 8}
    return profile(name, **{**keys, **shape})


class Model:
    """Model of what is heard: for each name a profile, its next counter and its window."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[Profile, int, int]] = {}

    def add(self, made: Profile, counter: int, window: int) -> None:
        before = self.held.get(made.name)
        if before and before[0].mac_key == made.mac_key:
            counter = max(counter, before[1])
        self.held[made.name] = made, counter, window

    def accepts(self, made: Profile, counter: int) -> bool:
        """By a gatekeeper made anew."""
        if made.name not in self.held:
            return False
        known, at, window = self.held[made.name]
        heard = isinstance(keeper_of([known], {made.name: at}, 5, window, True).hear(knock(made, counter), 0), Accepted)
        if heard:
            self.held[made.name] = known, counter + 1, window
        return heard


@settings(max_examples=300)
@given(st.lists(step, max_size=40))
def test_as_if_made_anew(steps: list[tuple[Any, ...]]) -> None:
    listener, model = Gatekeeper(Settings(5, 3, True)), Model()
    for kind, *rest in steps:
        if kind == "add":
            name, key, shape, counter = rest
            listener.add(one(name, key, shape), counter)
            model.add(one(name, key, shape), counter, listener.settings.window)
        elif kind == "window":
            listener.settings = listener.settings._replace(window=rest[0])
            for made, counter, _ in list(model.held.values()):
                listener.add(made, 0)
                model.add(made, counter, rest[0])
        elif rest[0] not in model.held:
            if kind == "remove":
                with pytest.raises(KeyError):
                    listener.remove(rest[0])
        elif kind == "remove":
            listener.remove(rest[0])
            del model.held[rest[0]]
        else:
            made, at, _ = model.held[rest[0]]
            counter = max(0, at + rest[1])
            packet, expected = knock(made, counter), model.accepts(made, counter)
            assert isinstance(listener.hear(packet, 0), Accepted) == expected
    check(listener, model)


def check(listener: Gatekeeper, model: Model) -> None:
    """Check that what is heard is what the model says, and that nothing is left of it when all is taken away."""
    assert {name: listener.profile(name) for name in listener.names()} == {
        name: made for name, (made, _, _) in model.held.items()
    }
    assert set(listener.knock_ports) == {(6, made.knock_port) for made, _, _ in model.held.values()}
    assert len(listener) == len(model.held)
    for made, at, window in list(model.held.values()):
        for counter in (at - 1, at + window, at + window - 1, at):
            if counter >= 0:
                expected = model.accepts(made, counter)
                assert isinstance(listener.hear(knock(made, counter), 0), Accepted) == expected
    hearing: Any = listener._listeners.get("syn")
    assert not hearing or len(hearing._numbered) <= len(NAMES), "numbers are used again"
    for name in listener.names():
        listener.remove(name)
    assert not hearing or len(hearing._candidates) == 0
    assert not listener._watchers
    assert listener.hear(knock(one("a", 0, {}), 0), 0) is None


def test_a_successor_with_other_keys_begins_where_it_is_told_to() -> None:
    old, new = one("a", 0, {}), one("a", 1, {})
    listener = keeper_of([old], {"a": 100}, 5, 20, True)
    listener.add(new, 0)
    assert not isinstance(listener.hear(knock(old, 100), 0), Accepted)
    assert isinstance(listener.hear(knock(new, 0), 0), Accepted)


def test_the_same_keys_never_go_back() -> None:
    made = one("a", 0, {})
    listener = keeper_of([made], {"a": 0}, 5, 20, True)
    packet = knock(made, 7)
    assert isinstance(listener.hear(packet, 0), Accepted)
    for changed in (made._replace(single_use=False), made._replace(format="stealth"), made):
        listener.add(changed, 0)
        assert not isinstance(listener.hear(packet, 0), Accepted)


def test_a_new_delay_and_single_use_count_at_once() -> None:
    made = profile()
    listener = keeper_of([made], {made.name: 0}, 5, 3, True)
    listener.settings = Settings(9, 3, False)
    event = listener.hear(knock(made, 0), 0)
    assert isinstance(event, Accepted)
    assert (event.grant.seconds, event.grant.order.name) == (9, "OPEN")
