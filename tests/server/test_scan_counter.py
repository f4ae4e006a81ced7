"""The daemon's count of closed ports: the same as a plain one over all that was, and bounded."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockknock.errors import ConfigError
from knockknock.server import scan_counter
from knockknock.server.config import Config, parse

CONFIG = Config(scan_guard=True, scan_count="daemon", scan_ports=3, scan_seconds=10)


def host(text: str) -> bytes:
    return ip_address(text).packed


TRIES = [
    ("at the fourth", [("192.0.2.1", port, 0.0) for port in (1, 2, 3, 4)], ["192.0.2.1"]),
    ("not at the third", [("192.0.2.1", port, 0.0) for port in (1, 2, 3)], []),
    ("again is nothing", [("192.0.2.1", 1 + number % 3, number / 10) for number in range(90)], []),
    (
        "again does not prolong",
        [("192.0.2.1", 1, 0.0), ("192.0.2.1", 1, 9.9), *(("192.0.2.1", port, 10.0) for port in (2, 3, 4))],
        [],
    ),
    ("again after its time", [("192.0.2.1", p, p // 5 * 10.0) for p in (1, 2, 3, 3, 5, 6, 7)], []),
    ("forgotten one by one", [("192.0.2.1", p, p * 4.0) for p in range(1, 30)], []),
    ("not yet forgotten", [("192.0.2.1", p, p * 3.3) for p in range(1, 5)], ["192.0.2.1"]),
    ("sources by themselves", [(f"192.0.2.{p}", p, 0.0) for p in range(1, 9)], []),
    ("a network of IPv6", [(f"2001:db8::{p}", p, 0.0) for p in range(1, 5)], ["2001:db8::/64"]),
    ("networks of IPv6", [(f"2001:db8:0:{p}::1", p, 0.0) for p in range(1, 5)], []),
    ("once for what was under way", [("192.0.2.1", p, p / 1000) for p in range(1, 1000)], ["192.0.2.1"]),
    ("not forgiven", [("192.0.2.1", p, p // 4 * 2.0) for p in (1, 2, 3, 4, 5)], ["192.0.2.1"]),
    ("not forgiven later", [("192.0.2.1", p, p // 4 * 2.0) for p in (1, 2, 3, 4, 8)], ["192.0.2.1"] * 2),
]  # fmt: skip


@pytest.mark.parametrize(("what", "tries", "shut_out"), TRIES, ids=[what for what, _, _ in TRIES])
def test_tries(what: str, tries: list[tuple[str, int, float]], shut_out: list[str]) -> None:
    counter = scan_counter.PortCounter(CONFIG)
    found = [counter.tried(host(source), port, now) for source, port, now in tries]
    assert [scan_counter.shown(one) for one in found if one] == shut_out


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(0, 4)), max_size=60),
    st.integers(1, 3),
    st.integers(1, 12),
)
def test_as_a_plain_count(steps: list[tuple[int, int, int]], ports: int, seconds: int) -> None:
    """Against one that keeps everything and looks through all of it."""
    counter = scan_counter.PortCounter(CONFIG._replace(scan_ports=ports, scan_seconds=seconds))
    first: list[tuple[int, int, int, bool]] = []
    shut: dict[int, int] = {}
    now = 0
    for source, port, pause in steps:
        now += pause
        live = [one for one in first if now - one[2] < seconds]
        expected = False
        if not any(one[:2] == (source, port) for one in live) and now - shut.get(source, -9) >= scan_counter.LATE:
            expected = sum(one[0] == source and one[3] for one in live) >= ports
            first.append((source, port, now, not expected))
            if expected:
                shut[source] = now
        assert bool(counter.tried(host(f"192.0.2.{source}"), port, float(now))) == expected


def test_bounded() -> None:
    """Ports beyond the limit are not counted, and shut nobody out; when others are forgotten, there is room again."""
    counter = scan_counter.PortCounter(CONFIG)
    for number in range(scan_counter.MOST + 1000):
        assert counter.tried(number.to_bytes(4, "big"), 1, 0.0) is None
    for port in range(1, 20):
        assert counter.tried(host("192.0.2.1"), port, 1.0) is None
    found = [counter.tried(host("192.0.2.1"), port, 11.0) for port in range(1, 5)]
    assert found == [None, None, None, ip_network("192.0.2.1")]


def test_allowed() -> None:
    counter = scan_counter.PortCounter(CONFIG._replace(scan_allow=("192.0.2.0/24",)))
    for port in range(1, 20):
        assert counter.tried(host("192.0.2.1"), port, 0.0) is None
    later = counter.again(CONFIG)
    assert [later.tried(host("192.0.2.1"), port, 0.0) is None for port in (1, 2, 3, 4)] == [True, True, True, False]


@pytest.mark.parametrize(
    "text", ["192.0.2.1/24", "nonsense", "", "2001:db8::/129", "0/0", "192.0.2.0/24; 10.0.0.0/8 x"]
)
def test_networks_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="config:2: scan_allow"):
        parse(f"[main]\nscan_allow = {text or ','}\n", "config")


def test_settings() -> None:
    config = parse("[main]\nscan_guard = on\nscan_block = forever\nscan_allow = 192.0.2.1, 2001:db8::/32\n", "config")
    assert (config.scan_guard, config.scan_block) == (True, 0)
    assert config.scan_allow == ("192.0.2.1/32", "2001:db8::/32")
