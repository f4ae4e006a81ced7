"""One-time passwords, for all sources, minutes and secrets."""

from hypothesis import assume, given
from hypothesis import strategies as st

from knockknock.core.events import Accepted
from knockknock.core.packet import UDP, Packet
from knockknock.core.profile import Settings
from knockknock.core.request import Verb, parse_ports
from knockknock.schemes.otp import profile
from knockknock.server.gatekeeper import Gatekeeper

SOURCES = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
MINUTES = st.integers(2, 2**32 - 3)
SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=16, max_size=128).map(str.encode)
PAIRS = st.tuples(SECRETS, SECRETS).filter(lambda pair: pair[0] != pair[1])
USED = st.frozensets(st.tuples(st.sampled_from(Verb), MINUTES, SOURCES), max_size=5)


def heard(one: profile.Profile, payload: bytes, source: bytes, minute: int) -> object:
    keeper = Gatekeeper(Settings(10, 32, True))
    keeper.add(one, profile.Memory(0))
    keeper.move(minute * 60)
    return keeper.hear(Packet(source, 1, one.knock_port, 0, 0, 0, 0, b"", payload, UDP, 0), 0)


@given(PAIRS, SOURCES, SOURCES, MINUTES, st.integers(-(2**31), 2**31), st.sampled_from(Verb))
def test_only_its_own_source_and_minute(
    pair: tuple[bytes, bytes], source: bytes, other: bytes, minute: int, off: int, verb: Verb
) -> None:
    one = profile.Profile("laptop", *pair, 4000, "portable", parse_ports("tcp/22"))
    payload = profile.sends(one, verb, 0, source, minute * 60)[0].payload
    event = heard(one, payload, source, minute)
    assert isinstance(event, Accepted)
    assert event.request.verb is verb
    assert event.grant.address == source
    assume(other != source and source[-4:] != other[-4:])
    assert not isinstance(heard(one, payload, other, minute), Accepted)
    assume(abs(off) > profile.TOLERANCE and 0 <= minute + off < 2**32)
    assert not isinstance(heard(one, payload, source, minute + off), Accepted)


@given(PAIRS, PAIRS, SOURCES, MINUTES)
def test_nobody_without_the_secrets(
    pair: tuple[bytes, bytes], others: tuple[bytes, bytes], source: bytes, minute: int
) -> None:
    assume(not set(pair) & set(others))
    one, other = (profile.Profile("laptop", *two, 4000, "portable", parse_ports("tcp/22")) for two in (pair, others))
    for verb in Verb:
        payload = profile.sends(other, verb, 0, source, minute * 60)[0].payload
        assert not isinstance(heard(one, payload, source, minute), Accepted)


@given(st.integers(0, 2**32), USED)
def test_memory_reads_back(floor: int, used: frozenset[profile.Used]) -> None:
    memory = profile.Memory(floor, used)
    assert profile.read_memory(profile.write_memory(memory), "") == memory


@given(SECRETS)
def test_secret_reads_back(secret: bytes) -> None:
    assert profile.read_key(profile.write_key(secret), "") == secret
