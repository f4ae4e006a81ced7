"""Knocks of any profile in any order: each opens once, and nobody without the keys opens anything."""

from hypothesis import assume, given
from hypothesis import strategies as st

from knockknock.core.counter_text import MAX_COUNTER
from knockknock.core.events import Accepted, Reason, Refused
from knockknock.core.packet import Packet
from knockknock.core.request import Request, Verb
from knockknock.root.record import pack as record
from knockknock.root.record import unpack
from knockknock.schemes.syn import seal
from knockknock.schemes.syn.profile import Profile
from knockknock.server.gatekeeper import Gatekeeper

from ..helpers import KNOCK_PORT, keeper_of, knock, seen, stamped
from .strategies import addresses, packets, profiles, requests, u16, u32

WINDOW = 20
counters = (
    st.integers(0, 10_000) | st.integers(2**32 - 50, 2**32 + 50) | st.integers(MAX_COUNTER - 2000, MAX_COUNTER - 500)
)


def keeper(profile: Profile, at: int, window: int = WINDOW) -> Gatekeeper:
    return keeper_of([profile], {profile.name: at}, 15, window, True)


def first_request(one: Profile) -> Request:
    """The simplest thing that a profile may ask for."""
    return Request(Verb.OPEN, one.ports[0].protocol, one.ports[0].first)


@given(st.data(), profiles(), st.integers(0, MAX_COUNTER), addresses, st.integers(0, 15))
def test_sealed_carried_and_heard(data: st.DataObject, one: Profile, counter: int, source: bytes, label: int) -> None:
    request = data.draw(requests(one))
    sealed = seal.seal(one, counter, request, source)
    packet = seen(seal.carry(one.format, sealed), source, label=label if len(source) == 16 else 0)
    assert seal.carried(one.format, packet) == sealed
    event = keeper(one, counter).hear(packet, 1.0)
    assert isinstance(event, Accepted)
    assert (event.profile, event.counter, event.request) == (one.name, counter, request)
    assert (event.grant.address, event.grant.protocol, event.grant.port) == (source, request.protocol, request.port)
    assert event.grant.seconds == (0 if request.verb is Verb.CLOSE else 15)
    assert unpack(record(event.grant)) == event.grant


@given(st.data(), profiles(), counters, st.lists(st.integers(0, WINDOW - 1), min_size=1, max_size=12), addresses)
def test_any_loss_below_the_window(
    data: st.DataObject, one: Profile, counter: int, losses: list[int], source: bytes
) -> None:
    listener = keeper(one, counter)
    for lost in losses:
        counter += lost
        request = data.draw(requests(one))
        event = listener.hear(knock(one, counter, request, source), 1.0)
        assert isinstance(event, Accepted)
        assert (event.counter, event.request) == (counter, request)
        counter += 1


@given(st.data(), profiles(), counters, st.integers(1, 40), st.lists(st.integers(0, 60), max_size=25))
def test_any_order_of_counters(data: st.DataObject, one: Profile, first: int, window: int, order: list[int]) -> None:
    """Against a model of two lines: the next counter, and the window from there on."""
    listener, expected = keeper(one, first, window), first
    for number, offset in enumerate(order):
        counter = first + offset
        event = listener.hear(knock(one, counter, data.draw(requests(one))), 60.0 * number)
        if expected <= counter < expected + window:
            assert isinstance(event, Accepted)
            expected = counter + 1
        else:
            reason = Reason.REPLAY if expected - window <= counter < expected else Reason.UNKNOWN
            assert isinstance(event, Refused)
            assert event.reason is reason


@given(profiles(), st.permutations(range(8)), st.lists(st.integers(0, 7), max_size=20))
def test_no_knock_opens_twice(one: Profile, order: list[int], again: list[int]) -> None:
    listener, request = keeper(one, 0), first_request(one)
    knocks = [knock(one, counter, request) for counter in range(8)]
    opened = []
    for number, counter in enumerate([*order, *again, *order]):
        event = listener.hear(knocks[counter], 60.0 * number)
        if isinstance(event, Accepted):
            assert event.counter is not None
            opened.append(event.counter)
    assert opened == sorted(set(opened))
    assert opened[-1] == 7


strangers = st.lists(packets(KNOCK_PORT), min_size=1, max_size=30)


@given(st.lists(profiles(), min_size=1, max_size=4, unique_by=lambda one: one.name), counters, strangers)
def test_nobody_without_keys(ones: list[Profile], at: int, noise: list[Packet]) -> None:
    listener = keeper_of(ones, {one.name: at for one in ones}, 15, WINDOW, True)
    for number, packet in enumerate(noise):
        assert listener.hear(packet, 60.0 * number) == Refused(Reason.UNKNOWN, packet)


@given(st.data(), profiles(), counters, st.integers(0, 95))
def test_one_bit_of_a_knock_changed(data: st.DataObject, one: Profile, at: int, bit: int) -> None:
    sealed = seal.seal(one, at, data.draw(requests(one)), b"\xc0\0\x02\x07")
    changed = (int.from_bytes(sealed, "big") ^ 1 << bit % (8 * len(sealed))).to_bytes(len(sealed), "big")
    listener = keeper(one, at)
    assert isinstance(listener.hear(seen(seal.carry(one.format, changed)), 1.0), Refused)
    assert isinstance(listener.hear(seen(seal.carry(one.format, sealed)), 60.0), Accepted)


@given(st.data(), profiles(), counters, st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
def test_parts_of_recorded_knocks(data: st.DataObject, one: Profile, at: int, pairs: list[tuple[int, int]]) -> None:
    """Parts of many used knocks, the bytes of many keystreams, open nothing when somebody puts them together anew."""
    listener = keeper(one, at)
    recorded = []
    for counter in range(at, at + 8):
        packet = knock(one, counter, data.draw(requests(one)))
        assert isinstance(listener.hear(packet, 1.0), Accepted)
        recorded.append(seal.carried(one.format, packet))
    for number, (left, right) in enumerate(pairs, 1):
        one_half, other_half = recorded[left], recorded[right]
        assert one_half
        assert other_half
        cut = data.draw(st.integers(0, len(one_half)))
        mixed = seen(seal.carry(one.format, one_half[:cut] + other_half[cut:]))
        assert isinstance(listener.hear(mixed, 60.0 * number), Refused)


@given(st.data(), profiles("compact") | profiles("stealth"), counters, addresses, addresses)
def test_a_bound_knock_is_good_from_its_source_alone(
    data: st.DataObject, one: Profile, at: int, source: bytes, other: bytes
) -> None:
    bound = one._replace(bind_source=True)
    packet = knock(bound, at, data.draw(requests(bound)), source)

    def mapped(address: bytes) -> bytes:
        return address.rjust(16, b"\0") if len(address) == 16 else bytes(10) + b"\xff\xff" + address

    event = keeper(bound, at).hear(packet._replace(source=other), 1.0)
    assert isinstance(event, Accepted) is (mapped(source) == mapped(other))
    assert isinstance(keeper(bound, at).hear(packet, 1.0), Accepted)


@given(st.data(), profiles(), profiles(), counters)
def test_another_profiles_knock_is_not_ours(data: st.DataObject, one: Profile, other: Profile, at: int) -> None:
    # HMAC fills a short key up with zeros (RFC 2104), so one of 16 bytes is also one of 32.
    assume(one.cipher_key != other.cipher_key or one.mac_key.ljust(32, b"\0") != other.mac_key.ljust(32, b"\0"))
    packet = knock(other, at, data.draw(requests(other)))
    assert not isinstance(keeper(one, at).hear(packet, 1.0), Accepted)


@given(profiles(), counters, u16, u32, u32)
def test_what_the_knock_does_not_cover_does_not_matter(
    one: Profile, at: int, source_port: int, timestamp: int, acknowledgment: int
) -> None:
    packet = knock(one, at, first_request(one))
    other = packet._replace(source_port=source_port)
    if one.format != "stealth":
        other = other._replace(options=stamped(timestamp))
    assert isinstance(keeper(one, at).hear(other, 1.0), Accepted)
    if one.format != "classic" and acknowledgment:
        assert isinstance(keeper(one, at).hear(packet._replace(acknowledgment=acknowledgment), 1.0), Refused)
