"""Everything that is read from files: what was written is read, and nothing makes a parser fall over."""

import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from knockknock.core import dates, ini
from knockknock.core.counter_text import MAX_COUNTER
from knockknock.core.key_text import parse_key, write_key
from knockknock.core.request import Ports, parse_ports, permitted
from knockknock.errors import ConfigError, CounterError, ProfileError
from knockknock.profiles import counters
from knockknock.profiles.text import check_name, parse_config, write_config
from knockknock.schemes.syn.profile import Profile
from knockknock.server import config
from knockknock.server.config import Config

from ..helpers import completed
from .strategies import keys, profiles, runs

WHERE = "/some/where/config"
paths = st.from_regex(r"/[A-Za-z0-9._ -]{0,20}[A-Za-z0-9._]", fullmatch=True).map(lambda path: path.replace(" ", "/ "))
words = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,10}", fullmatch=True)


doors = st.builds(
    lambda protocol, first, more: (protocol, first, min(first + more, 65535)),
    st.sampled_from([6, 17]),
    st.integers(1, 65535),
    st.integers(0, 100),
)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Any configuration that can be written."""
    return Config(
        draw(st.integers(1, config.MAX_DELAY)),
        draw(st.integers(1, 1000)),
        draw(st.booleans()),
        draw(st.sampled_from(["auto", "file", "kmsg", "nflog"])),
        draw(paths),
        draw(st.integers(1, 0xFFFF)),
        tuple(draw(st.lists(doors))),
        draw(st.booleans()),
        (),
        draw(st.integers(0, 126)),
        (),
        draw(words),
        draw(paths),
        draw(paths),
        draw(st.sampled_from(["stderr", "syslog"])),
        scan_allow=tuple(draw(st.lists(st.sampled_from(["192.0.2.0/24", "198.51.100.7/32", "2001:db8::/32"])))),
    )


def numbers(listed: Iterable[tuple[int, int, int]]) -> list[tuple[int, int]]:
    return [(protocol, port) for protocol, first, last in listed for port in range(first, last + 1)]


def written(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(
            one if isinstance(one, str) else f"{'tcp' if one[0] == 6 else 'udp'}/{one[1]}-{one[2]}" for one in value
        )
    return str(value)


@given(configs(), st.randoms(use_true_random=False), st.sampled_from([" = ", "=", ": ", "\t=\t"]))
def test_configuration(one: Config, order: random.Random, sign: str) -> None:
    lines = [f"{key}{sign}{written(value)}" for key, value in one._asdict().items() if value not in ("", ())]
    order.shuffle(lines)
    read = config.parse("\n".join(["# made", "[main]", *lines]), WHERE)
    assert read._replace(protect=()) == one._replace(protect=())
    assert numbers(read.protect) == sorted(set(numbers(one.protect))), "runs that overlap are one"


marks = ["[main]", "[", "]", "=", ":", " ", "\n", "\r", "\t", "#", ";", "\n  ", "\0", "\x85", "%(a)s", "[DEFAULT]", "é"]
parts = [
    "main",
    "delay",
    "knock_port",
    "format",
    "ports",
    "bind_source",
    "tcp/22",
    "compact",
    "4242",
    "yes",
    "\n[main]\n",
]
pieces = st.sampled_from([*marks, *parts])
texts = st.text(max_size=200) | st.lists(pieces, max_size=30).map("".join)


@given(texts)
@pytest.mark.parametrize("parse", [config.parse, parse_config])
def test_any_text_is_read_or_refused_with_its_place(parse: Callable[[str, str], object], text: str) -> None:
    try:
        parse(text, WHERE)
    except ConfigError as error:
        sentence = str(error)
        assert sentence.startswith(f"{WHERE}:")


@given(st.lists(st.sampled_from(["", "# a", "; b"]), max_size=8), st.lists(st.sampled_from(["", "# c"]), max_size=8))
def test_the_line_of_a_complaint_is_the_line(before: list[str], between: list[str]) -> None:
    known: ini.Keys = {"good": ini.whole(1, 9), "bad": ini.whole(1, 9)}
    lines = [*before, "[main]", "good = 1", *between, "bad = 0", "# bad = 1"]
    with pytest.raises(ConfigError, match=f"^{WHERE}:{lines.index('bad = 0') + 1}: bad: "):
        ini.read("\n".join(lines), WHERE, known)


@given(st.integers(0, 2**37))
def test_moment(seconds: int) -> None:
    assert dates.parse(dates.show(seconds)) == seconds


@given(st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?Z)?") | st.text(max_size=20))
def test_any_text_as_a_moment(text: str) -> None:
    for parse in (dates.parse, dates.span):
        try:
            seconds = parse(text)
        except ConfigError:
            continue
        assert seconds >= 0


@given(profiles(), st.booleans())
def test_profile_config(one: Profile, clock: bool) -> None:
    one = one._replace(clock=clock and one.format != "classic")
    assert completed(parse_config(write_config(one), WHERE), one) == one


@given(
    st.lists(runs(st.sampled_from([6, 17])), min_size=1, max_size=8).map(tuple), st.sampled_from([",", ", ", " ,\n "])
)
def test_ports(ports: tuple[Ports, ...], comma: str) -> None:
    assert parse_ports(comma.join(map(str, ports))) == ports


@given(st.text("tcpud/-, 0123456789", max_size=40) | st.text(max_size=40))
def test_any_text_as_ports(text: str) -> None:
    try:
        ports = parse_ports(text)
    except ConfigError:
        return
    assert len(ports) == text.count(",") + 1
    assert all(one.protocol in (6, 17) and 1 <= one.first <= one.last <= 65535 for one in ports)


@given(st.lists(runs(st.sampled_from([6, 17])), max_size=5), st.sampled_from([6, 17]), st.integers(0, 65536))
def test_permitted(ports: list[Ports], protocol: int, port: int) -> None:
    doors = {(one.protocol, number) for one in ports for number in range(one.first, one.last + 1)}
    assert permitted(ports, protocol, port) is ((protocol, port) in doors)


@given(keys)
def test_key(key: bytes) -> None:
    assert parse_key(write_key(key), WHERE) == key


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: write_key(data)))
def test_any_text_as_a_key(text: str) -> None:
    try:
        key = parse_key(text, WHERE)
    except ProfileError as error:
        sentence = str(error)
        assert sentence == f"{WHERE}: not a key: base64 of 16 or 32 bytes is expected"
    else:
        assert len(key) in (16, 32)


@given(st.text(max_size=70))
def test_names_are_safe_in_paths(text: str) -> None:
    try:
        name = check_name(text)
    except ProfileError:
        return
    assert os.path.normpath(f"/a/{name}/b") == f"/a/{name}/b"
    assert name.isascii()
    assert name.isprintable()
    assert not name.startswith((".", "-"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("counter")


@given(counter=st.integers(0, MAX_COUNTER + 1))
def test_counter(place: Path, counter: int) -> None:
    counters.store_counter(str(place / "counter"), counter)
    assert counters.read_counter(str(place / "counter")) == counter


@given(data=st.binary(max_size=40) | st.text("0123456789 \n-+", max_size=25).map(str.encode))
@example(data=b"\x1c0")
@example(data="\u30000".encode())
def test_any_bytes_as_a_counter(place: Path, data: bytes) -> None:
    (place / "any").write_bytes(data)
    try:
        counter = counters.read_counter(str(place / "any"))
    except CounterError:
        return
    assert 0 <= counter <= MAX_COUNTER + 1
    assert int(data) == counter
