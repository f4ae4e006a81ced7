"""Values that are handed over to the kernel's sets: exactly what profiles can say next, whatever comes in between."""

from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockknock.core.counter_text import MAX_COUNTER
from knockknock.core.profile import Settings
from knockknock.core.request import TCP, UDP, Request, Verb
from knockknock.errors import FirewallError
from knockknock.profiles.text import named
from knockknock.profiles.text import parse_config as parse
from knockknock.schemes.syn.profile import FORMATS, Profile
from knockknock.server.expected_values import Expected
from knockknock.server.gatekeeper import Gatekeeper

from ..helpers import KNOCK_PORT, OPEN_22, knock, profile

PORT = KNOCK_PORT.to_bytes(2, "big")
WINDOW, RESYNC = 20, 50


class Kernel:
    """Sets, as the kernel keeps them; `left`: changes until it refuses one."""

    def __init__(self) -> None:
        names = ("every_syn", *FORMATS)
        self.sets: dict[str, set[bytes]] = {name: set() for name in names}
        self.sizes: list[int] = []
        self.left = -1
        self.emptied = False

    def change(self, name: str, come: list[bytes], go: list[bytes]) -> None:
        if not self.left:
            raise FirewallError("no room")
        self.left -= 1
        self.sizes.append(len(come) + len(go))
        self.sets[name] |= set(come)
        self.sets[name] -= set(go)

    def placed(self, *ports: bytes) -> None:
        """Our table is a new one."""
        for one in self.sets.values():
            one.clear()
        self.sets["every_syn"] |= set(ports)


@cache
def fields(sender: Profile, counter: int, request: Request) -> bytes:
    """Value of a knock in nft: each of its fields in a register of its own, from the packet that a source sees."""
    packet = knock(sender, counter, request)
    fourth = packet.window.to_bytes(2, "big") + bytes(2)
    middle = packet.acknowledgment.to_bytes(4, "big") if sender.format == "classic" else b""
    if sender.format == "stealth":
        assert packet.timestamp is not None
        fourth = packet.timestamp.to_bytes(4, "big")
    return packet.ident.to_bytes(2, "big") + bytes(2) + packet.sequence.to_bytes(4, "big") + middle + fourth


def said(sender: Profile, first: int, end: int) -> set[bytes]:
    """All that a profile for TCP port 22 can say with some counters."""
    verbs = [Verb.OPEN] if sender.format == "classic" else list(Verb)
    return {fields(sender, counter, Request(verb, TCP, 22)) for counter in range(first, end) for verb in verbs}


def started(*profiles: Profile, size: int = 10_000, at: int = 0) -> tuple[Gatekeeper, Kernel, Expected]:
    """A gatekeeper of some profiles, and what the kernel has of them."""
    keeper, kernel = Gatekeeper(Settings(15, WINDOW, True, RESYNC)), Kernel()
    for one in profiles:
        keeper.add(one, at)
    kernel.placed(*{one.knock_port.to_bytes(2, "big") for one in profiles})
    expected = Expected(keeper, size, kernel.change, lambda: kernel.emptied)
    run(expected.hand_over())
    return keeper, kernel, expected


def run(work: Iterator[None]) -> None:
    for _ in work:
        pass


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("at", [0, 7, MAX_COUNTER - 9, MAX_COUNTER])
def test_all_that_can_be_said_next(format: str, at: int) -> None:
    one = profile(format=format)
    _, kernel, expected = started(one, at=at)
    end = min(at + WINDOW + RESYNC, MAX_COUNTER + 1)
    assert {name: held for name, held in kernel.sets.items() if held} == {format: said(one, at, end)}
    assert (len(expected), expected.ahead, expected.every) == (1, WINDOW + RESYNC, {})


@given(st.lists(st.integers(0, WINDOW + RESYNC + 5), max_size=12), st.sampled_from(FORMATS))
def test_it_follows_every_knock(jumps: list[int], format: str) -> None:
    """A knock takes out what is before it; one that is too far ahead does not, two in a row do."""
    one = profile(format=format)
    keeper, kernel, expected = started(one)
    counter = 0
    for jump in jumps:
        counter += jump
        for more in range(2):
            keeper.hear(knock(one, counter + more), 60.0 * counter + more)
            expected.follow(one.name)
        found = keeper.next(one.name)
        assert found
        counter = found.first
        assert kernel.sets[format] == said(one, counter, counter + WINDOW + RESYNC)
    assert all(size <= 2000 for size in kernel.sizes)


def test_ports_of_which_every_syn_is_logged() -> None:
    """Test that nothing is listed for a port if one of its profiles cannot be, and that others are not affected."""
    elsewhere = profile("dora", mac_key=b"d" * 16, knock_port=5)
    for other in (
        profile("bob", mac_key=b"b" * 16, ports="tcp/1-65535"),
        profile("bob", mac_key=b"b" * 16, bind_source=True),
        profile("bob", mac_key=b"b" * 16, clock=True),
    ):
        _, kernel, expected = started(profile(), other, elsewhere)
        assert kernel.sets["every_syn"] == {PORT}
        assert expected.every == {f"tcp/{KNOCK_PORT}": "because knocks of bob cannot be listed"}
        assert kernel.sets["compact"] == said(elsewhere, 0, WINDOW + RESYNC)
        expected.follow("bob")
        expected.follow("nobody")


def test_a_sequence_at_the_same_port() -> None:
    """Ports of a sequence are secret: the reasons name no port as its own."""
    steps = parse("[main]\nscheme = sequence\nports = 7001, 4242, 7003\nopens = tcp/22\n", "config")
    keeper, kernel = Gatekeeper(Settings(15, WINDOW, True, RESYNC)), Kernel()
    keeper.add(profile(), 0)
    keeper.add(named(steps, "seq", {}), None)
    expected = Expected(keeper, 10_000, kernel.change, lambda: False)
    run(expected.hand_over())
    assert kernel.sets["every_syn"] == {port.to_bytes(2, "big") for port in (7001, 4242, 7003)}
    assert expected.every == {
        "a sequence of 3": "because knocks of seq cannot be listed",
        f"tcp/{KNOCK_PORT}": "because knocks of another profile there cannot be listed",
    }


def test_what_is_ahead_shrinks_to_what_there_is_room_for() -> None:
    one, other = profile(), profile("bob", mac_key=b"b" * 16)
    _, kernel, expected = started(one, other, size=100)
    assert expected.ahead == 25
    assert kernel.sets["compact"] == said(one, 0, 25) | said(other, 0, 25)


def test_a_port_without_room_for_its_windows_is_not_listed() -> None:
    few = profile("dora", mac_key=b"d" * 16, knock_port=5)
    _, kernel, expected = started(profile(), profile("bob", mac_key=b"b" * 16), few, size=79)
    assert kernel.sets["every_syn"] == {PORT}
    assert expected.every == {f"tcp/{KNOCK_PORT}": "as expected_size is too small"}
    assert kernel.sets["compact"] == said(few, 0, 39)


def test_more_ports_than_one_message_holds() -> None:
    many = [profile(f"p{port}", mac_key=port.to_bytes(16, "big"), knock_port=port) for port in range(1, 2502)]
    _, kernel, expected = started(*many, size=110_000)
    assert kernel.sets["every_syn"] == set()
    assert (len(expected), expected.ahead) == (2501, 21)
    assert max(kernel.sizes) <= 2000


def test_size_0_lists_nothing() -> None:
    _, kernel, expected = started(profile(), size=0)
    assert {name: held for name, held in kernel.sets.items() if held} == {"every_syn": {PORT}}
    assert (len(expected), expected.every) == (0, {f"tcp/{KNOCK_PORT}": "as it is configured"})


@pytest.mark.parametrize("left", range(4))
def test_whatever_fails_knocks_are_heard(left: int) -> None:
    keeper, kernel, expected = started(profile())
    kernel.left = left
    many = profile("bob", mac_key=b"b" * 16, ports="tcp/22,udp/1-3", knock_port=5)
    keeper.add(many, 0)
    kernel.placed(PORT, b"\0\5")
    try:
        run(expected.hand_over())
    except FirewallError:
        assert kernel.sets["every_syn"] == {PORT, b"\0\5"}
        assert (len(expected), len(expected.every)) == (0, 2)
    else:
        assert kernel.sets["every_syn"] == set()
    kernel.left = -1
    run(expected.hand_over())
    assert kernel.sets["every_syn"] == set()
    assert len(kernel.sets["compact"]) == (2 + 8) * (WINDOW + RESYNC)


@pytest.mark.parametrize("steps", range(6))
def test_a_knock_while_it_is_handed_over(steps: int) -> None:
    one, other = profile(), profile("bob", mac_key=b"b" * 16)
    keeper, kernel, expected = started(one, other)
    kernel.placed(PORT)
    expected.forget()
    work = expected.hand_over()
    for _ in range(steps):
        next(work, None)
    for sender in (one, other):
        keeper.hear(knock(sender, 3), 60.0)
        expected.follow(sender.name)
    run(work)
    end = 4 + WINDOW + RESYNC
    assert kernel.sets["compact"] == said(one, 4, end) | said(other, 4, end)
    assert kernel.sets["every_syn"] == set()


@pytest.mark.parametrize("steps", range(6))
def test_a_table_that_is_replaced_while_it_is_handed_over(steps: int) -> None:
    """Test that every SYN at a knock port is logged while the sets are not complete, until all is handed over again."""
    one, other = profile(), profile("bob", mac_key=b"b" * 16)
    _, kernel, expected = started(one, other)
    work = expected.hand_over()
    for _ in range(steps):
        next(work, None)
    kernel.placed(PORT)
    kernel.emptied = True
    run(work)
    assert kernel.sets["every_syn"] == {PORT}
    kernel.emptied = False
    run(expected.hand_over())
    assert kernel.sets["compact"] == said(one, 0, WINDOW + RESYNC) | said(other, 0, WINDOW + RESYNC)
    assert kernel.sets["every_syn"] == set()


def test_who_is_gone_is_no_longer_expected() -> None:
    one, other = profile(), profile("bob", mac_key=b"b" * 16)
    keeper, kernel, expected = started(one, other)
    keeper.remove("bob")
    kernel.placed(PORT)
    run(expected.hand_over())
    assert kernel.sets["compact"] == said(one, 0, WINDOW + RESYNC)


def test_a_profile_of_udp_is_listed_too() -> None:
    one = profile(ports="udp/53")
    _, kernel, _ = started(one)
    assert fields(one, 0, Request(Verb.OPEN, UDP, 53)) in kernel.sets["compact"]
    assert fields(one, 0, OPEN_22) not in kernel.sets["compact"]
