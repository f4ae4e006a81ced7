"""A knock opens a port: for its sender, for one connection, for a moment. Each format, address family and firewall."""

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from knockknock.profiles.counters import read_counter

from .lab import DELAY, Daemon, Lab, inside, until

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


HOLD = """
table inet hold {
    chain output {
        type filter hook output priority filter
        tcp dport 22 tcp flags != syn drop
    }
}
"""
"""On the client: its SYNs leave, and nothing after them."""


def half_open(lab: Lab, address: str, number: int) -> list[socket.socket]:
    """Connections whose SYN was answered and whose handshake the server has not seen completed."""
    lab.run("client", "nft", "-f", "-", text=HOLD)
    with inside(lab.ns("client")):
        return [socket.create_connection((address, 22), 0.5) for _ in range(number)]


def come_in(lab: Lab, callers: list[socket.socket], listener: socket.socket) -> int:
    """Let all callers go on; return the number of those that get in."""
    lab.run("client", "nft", "delete table inet hold")
    for caller in callers:
        with contextlib.suppress(ConnectionResetError):
            caller.send(b"?")
    listener.settimeout(0.5)
    number = 0
    with contextlib.suppress(TimeoutError):
        while True:
            listener.accept()[0].close()
            number += 1
    for caller in callers:
        caller.close()
    return number


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("firewall", ["nftables", "protect"])
def test_handshakes(firewall: str, family: int) -> None:
    """Many SYNs pass one door, one handshake does; after the door's time none."""
    lab, address = Lab(), SERVER[family]
    try:
        lab.guard(firewall)
        lab.mint("laptop")
        listener, daemon = lab.listen(22), lab.daemon()
        for wait, expected in ((0.0, 1), (DELAY + 1, 0)):
            known = daemon.log().count("open tcp/22")
            lab.knock(address)
            until(lambda known=known: daemon.log().count("open tcp/22") > known)  # type: ignore[misc]  # bound now
            callers = half_open(lab, address, 5)
            time.sleep(wait)
            assert come_in(lab, callers, listener) == expected
            assert not lab.connects(address)
    finally:
        lab.close()
