"""One-time passwords, for all sources, minutes and secrets."""

from hypothesis import assume, given
from hypothesis import strategies as st

from knockknock.events import Accepted
from knockknock.gatekeeper import Gatekeeper, Settings
from knockknock.packet import UDP, Packet
from knockknock.request import Verb, parse_ports
from knockknock.schemes import otp

SOURCES = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
MINUTES = st.integers(2, 2**32 - 3)
SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=16, max_size=128).map(str.encode)
PAIRS = st.tuples(SECRETS, SECRETS).filter(lambda pair: pair[0] != pair[1])
USED = st.frozensets(st.tuples(st.sampled_from(Verb), MINUTES, SOURCES), max_size=5)


def heard(one: otp.Profile, payload: bytes, source: bytes, minute: int) -> object:
    keeper = Gatekeeper(Settings(10, 32, True))
    keeper.add(one, otp.Memory(0))
    keeper.move(minute * 60)
    return keeper.hear(Packet(source, 1, one.knock_port, 0, 0, 0, 0, b"", payload, UDP, 0), 0)


@given(PAIRS, SOURCES, SOURCES, MINUTES, st.integers(-(2**31), 2**31), st.sampled_from(Verb))
def test_only_its_own_source_and_minute(
    pair: tuple[bytes, bytes], source: bytes, other: bytes, minute: int, off: int, verb: Verb
) -> None:
    one = otp.Profile("laptop", *pair, 4000, "portable", parse_ports("tcp/22"))
    payload = otp.sends(one, verb, 0, source, minute * 60)[0].payload
    event = heard(one, payload, source, minute)
    assert isinstance(event, Accepted)
    assert event.request.verb is verb
    assert event.grant.address == source
    assume(other != source and source[-4:] != other[-4:])
    assert not isinstance(heard(one, payload, other, minute), Accepted)
    assume(abs(off) > otp.TOLERANCE and 0 <= minute + off < 2**32)
    assert not isinstance(heard(one, payload, source, minute + off), Accepted)


@given(PAIRS, PAIRS, SOURCES, MINUTES)
def test_nobody_without_the_secrets(
    pair: tuple[bytes, bytes], others: tuple[bytes, bytes], source: bytes, minute: int
) -> None:
    assume(not set(pair) & set(others))
    one, other = (otp.Profile("laptop", *two, 4000, "portable", parse_ports("tcp/22")) for two in (pair, others))
    for verb in Verb:
        payload = otp.sends(other, verb, 0, source, minute * 60)[0].payload
        assert not isinstance(heard(one, payload, source, minute), Accepted)


@given(st.integers(0, 2**32), USED)
def test_memory_reads_back(floor: int, used: frozenset[otp.Used]) -> None:
    memory = otp.Memory(floor, used)
    assert otp.read_memory(otp.write_memory(memory), "") == memory


@given(SECRETS)
def test_secret_reads_back(secret: bytes) -> None:
    assert otp.read_key(otp.write_key(secret), "") == secret
