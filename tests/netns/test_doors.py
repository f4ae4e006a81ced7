"""A knock opens a port: for its sender, for one connection, for a moment. Each format, address family and firewall."""

import time
from collections.abc import Iterator

import pytest

from knockknock.counters import read_counter

from .lab import DELAY, Daemon, Lab

SERVER = {4: "10.77.0.1", 6: "fd77:0::1"}
OTHER = {4: "10.77.1.1", 6: "fd77:1::1"}
"""The server, as the third host sees it."""


@pytest.fixture(scope="module")
def daemon(walled: Lab) -> Iterator[Daemon]:
    for kind in ("compact", "classic", "stealth"):
        walled.mint(kind, "--format", kind, hosts=())
    walled.mint("bound", "--bind-source", "--ports", "tcp/22,udp/5353,tcp/8000-8002", hosts=())
    walled.listen(22)
    before = walled.ruleset()
    one = walled.daemon()
    yield one
    assert one.stop() == 0
    assert walled.ruleset() == before, "something of ours was left behind, or something of others was changed"


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind", ["compact", "classic", "stealth", "bound"])
def test_opens_once_for_one_source(walled: Lab, daemon: Daemon, kind: str, family: int) -> None:
    address = SERVER[family]
    walled.hand_over(kind, address)
    counter = daemon_counter(walled, kind)
    (walled.home / ".knockknock" / address / "counter").write_text(f"{counter}\n")
    assert not walled.connects(address), "the port is open before the knock"
    walled.knock(address)
    daemon.says(f"{kind}: open tcp/22 for")
    assert not walled.connects(OTHER[family], host="other"), "the port is open for a third host"
    assert walled.opens(address), daemon.log()
    assert not walled.connects(address), "a second connection came in"


def test_door_closes_unused(walled: Lab, daemon: Daemon) -> None:
    walled.hand_over("compact", SERVER[4])
    (walled.home / ".knockknock" / SERVER[4] / "counter").write_text(f"{daemon_counter(walled, 'compact')}\n")
    walled.knock(SERVER[4])
    time.sleep(DELAY + 1)
    assert not walled.connects(SERVER[4])


def daemon_counter(lab: Lab, profile: str) -> int:
    """The counter that the server expects next."""
    return read_counter(f"{lab.settings['state']}/{profile}")
