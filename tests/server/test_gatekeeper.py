"""Verdicts of the gatekeeper on knocks in any order, of any age, for any profile."""

import base64
from collections.abc import Sequence

import pytest

from knockknock.core.counter_text import MAX_COUNTER
from knockknock.core.events import Accepted, Event, Quiet, Reason, Refused
from knockknock.core.packet import Packet
from knockknock.core.request import TCP, UDP, Request, Verb
from knockknock.root.record import Grant, Order
from knockknock.schemes.syn import seal, window
from knockknock.schemes.syn.listener import EXPLAINED_PER_SECOND
from knockknock.schemes.syn.profile import FORMATS, Profile
from knockknock.schemes.syn.window import REPEATED
from knockknock.server.gatekeeper import Gatekeeper

from ..helpers import KNOCK_PORT, OPEN_22, SOURCE, SOURCE6, keeper_of, knock, profile, stamped

NOISE = Packet(SOURCE, 40000, KNOCK_PORT, 1, 2, 0, 3, stamped(4))
CLOSE_22 = Request(Verb.CLOSE, TCP, 22)


def keeper(*profiles: Profile, at: int = 0, single_use: bool = True) -> Gatekeeper:
    """A gatekeeper with the default delay and window; at: the next counter of every profile."""
    return keeper_of(profiles, {one.name: at for one in profiles}, 15, 20, single_use)


def hear(listener: Gatekeeper, *packets: Packet) -> list[str]:
    """The verdict on each packet, a minute apart, so that every one is explained."""
    events = [listener.hear(packet, 60.0 * number) for number, packet in enumerate(packets, 1)]
    return ["open" if isinstance(event, Accepted) else word(event) for event in events]


def word(event: Event | None) -> str:
    return event.reason.value if isinstance(event, Refused) else type(event).__name__


ORDERS: list[tuple[Sequence[int], Sequence[str]]] = [
    ([0, 1, 2], ["open", "open", "open"]),
    ([0, 0, 0], ["open", "replay", "replay"]),
    ([19], ["open"]),
    ([20], ["unknown"]),
    ([20, 0, 20], ["unknown", "open", "open"]),
    ([19, 38, 58], ["open", "open", "open"]),
    ([19, 39, 60], ["open", "open", "unknown"]),
    ([5, 4, 3, 2, 1, 0], ["open", *["replay"] * 5]),
    ([5, 4, 6, 5, 6, 7], ["open", "replay", "open", "replay", "replay", "open"]),
]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("counters", "verdicts"), ORDERS, ids=[str(order) for order, _ in ORDERS])
def test_orders_of_counters(format: str, counters: Sequence[int], verdicts: Sequence[str]) -> None:
    one = profile(format=format)
    assert hear(keeper(one), *(knock(one, counter) for counter in counters)) == list(verdicts)


@pytest.mark.parametrize("format", FORMATS)
def test_a_replay_gives_nothing_from_any_source(format: str) -> None:
    one = profile(format=format)
    listener = keeper(one)
    packet = knock(one, 0)
    assert isinstance(listener.hear(packet, 1.0), Accepted)
    for source in (SOURCE, bytes([192, 0, 2, 8]), SOURCE6):
        event = listener.hear(packet._replace(source=source), 9.0)
        assert isinstance(event, Refused)
        assert (event.reason, event.profile, event.counter) == (Reason.REPLAY, "alice", None)


def test_replays_outside_the_explained_window_are_refused_too() -> None:
    one = profile()
    listener = keeper(one, at=1000)
    assert hear(listener, *(knock(one, counter) for counter in (0, 1, 978, 979))) == ["unknown"] * 4
    assert hear(keeper(one, at=1000), knock(one, 980)) == ["replay"]


def test_what_is_accepted() -> None:
    one = profile()
    assert keeper(one).hear(knock(one, 7), 1.0) == Accepted(
        "alice", 7, OPEN_22, Grant(Order.OPEN_ONCE, SOURCE, TCP, 22, 15), 8
    )


GRANTS = [
    # the daemon's setting, the profile's, the request, the order and the seconds that come of it
    (True, None, OPEN_22, Order.OPEN_ONCE, 15),
    (False, None, OPEN_22, Order.OPEN, 15),
    (True, False, OPEN_22, Order.OPEN, 15),
    (False, True, OPEN_22, Order.OPEN_ONCE, 15),
    (True, None, CLOSE_22, Order.CLOSE, 0),
    (False, False, CLOSE_22, Order.CLOSE, 0),
]


@pytest.mark.parametrize(("daemon", "own", "request_", "order", "seconds"), GRANTS)
@pytest.mark.parametrize("source", [SOURCE, SOURCE6], ids=["IPv4", "IPv6"])
def test_order_and_seconds(
    daemon: bool, own: bool | None, request_: Request, order: Order, seconds: int, source: bytes
) -> None:
    one = profile(single_use=own)
    event = keeper(one, single_use=daemon).hear(knock(one, 0, request_, source), 1.0)
    assert isinstance(event, Accepted)
    assert event.grant == Grant(order, source, TCP, 22, seconds)


def test_a_profiles_own_delay() -> None:
    """It may be shorter or longer than the daemon's, which counts for all others."""
    for delay, seconds in ((5, 5), (3600, 3600), (None, 15)):
        one = profile(delay=delay)
        event = keeper(one).hear(knock(one, 0), 1.0)
        assert isinstance(event, Accepted)
        assert event.grant.seconds == seconds


@pytest.mark.parametrize("format", ["compact", "stealth"])
def test_verbs_and_protocols_are_told_apart(format: str) -> None:
    one = profile(format=format, ports="tcp/22,udp/22")
    requests = [Request(verb, protocol, 22) for verb in Verb for protocol in (TCP, UDP)]
    listener = keeper(one)
    for counter, request in enumerate(requests):
        event = listener.hear(knock(one, counter, request), 1.0)
        assert isinstance(event, Accepted)
        assert event.request == request


def test_two_profiles_at_one_port_keep_their_own_counters() -> None:
    alice, bob = profile("alice"), profile("bob", cipher_key=bytes(16), mac_key=bytes(16))
    listener = keeper(alice, bob)
    for sender, counter, expected in (
        (alice, 0, "open"),
        (bob, 0, "open"),
        (alice, 0, "replay"),
        (bob, 5, "open"),
        (alice, 1, "open"),
        (bob, 4, "replay"),
    ):
        event = listener.hear(knock(sender, counter), 1.0)
        assert isinstance(event, Accepted | Refused)
        assert ("open" if isinstance(event, Accepted) else event.reason.value) == expected
        assert event.profile == sender.name


def test_every_format_at_one_port() -> None:
    ones = [
        profile(format, format, cipher_key=bytes([number] * 32), mac_key=bytes([number] * 32))
        for number, format in enumerate(FORMATS)
    ]
    listener = keeper(*ones)
    for counter in range(3):
        for one in ones:
            event = listener.hear(knock(one, counter), 1.0)
            assert isinstance(event, Accepted)
            assert (event.profile, event.counter) == (one.name, counter)


def test_the_same_keys_in_another_format_are_another_knock() -> None:
    for said in FORMATS:
        for heard in FORMATS:
            expected = "open" if said == heard else "unknown"
            assert hear(keeper(profile(format=heard)), knock(profile(format=said), 0)) == [expected]


def test_other_ports_are_nobodys_business() -> None:
    one = profile()
    listener = keeper(one)
    assert listener.hear(knock(one, 0)._replace(port=4243), 1.0) is None
    assert listener.hear(NOISE._replace(port=22), 1.0) is None
    assert keeper().hear(knock(one, 0), 1.0) is None
    assert isinstance(listener.hear(knock(one, 0), 1.0), Accepted)


@pytest.mark.parametrize("format", ["compact", "stealth"])
def test_bound_source(format: str) -> None:
    one = profile(format=format, bind_source=True)
    for source, other in ((SOURCE, bytes([192, 0, 2, 8])), (SOURCE6, SOURCE6[:-1] + b"\x08"), (SOURCE, SOURCE6)):
        listener = keeper(one)
        packet = knock(one, 0, source=source)
        assert hear(listener, packet._replace(source=other), packet) == ["unknown", "open"]
    mapped = bytes(10) + b"\xff\xff" + SOURCE
    assert hear(keeper(one), knock(one, 0)._replace(source=mapped)) == ["open"]


def test_without_binding_the_source_is_taken_from_the_packet() -> None:
    one = profile()
    event = keeper(one).hear(knock(one, 0)._replace(source=SOURCE6), 1.0)
    assert isinstance(event, Accepted)
    assert event.grant.address == SOURCE6


def test_a_profile_of_old_opens_any_tcp_port_and_nothing_else() -> None:
    old = Profile("old", bytes(16), bytes(16), KNOCK_PORT, "classic", legacy=True)
    listener = keeper(old)
    for counter, port in enumerate((1, 22, 443, 65535)):
        event = listener.hear(knock(old, counter, Request(Verb.OPEN, TCP, port)), 1.0)
        assert isinstance(event, Accepted)
        assert event.grant == Grant(Order.OPEN_ONCE, SOURCE, TCP, port, 15)
    assert hear(listener, knock(old, 4, Request(Verb.OPEN, TCP, 0))) == ["not permitted"]


def test_not_permitted_uses_the_counter_up() -> None:
    one = profile(ports="tcp/22,udp/51820")
    for request in (Request(Verb.OPEN, TCP, 23), Request(Verb.OPEN, UDP, 22), Request(Verb.CLOSE, TCP, 51820)):
        listener = keeper(one)
        event = listener.hear(knock(one, 3, request), 1.0)
        assert isinstance(event, Refused)
        assert (event.reason, event.profile, event.counter, event.request) == (
            Reason.NOT_PERMITTED,
            "alice",
            3,
            request,
        )
        assert hear(listener, knock(one, 3), knock(one, 2), knock(one, 4)) == ["replay", "replay", "open"]


@pytest.mark.parametrize("format", FORMATS)
def test_the_last_counter_is_the_last(format: str) -> None:
    one = profile(format=format)
    listener = keeper(one, at=MAX_COUNTER - 1)
    last = [knock(one, MAX_COUNTER - 1), knock(one, MAX_COUNTER)]
    assert hear(listener, *last) == ["open", "open"]
    assert hear(listener, *last, knock(one, 0), knock(one, 1), NOISE) == ["replay"] * 2 + ["unknown"] * 3
    assert hear(keeper(one, at=MAX_COUNTER + 1), *last, knock(one, 0)) == ["replay"] * 2 + ["unknown"]


def test_a_flood_is_counted_and_not_explained() -> None:
    one = profile()
    listener = keeper(one)
    first = [listener.hear(NOISE, 100.0) for _ in range(EXPLAINED_PER_SECOND)]
    assert [word(event) for event in first] == ["unknown"] * EXPLAINED_PER_SECOND
    assert [listener.hear(NOISE, 100.9) for _ in range(500)] == [None] * 500
    assert listener.hear(NOISE, 101.0) == Quiet(501)
    assert word(listener.hear(NOISE, 101.1)) == "unknown"


def test_a_flood_hides_no_knock() -> None:
    one = profile()
    listener = keeper(one)
    for counter in range(100):
        for _ in range(50):
            listener.hear(NOISE, 100.0 + counter / 200)
        packet = knock(one, counter)
        assert isinstance(listener.hear(packet, 100.0 + counter / 200), Accepted)
        assert not isinstance(listener.hear(packet, 100.0 + counter / 200), Accepted)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("seen", [3, 9], ids=["used", "unused"])
def test_repeating_a_part_of_a_knock_costs_no_keystreams(
    monkeypatch: pytest.MonkeyPatch, format: str, seen: int
) -> None:
    """Somebody saw a knock and repeats what the table knows of it; knocks are heard in between."""
    made, one = [0], profile(format=format)
    listener, before = keeper(one), seal.keystreams

    def counted(profile: Profile, first: int, count: int) -> list[bytes]:
        made[0] += 1
        return before(profile, first, count)

    known = knock(one, seen)
    assert isinstance(listener.hear(knock(one, 3), 1.0), Accepted)
    monkeypatch.setattr(seal, "keystreams", counted)
    for counter in (4, 5, 9, 10):
        for number in range(500):
            junk = known._replace(source=number.to_bytes(4), window=number, options=stamped(number))
            assert not isinstance(listener.hear(junk, 2.0), Accepted)
        assert isinstance(listener.hear(knock(one, counter), 2.0), Accepted)
    assert not isinstance(listener.hear(known, 2.0), Accepted)
    assert made[0] < 100, "2,000 packets"


def test_what_repeats_parts_of_more_knocks_than_are_kept_hides_none() -> None:
    ones = [profile(f"p{number}", mac_key=number.to_bytes(16)) for number in range(REPEATED // 16 + 1)]
    listener = keeper(*ones)
    for one in ones:
        for counter in range(16):
            assert not isinstance(listener.hear(knock(one, counter)._replace(window=1), 1.0), Accepted)
    assert window._expected.cache_info().currsize == REPEATED
    assert all(isinstance(listener.hear(knock(one, counter), 1.0), Accepted) for one in ones for counter in range(16))


def test_no_secret_in_any_text() -> None:
    one = profile(ports="tcp/22")
    listener = keeper(one)
    packets = [
        knock(one, 0),
        knock(one, 0),
        knock(one, 1, Request(Verb.OPEN, TCP, 23)),
        NOISE,
        *[NOISE] * EXPLAINED_PER_SECOND,
    ]
    events: list[object] = [listener.hear(packet, 1.0) for packet in packets]
    events += [listener.hear(NOISE, 2.5)]
    assert {type(event) for event in events} == {Accepted, Refused, Quiet, type(None)}
    texts = [form(thing) for thing in [*events, one, listener, [one], {"profile": one}] for form in (repr, str)]
    secrets = [one.cipher_key, one.mac_key, *(seal.seal(one, n, OPEN_22, SOURCE) for n in range(3))]
    secrets += seal.keystreams(one, 0, 25)
    for secret in secrets:
        forms = [secret.hex(), base64.b64encode(secret).decode(), repr(secret)[2:-1], str(list(secret))[1:-1]]
        forms.append(str(int.from_bytes(secret, "big")))
        assert [(text, form) for text in texts for form in forms if form in text] == []


def test_what_is_accepted_shows_no_field_that_carried_it() -> None:
    one = profile()
    packet = knock(one, 0)
    shown = repr(keeper(one).hear(packet, 1.0))
    assert [number for number in (packet.ident, packet.sequence, packet.window) if str(number) in shown] == []


@pytest.mark.parametrize("format", FORMATS)
def test_expiry_goes_by_the_clock_that_is_given(format: str) -> None:
    one = profile(format=format, expires=1000)
    listener = keeper(one)
    verdicts = []
    for number, clock in enumerate((998, 999, 1000, 5000, 999), 1):
        listener.move(clock)
        event = listener.hear(knock(one, number), 60.0 * number)
        verdicts.append((word(event), getattr(event, "counter", None)))
    assert [word for word, _ in verdicts] == ["Accepted", "Accepted", "expired", "expired", "Accepted"]
    assert [counter for _, counter in verdicts] == [1, 2, 3, 4, 5], "used up all the same"
    listener.move(2000)
    assert hear(listener, knock(one, 3)) == ["replay"]
