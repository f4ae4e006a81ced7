"""Ends of an opening: by use, by time, by request; and by itself when every process of ours is killed."""

import os
import signal
import socket
import time
from functools import partial
from pathlib import Path

import pytest

from .lab import DELAY, Lab, gone, inside, until

HOST = "10.77.0.1"


def udp(lab: Lab, host: str, address: tuple[str, int]) -> socket.socket:
    """A UDP socket on a host, bound to an address."""
    with inside(lab.ns(host)):
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(address)
    one.settimeout(0.5)
    return one


def arrives(caller: socket.socket, service: socket.socket, text: bytes) -> bool:
    """Return True if a datagram gets to a service."""
    caller.sendto(text, (HOST, 5353))
    try:
        return service.recv(100) == text
    except TimeoutError:
        return False


def test_udp_connection_goes_on_and_no_second_one_comes_in(walled: Lab) -> None:
    walled.mint("dns", "--ports", "udp/5353")
    daemon = walled.daemon()
    first, second = (udp(walled, "client", ("10.77.0.2", 0)) for _ in range(2))
    with udp(walled, "server", (HOST, 5353)) as service, first, second:
        assert not arrives(first, service, b"before")
        walled.knock(HOST, ports=("5353/udp",))
        daemon.says("open udp/5353")
        assert all(arrives(first, service, b"%d" % number) for number in range(3)), "before the first answer"
        assert not arrives(second, service, b"second")
        time.sleep(DELAY + 0.5)
        assert arrives(first, service, b"after the time"), "a connection outlives its door"
    daemon.stop()


def test_retransmitted_syn_passes(walled: Lab) -> None:
    """The first SYN gets no answer; the client's kernel sends it again after a second, while the door is open."""
    walled.mint("slow", "--ports", "tcp/2200")
    walled.listen(2200)
    daemon = walled.daemon()
    walled.run("server", "nft", "add table ip mute; add chain ip mute out { type filter hook output priority raw; }")
    walled.run("server", "nft", "add rule ip mute out tcp sport 2200 drop")
    walled.knock(HOST, ports=("2200",))
    daemon.says("open tcp/2200")
    with inside(walled.ns("client")):
        caller = socket.socket()
    with caller:
        caller.setblocking(False)
        caller.connect_ex((HOST, 2200))
        time.sleep(0.3)
        walled.run("server", "nft", "delete table ip mute")
        until(lambda: caller.connect_ex((HOST, 2200)) in (0, 106), 3)
        assert not walled.connects(HOST, 2200), "it has used the door up"
    daemon.stop()


def test_open_for_the_whole_delay(walled: Lab) -> None:
    walled.mint("web", "--ports", "tcp/8080")
    walled.listen(8080)
    daemon = walled.daemon()
    daemon.stop()
    walled.configure(single_use="no")
    daemon = walled.daemon()
    walled.knock(HOST, ports=("8080",))
    daemon.says("any connection")
    assert all(walled.opens(HOST, 8080) for _ in range(3))
    assert not walled.connects("10.77.1.1", 8080, host="other")
    time.sleep(DELAY + 1)
    assert not walled.connects(HOST, 8080)
    walled.configure(single_use="yes")
    daemon.stop()


def test_a_profiles_own_delay(walled: Lab) -> None:
    """Longer than the daemon's; the root helper lets it have that, for its own port."""
    walled.mint("long", "--ports", "tcp/8082", "--delay", str(20 * DELAY))
    walled.listen(8082)
    daemon = walled.daemon()
    walled.knock(HOST, ports=("8082",))
    daemon.says(f"long: open tcp/8082 for 10.77.0.2, {20 * DELAY} s, one connection")
    time.sleep(DELAY + 1)
    assert walled.opens(HOST, 8082)
    assert daemon.stop() == 0


def test_a_profiles_share_of_doors(walled: Lab) -> None:
    """One client that knocks too often is refused, and the others are not."""
    walled.mint("other", "--ports", "tcp/8084", hosts=("10.77.0.1",))
    walled.mint("greedy", "--ports", "tcp/8083")
    with open(f"{walled.settings['profiles']}/greedy/config", "a") as config:
        config.write("doors_per_minute = 2\n")
    walled.listen(8083)
    daemon = walled.daemon()
    for _ in range(3):
        walled.knock(HOST, ports=("8083",))
    daemon.says(
        "knock of greedy not obeyed: it opened 2 doors within a minute, its share: raise doors_per_minute in the"
    )
    daemon.says_times("greedy: open tcp/8083", 2)
    walled.hand_over("other", HOST)
    walled.knock(HOST, ports=("8084",))
    daemon.says("other: open tcp/8084")
    assert daemon.stop() == 0


def test_close(walled: Lab) -> None:
    walled.mint("shut", "--ports", "tcp/9000")
    walled.listen(9000)
    walled.configure(delay="60", single_use="no")
    daemon = walled.daemon()
    walled.knock(HOST, ports=("9000",))
    assert walled.opens(HOST, 9000)
    walled.knock(HOST, "--close", ports=("9000",))
    daemon.says("close tcp/9000")
    assert not walled.connects(HOST, 9000)
    walled.configure(delay=str(DELAY), single_use="yes")
    daemon.stop()


def test_a_second_knock_begins_the_time_anew(walled: Lab) -> None:
    walled.mint("again", "--ports", "tcp/9001")
    walled.listen(9001)
    daemon = walled.daemon()
    walled.knock(HOST, ports=("9001",))
    daemon.says("open tcp/9001")
    time.sleep(DELAY * 0.75)
    walled.knock(HOST, ports=("9001",))
    time.sleep(DELAY * 0.75)
    assert walled.opens(HOST, 9001, within=DELAY * 0.2)
    daemon.stop()


@pytest.mark.parametrize(("single_use", "port"), [("yes", 7000), ("no", 7001)])
def test_closes_by_itself_when_all_is_killed(walled: Lab, single_use: str, port: int) -> None:
    name = f"doomed-{single_use}"
    walled.mint(name, "--ports", f"tcp/{port}")
    walled.listen(port)
    untouched = walled.ruleset()
    walled.configure(single_use=single_use)
    daemon = walled.daemon()
    placed = walled.ruleset()
    walled.knock(HOST, ports=(str(port),))
    daemon.says(f"open tcp/{port}")
    daemon.kill_all()
    if single_use == "no":
        assert walled.connects(HOST, port)
    time.sleep(DELAY + 1)
    assert not walled.connects(HOST, port)
    again = walled.daemon()
    assert sorted(walled.ruleset().split("\n")) == sorted(placed.split("\n")), "rules were placed a second time"
    walled.knock(HOST, ports=(str(port),))
    assert walled.opens(HOST, port)
    again.stop()
    assert walled.ruleset() == untouched
    walled.configure(single_use="yes")


def test_daemon_stops_when_the_helper_dies(lab: Lab) -> None:
    lab.mint("laptop")
    daemon = lab.daemon()
    os.kill(daemon.helper, signal.SIGKILL)
    assert daemon.process.wait(5) == 1
    daemon.says("the root helper is gone")


def test_helper_cleans_up_when_the_daemon_dies(lab: Lab) -> None:
    before = lab.ruleset()
    lab.mint("laptop")
    daemon = lab.daemon()
    left = [daemon.helper, daemon.watch]
    daemon.process.kill()
    for pid in left:
        until(partial(gone, pid))
    assert lab.ruleset() == before


def test_all_stops_when_what_watches_the_rules_dies(lab: Lab) -> None:
    """Rules stay then, and doors end by themselves; a new start puts everything right."""
    lab.mint("laptop")
    lab.listen(22)
    daemon = lab.daemon()
    helper = daemon.helper
    os.kill(daemon.watch, signal.SIGKILL)
    assert daemon.process.wait(5) == 1
    daemon.says("the root helper is gone")
    until(lambda: not Path(f"/proc/{helper}").exists())
    lab.daemon()
    lab.knock(HOST)
    assert lab.opens(HOST)
