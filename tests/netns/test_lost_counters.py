"""Counters that got lost: by the clock, and two knocks in a row."""

import time
from pathlib import Path

from knockknock.profiles.counters import read_counter

from .lab import Lab

HOST = "10.77.0.1"
KNOCK_PORT = 4741
"""Of these tests alone: what they say must not be heard is in the one log of the kernel for all namespaces."""


def clients(lab: Lab) -> Path:
    return lab.home / ".knockknock" / HOST / "counter"


def servers(lab: Lab) -> Path:
    return Path(lab.settings["state"]) / "laptop"


def test_a_client_that_ran_ahead(lab: Lab) -> None:
    """Hundreds of knocks got lost, more than the look-ahead window: the second of two opens."""
    lab.listen(22)
    lab.mint("laptop", port=KNOCK_PORT)
    daemon = lab.daemon()
    clients(lab).write_text("400\n")
    lab.knock(HOST)
    daemon.says("refused ahead: knock from 10.77.0.2 at port 4741, laptop asked to open tcp/22")
    assert not lab.connects(HOST)
    assert read_counter(str(servers(lab))) == 0
    lab.knock(HOST)
    assert lab.opens(HOST), daemon.log()
    assert read_counter(str(servers(lab))) == 402


def test_connecting_brings_it_back_by_itself(lab: Lab) -> None:
    """--stdio knocks again when nothing opens, and that is two in a row."""
    lab.mint("laptop", port=KNOCK_PORT)
    daemon = lab.daemon()
    clients(lab).write_text("400\n")
    listener = lab.listen(22)
    lab.start("client", *lab.program("knockknock"), "-p", "22", "--stdio", HOST, env=lab.environment())
    listener.settimeout(10)
    listener.accept()[0].close()
    daemon.says("laptop: open tcp/22 for 10.77.0.2")


def test_by_the_clock(lab: Lab) -> None:
    """The client has lost its counter and opens all the same; what was recorded opens nothing again."""
    lab.listen(22)
    lab.mint("laptop", "--counter", "clock", port=KNOCK_PORT)
    daemon = lab.daemon()
    lab.knock(HOST)
    assert lab.opens(HOST), daemon.log()
    assert abs(read_counter(str(servers(lab))) - time.time()) < 10
    time.sleep(1.1)
    clients(lab).unlink()
    lab.knock(HOST)
    assert lab.opens(HOST), daemon.log()
    later = int(clients(lab).read_text())
    lab.knock(HOST, ports=("22", "22", "22"))
    assert int(clients(lab).read_text()) >= later + 3, "several knocks in one second have a number each"
    assert "refused" not in daemon.log()


def test_a_clock_that_is_wrong(lab: Lab) -> None:
    """Beyond the skew nothing opens, and the log does not call it a replay."""
    lab.listen(22)
    lab.mint("laptop", "--counter", "clock", port=KNOCK_PORT)
    lab.configure(clock_skew="10")
    daemon = lab.daemon()
    clients(lab).write_text(f"{int(time.time()) + 30}\n")
    lab.knock(HOST)
    daemon.says("refused unknown: knock from 10.77.0.2 at port 4741")
    assert not lab.connects(HOST)


def test_a_server_that_lost_its_state(lab: Lab) -> None:
    """Knocks that may have been used are refused; after the skew all is as before, with nothing to be minted."""
    lab.listen(22)
    lab.mint("laptop", "--counter", "clock", port=KNOCK_PORT)
    lab.configure(clock_skew="5")
    daemon = lab.daemon()
    lab.knock(HOST)
    assert lab.opens(HOST), daemon.log()
    assert daemon.stop() == 0
    servers(lab).unlink()
    daemon = lab.daemon()
    lab.knock(HOST)
    daemon.says("refused replay: knock from 10.77.0.2 at port 4741")
    time.sleep(6)
    lab.knock(HOST)
    assert lab.opens(HOST), daemon.log()
