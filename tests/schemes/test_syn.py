"""Known answers of the encrypted SYN, made without our code, and what must be refused."""

import ipaddress
import json
import random
from pathlib import Path
from typing import Any

import pytest

from knockknock.core.events import Accepted, Event, Refused
from knockknock.core.headers import Carried
from knockknock.core.packet import Packet
from knockknock.core.profile import Settings
from knockknock.core.request import PROTOCOLS, Request, Verb, parse_ports
from knockknock.schemes.syn import seal, window
from knockknock.schemes.syn.profile import FORMATS, Profile
from knockknock.server.gatekeeper import Gatekeeper

from ..helpers import KNOCK_PORT, SOURCE, SOURCE6, keeper_of, knock, profile, seen

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "syn.json").read_text())
CASES, REJECTS = VECTORS["cases"], VECTORS["rejects"]
NAMES = [case["name"] for case in CASES]


def profile_of(case: dict[str, Any], **more: Any) -> Profile:
    """The profile that a vector names."""
    cipher_key, mac_key = bytes.fromhex(case["cipher_key"]), bytes.fromhex(case["mac_key"])
    return Profile("vector", cipher_key, mac_key, KNOCK_PORT, case["format"], **more)


def sealed_again(case: dict[str, Any], sender: Profile) -> bytes:
    """Seal a case again; an address that is not bound must not matter, so it is then one of no vector."""
    request = Request(Verb[case["verb"].upper()], PROTOCOLS[case["protocol"]], case["port"])
    return seal.seal(sender, case["counter"], request, ipaddress.ip_address(case["source"] or "198.51.100.99").packed)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_seal_gives_the_known_answer(case: dict[str, Any]) -> None:
    sender = profile_of(case, bind_source=case["source"] is not None)
    assert sealed_again(case, sender).hex() == case["sealed"]


@pytest.mark.parametrize("case", CASES, ids=NAMES)
@pytest.mark.parametrize("source", [SOURCE, SOURCE6], ids=["ident", "flow label"])
def test_header_fields_carry_the_known_answer(case: dict[str, Any], source: bytes) -> None:
    sealed = bytes.fromhex(case["sealed"])
    label = 0 if len(source) == 4 else random.randrange(16)
    packet = seen(seal.carry(case["format"], sealed), source, label=label)
    assert packet.ident >> 16 == label
    assert seal.carried(case["format"], packet) == sealed


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_known_answer_is_heard(case: dict[str, Any]) -> None:
    receiver = profile_of(case, bind_source=case["source"] is not None, ports=parse_ports("tcp/1-65535,udp/1-65535"))
    source = ipaddress.ip_address(case["source"] or "192.0.2.7").packed
    packet = seen(seal.carry(case["format"], bytes.fromhex(case["sealed"])), source)
    event = keeper_of([receiver], {"vector": case["counter"]}, 15, 20, True).hear(packet, 1.0)
    assert isinstance(event, Accepted)
    assert str(event.request) == f"{case['verb']} {case['protocol']}/{case['port']}"
    assert event.counter == case["counter"]


def verdict(event: Event | None) -> str:
    """An event in the words of the vectors."""
    if isinstance(event, Accepted):
        return event.request.verb.name.lower()
    assert isinstance(event, Refused)
    return event.reason.value


@pytest.mark.parametrize("case", REJECTS, ids=[case["name"] for case in REJECTS])
def test_verdict(case: dict[str, Any]) -> None:
    receiver = profile_of(case, bind_source=case["bind_source"], ports=parse_ports(case["ports"]))
    packet = seen(
        seal.carry(case["format"], bytes.fromhex(case["sealed"])), ipaddress.ip_address(case["source"]).packed
    )
    keeper = keeper_of([receiver], {"vector": case["next_counter"]}, 15, case["window"], True)
    assert verdict(keeper.hear(packet, 1.0)) == case["expect"]


def test_vectors_are_all_there() -> None:
    """A vector file that was cut short or emptied must not pass as success."""
    assert {case["format"] for case in CASES} == {case["format"] for case in REJECTS} == set(FORMATS)
    assert {case["expect"] for case in REJECTS} == {"open", "replay", "unknown", "not permitted"}
    assert {case["verb"] for case in CASES} == {"open", "close"}


# Where each format puts each byte, written out by hand from the protocol's table.
PLACES = [
    ("classic", 12, Carried(0x0001, 0x02030405, 0x06070809, window=0x0A0B)),
    ("compact", 8, Carried(0x0001, 0x02030405, window=0x0607)),
    ("stealth", 10, Carried(0x0001, 0x02030405, timestamp=0x06070809)),
]


@pytest.mark.parametrize(("format", "size", "fields"), PLACES)
def test_places(format: str, size: int, fields: Carried) -> None:
    assert seal.carry(format, bytes(range(size))) == fields


@pytest.mark.parametrize("format", ["compact", "stealth"])
def test_acknowledgment_number_is_no_knock(format: str) -> None:
    packet = seen(seal.carry(format, bytes(range(10)[: 8 if format == "compact" else 10])))
    assert seal.carried(format, packet) is not None
    assert seal.carried(format, packet._replace(acknowledgment=1)) is None


def test_stealth_needs_a_timestamp() -> None:
    packet = Packet(SOURCE, 40000, KNOCK_PORT, 1, 2, 0, 3)
    assert seal.carried("stealth", packet) is None
    assert seal.carried("compact", packet) == bytes.fromhex("0001000000020003")
    assert profile(format="stealth").needs == {"tcp timestamps"}
    assert profile(format="compact").needs == profile(format="classic").needs == frozenset()


@pytest.mark.parametrize("format", FORMATS)
def test_keystreams_in_one_call_are_those_of_each_counter(format: str) -> None:
    one = profile(format=format)
    together = seal.keystreams(one, 2**64 - 5, 5)
    assert together == [seal.keystreams(one, 2**64 - 5 + offset, 1)[0] for offset in range(5)]
    assert len(set(together)) == 5


def test_a_removed_profile_leaves_no_key_behind() -> None:
    """Neither expanded for the next knock, nor in what is cached against floods."""
    one = profile("gone")
    keeper = keeper_of([one], {"gone": 0}, 15, 20, True)
    assert isinstance(keeper.hear(knock(one, 3), 0.0), Accepted)
    assert isinstance(keeper.hear(knock(one, 3), 0.1), Refused)
    caches = (seal._encryptor, seal._keyed, window._expected)
    assert all(cache.cache_info().currsize for cache in caches)
    keeper.remove("gone")
    assert [cache.cache_info().currsize for cache in caches] == [0, 0, 0]


@pytest.mark.parametrize("changes", [{"format": "classic", "ports": "tcp/1-65535"}, {"bind_source": True}])
def test_junk_is_tried_within_bounds(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where knocks cannot be listed: beyond the bound only counters that are due are tried until the next second."""
    monkeypatch.setattr(window, "TRIES_PER_SECOND", 50)
    one, other = profile(**changes), profile("bob", knock_port=KNOCK_PORT + 1, **changes)
    keeper = keeper_of([one, other], {"alice": 0, "bob": 0}, 5, 20, True)

    def flood(now: float) -> None:
        port = knock(one, 9)._replace(window=1, acknowledgment=0)  # its port is right, its tag is not
        for _ in range(60):
            assert not isinstance(keeper.hear(port, now), Accepted)

    flood(5.0)
    assert not isinstance(keeper.hear(knock(one, 5), 5.9), Accepted)
    assert isinstance(keeper.hear(knock(one, 0), 5.9), Accepted), "it is due"
    assert isinstance(keeper.hear(knock(other, 5), 5.9), Accepted)
    assert isinstance(keeper.hear(knock(one, 5), 6.0), Accepted)


def test_a_good_knock_that_was_not_tried_is_not_called_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found when a reason for its refusal is looked for."""
    monkeypatch.setattr(window, "TRIES_PER_SECOND", 0)
    one = profile(bind_source=True)
    assert isinstance(keeper_of([one], {"alice": 0}, 5, 20, True).hear(knock(one, 5), 5.0), Accepted)


def test_resynchronisation_has_no_such_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "TRIES_PER_SECOND", 0)
    one = profile()
    keeper = Gatekeeper(Settings(5, 20, True, resync=1000))
    keeper.add(one, 0)
    assert not isinstance(keeper.hear(knock(one, 500), 5.0), Accepted)
    assert isinstance(keeper.hear(knock(one, 501), 5.1), Accepted)
