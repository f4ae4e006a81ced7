"""One-time passwords: known answers made by openssl, what is obeyed when, and what is remembered."""

import hmac
import json
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from knockknock.core.events import Accepted, Event, Quiet, Refused, Several
from knockknock.core.packet import TCP, UDP, Packet
from knockknock.core.profile import Settings
from knockknock.core.request import Verb, parse_ports
from knockknock.errors import ConfigError, CounterError
from knockknock.profiles import files, mint
from knockknock.profiles.text import parse_config, write_config
from knockknock.root.record import Order
from knockknock.schemes.otp import profile as otp
from knockknock.server import instance, loading
from knockknock.server.config import Config
from knockknock.server.gatekeeper import Gatekeeper

from ..helpers import SOURCE, SOURCE6

VECTORS = Path(__file__).parents[1] / "vectors"
CASES = json.loads((VECTORS / "otp.json").read_text())["cases"]
MINUTE = 29_380_000
CLOCK = MINUTE * 60 + 30
PORT = 4000


def profile(name: str = "laptop", layout: str = "portable", ports: str = "tcp/22") -> otp.Profile:
    return otp.Profile(name, b"open sesame, o barley", b"close sesame, o barley", PORT, layout, parse_ports(ports))


def keeper(*profiles: otp.Profile, clock: int = CLOCK, memory: otp.Memory | None = None) -> Gatekeeper:
    made = Gatekeeper(Settings(10, 32, True))
    for one in profiles:
        made.add(one, memory or otp.read_memory(otp.first(one), ""))
    made.move(clock)
    return made


def packet(payload: bytes, source: bytes = SOURCE, **more: int) -> Packet:
    return Packet(source, 40000, PORT, 7, 0, 0, 0, b"", payload, UDP, 0)._replace(**more)  # type: ignore[arg-type]  # tests name int fields


def knock(one: otp.Profile, ahead: int = 0, verb: Verb = Verb.OPEN, source: bytes = SOURCE) -> Packet:
    """A datagram as it arrives; ahead: minutes by which the sender's clock is."""
    (sending,) = otp.sends(one, verb, 0, source, CLOCK + 60 * ahead)
    assert sending[:2] == (UDP, PORT)
    return packet(sending.payload, source)


def outcome(event: Event | None) -> str:
    if isinstance(event, Refused):
        return event.reason.value
    return type(event).__name__


def test_vectors_are_what_openssl_makes() -> None:
    made = subprocess.run([VECTORS / "make-otp"], capture_output=True, text=True, check=True).stdout
    assert made == (VECTORS / "otp.json").read_text()


@pytest.mark.parametrize("case", CASES, ids=[f"{c['layout']}-{c['order']}-{c['source']}-{c['minute']}" for c in CASES])
def test_known_answers(case: dict[str, str | int]) -> None:
    source = ip_address(case["source"]).packed
    order = "little" if case["order"] == "little" else "big"
    text = otp.message(str(case["layout"]), source, int(case["minute"]), order)  # type: ignore[arg-type]  # one of two
    assert text is not None
    assert hmac.new(str(case["secret"]).encode(), text, "sha256").hexdigest() == case["payload"]


@pytest.mark.parametrize(
    "case", [case for case in CASES if case["order"] == sys.byteorder or case["layout"] != "pknock"]
)
@pytest.mark.parametrize("more", ["", "\n", "x"])
def test_known_answers_open(case: dict[str, str | int], more: str) -> None:
    """The listener takes each on its minute, with a byte behind or not."""
    one = profile(layout=str(case["layout"]))._replace(opensecret=str(case["secret"]).encode())
    heard = keeper(one, clock=int(case["minute"]) * 60).hear(
        packet((str(case["payload"]) + more).encode(), ip_address(case["source"]).packed), 0
    )
    assert isinstance(heard, Accepted)
    assert heard.grant.order is Order.OPEN_ONCE


@pytest.mark.parametrize("layout", otp.LAYOUTS)
@pytest.mark.parametrize(("ahead", "expected"), [(-2, "unknown"), (-1, "Accepted"), (1, "Accepted"), (2, "unknown")])
def test_minutes(layout: str, ahead: int, expected: str) -> None:
    one = profile(layout=layout)
    assert outcome(keeper(one).hear(knock(one, ahead), 0)) == expected


def test_each_is_obeyed_once() -> None:
    """Per source, minute and secret; a restart or a reload changes nothing."""
    one = profile()
    listener = keeper(one)
    first = listener.hear(knock(one), 0)
    assert isinstance(first, Accepted)
    assert isinstance(first.memory, str)
    assert first.memory.startswith(f"floor {MINUTE - 1}\nopen {MINUTE} c0000207\ncrc32 ")
    assert outcome(listener.hear(knock(one), 0)) == "replay"
    assert outcome(listener.hear(packet(knock(one).payload + b"\n"), 0)) == "replay", "another byte behind"
    listener.add(one._replace(ports=parse_ports("tcp/80")), otp.Memory(0))
    assert outcome(listener.hear(knock(one), 0)) == "replay"
    again = keeper(one, memory=otp.recall(one, first.memory, "", CLOCK))
    assert outcome(again.hear(knock(one), 0)) == "replay"
    for other in (knock(one, verb=Verb.CLOSE), knock(one, 1), knock(one, source=SOURCE6)):
        assert outcome(again.hear(other, 0)) == "Accepted"


def test_what_is_past_is_forgotten_and_stays_refused() -> None:
    """Also when the server's clock goes back."""
    one = profile()
    listener = keeper(one)
    listener.hear(knock(one), 0)
    listener.move(CLOCK + 180)
    late = listener.hear(knock(one, 3), 0)
    assert isinstance(late, Accepted)
    assert str(late.memory).startswith(f"floor {MINUTE + 2}\nopen {MINUTE + 3} c0000207\ncrc32 ")
    listener.move(CLOCK)
    assert outcome(listener.hear(knock(one), 0)) == "replay"


def test_a_lost_memory_costs_two_minutes() -> None:
    one = profile()
    listener = keeper(one, memory=otp.recall(one, None, "", CLOCK))
    assert outcome(listener.hear(knock(one), 0)) == "replay"
    assert outcome(listener.hear(knock(one, 1), 0)) == "replay"
    listener.move(CLOCK + 120)
    assert outcome(listener.hear(knock(one, 2), 0)) == "Accepted"


def test_memory_is_bounded() -> None:
    """Whoever has the secret and a million addresses fills no disk; a file is never longer than can be read."""
    one = profile()
    used = frozenset((Verb.CLOSE, MINUTE, number.to_bytes(16, "big")) for number in range(otp.MAX_USED))
    listener = keeper(one, memory=otp.Memory(MINUTE - 1, used))
    assert len(otp.write_memory(otp.Memory(MINUTE, used))) < files.MAX_FILE
    assert outcome(listener.hear(knock(one), 0)) == "not permitted"
    listener.move(CLOCK + 120)
    assert outcome(listener.hear(knock(one, 2), 0)) == "Accepted"


def test_opens_and_closes_all_ports() -> None:
    one = profile(ports="tcp/22, udp/51820-51821")
    listener = keeper(one)
    heard = listener.hear(knock(one), 0)
    assert isinstance(heard, Several)
    accepted = [event for event in heard.events if isinstance(event, Accepted)]
    assert [(event.grant.protocol, event.grant.port) for event in accepted] == [(6, 22), (17, 51820), (17, 51821)]
    assert all(event.memory for event in accepted), "no door opens before it is stored that the datagram is used up"
    closed = listener.hear(knock(one, verb=Verb.CLOSE), 0)
    assert isinstance(closed, Several)
    assert all(isinstance(event, Accepted) and event.grant.order is Order.CLOSE for event in closed.events)


def test_profiles_share_a_port() -> None:
    """Each is known by its secret, and remembers for itself."""
    one = profile()
    other = profile("desk", "pknock")._replace(opensecret=b"foo", closesecret=b"bar")
    listener = keeper(one, other)
    for sender in (one, other):
        heard = listener.hear(knock(sender), 0)
        assert isinstance(heard, Accepted)
        assert heard.profile == sender.name
    listener.remove("laptop")
    assert outcome(listener.hear(knock(one, 1), 0)) == "unknown"
    assert outcome(listener.hear(knock(other, 1), 0)) == "Accepted"


@pytest.mark.parametrize("payload", [b"", b"0" * 63, b"0" * 66, b"F" * 64, b"0 " * 32, b"\xff" * 64])
def test_junk(payload: bytes) -> None:
    assert outcome(keeper(profile()).hear(packet(payload), 0)) == "unknown"


def test_not_by_tcp() -> None:
    one = profile()
    assert keeper(one).hear(knock(one)._replace(protocol=TCP, flags=2), 0) is None


def test_junk_is_told_of_ten_times_a_second_and_tried_within_bounds() -> None:
    """So many profiles that few datagrams can be tried; the next second everything is heard again."""
    profiles = [profile(f"p{number}")._replace(opensecret=b"%021d" % number) for number in range(2000)]
    listener = keeper(*profiles)
    told = [listener.hear(packet(b"%064x" % number), 5.0) for number in range(20)]
    assert [outcome(event) for event in told] == ["unknown"] * 10 + ["NoneType"] * 10
    assert listener.hear(knock(profiles[0]), 5.5) is None, "tried, though there were more than enough before"
    assert listener.hear(packet(b"x"), 6.1) == Quiet(12)
    assert outcome(listener.hear(knock(profiles[0]), 6.2)) == "Accepted"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ports = tcp/22", "there must be a line knock_port"),
        ("knock_port = 4000", "there must be a line ports"),
        ("knock_port = 4000\nports = tcp/1-17", "at most 16"),
        ("knock_port = 4000\nports = tcp/22\notp_layout = big", "'big' is not one of portable, pknock"),
        ("knock_port = 4000\nports = tcp/22\nformat = compact", "there is no key 'format'"),
        ("knock_port = 4000\nports = tcp/22\nopensecret = x", "there is no key 'opensecret'"),
    ],
)
def test_bad_configs(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_config(f"[main]\nscheme = otp\n{text}\n", "config")


def test_config_reads_back() -> None:
    one = profile("", ports="tcp/22, udp/1-2")._replace(opensecret=b"", closesecret=b"", single_use=False)
    assert parse_config(write_config(one), "config") == one


@pytest.mark.parametrize(
    ("layout", "opensecret", "closesecret", "sentence"),
    [
        ("portable", "the same for both\n", "the same for both\n", "must differ"),
        ("portable", "too short\n", "long enough by far\n", "fewer than 16"),
        ("pknock", "foo\n", "\n", "one line of 1 to 128"),
        ("pknock", "foo\nbar\n", "bar\n", "one line of 1 to 128"),
    ],
    ids=["same", "short", "empty", "lines"],
)
def test_bad_secrets(tmp_path: Path, layout: str, opensecret: str, closesecret: str, sentence: str) -> None:
    """Each is refused when the daemon starts, in a sentence that shows none of it."""
    place = tmp_path / "profiles" / "laptop"
    place.mkdir(parents=True)
    for file, text in (
        ("config", write_config(profile(layout=layout))),
        ("opensecret", opensecret),
        ("closesecret", closesecret),
    ):
        (place / file).write_text(text)
        (place / file).chmod(0o600)
    config = Config(profiles=str(tmp_path / "profiles"), state=str(tmp_path))
    found = loading.look(config, frozenset({"payload"}))
    assert sentence in str(found.bad["laptop"])
    assert not found.changes
    assert all(word not in str(found.bad["laptop"]) for word in (opensecret.strip(), "foo") if word)


@pytest.mark.parametrize("place", ["profiles", "profiles.db"])
def test_minted_in_directory_and_database(tmp_path: Path, place: str) -> None:
    one, where = profile(), str(tmp_path / place)
    mint.mint(where, str(tmp_path / "state"), one, (-1, -1), instance.reload)
    config = Config(profiles=where, state=str(tmp_path / "state"))
    found = loading.look(config, frozenset({"payload"}))
    assert (found.bad, found.changes) == ({}, [(one, otp.Memory(0))])
    mint.create_profile(str(tmp_path / "copy"), one, -1)
    copied = files.load_profile(str(tmp_path / "copy"))
    assert (copied.name, copied._replace(name="laptop")) == ("copy", one)  # type: ignore[attr-defined]  # a named tuple


def test_source_without_payload_is_refused(tmp_path: Path) -> None:
    mint.mint(str(tmp_path / "profiles"), str(tmp_path / "state"), profile(), (-1, -1), instance.reload)
    config = Config(profiles=str(tmp_path / "profiles"), state=str(tmp_path / "state"))
    found = loading.look(config, frozenset({"tcp timestamps"}))
    assert str(found.bad["laptop"]).endswith("needs a source that gives payload: set source = nflog")


def test_damaged_memory(tmp_path: Path) -> None:
    with pytest.raises(CounterError, match="does not hold used one-time passwords"):
        otp.recall(profile(), "floor 1\nopen 1 c0\n", str(tmp_path), 0)


def test_a_flipped_bit_of_the_memory_forgets_nothing() -> None:
    """It is an error, whichever bit; what was written without a checksum is still read."""
    memory = otp.Memory(MINUTE - 1, frozenset({(Verb.OPEN, MINUTE, SOURCE), (Verb.CLOSE, MINUTE, SOURCE6)}))
    data = otp.write_memory(memory).encode()
    assert otp.read_memory(data.decode(), "") == memory
    assert otp.read_memory(data.decode().partition("crc32")[0], "") == memory
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CounterError, match="does not hold used one-time passwords"):
            otp.read_memory(damaged.decode("utf-8", "replace"), "")


def test_repr_shows_no_secret() -> None:
    assert "sesame" not in repr(profile())
