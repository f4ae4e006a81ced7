"""Port sequences, with clients that know nothing of us: Debian's knockd client, nc, and our own without root."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..helpers import VIEW
from .lab import FIREWALLS, Daemon, Lab, inside, until

SERVER = "10.77.0.1"
SEQUENCE = "tcp/20021,udp/20012,tcp/20043"
SHUT = "tcp/20043,tcp/20021"


BY_LOG = pytest.mark.kernel_log
SOURCES = [(firewall, "nflog") for firewall in FIREWALLS] + [
    pytest.param((firewall, "kmsg"), marks=BY_LOG) for firewall in FIREWALLS
]


@pytest.fixture(params=SOURCES, ids=lambda param: "-".join(param))
def server(request: pytest.FixtureRequest) -> Iterator[tuple[Lab, Daemon]]:
    firewall, source = request.param
    lab = Lab()
    try:
        lab.guard(firewall)
        lab.settings |= {"source": source, "single_use": "no"}
        minted(lab)
        lab.listen(22)
        yield lab, lab.daemon()
    finally:
        lab.close()


def minted(lab: Lab, *options: str, sequence: str = SEQUENCE) -> None:
    chosen = ["--sequence", sequence] if sequence else []
    words = ["laptop", *chosen, "--close", SHUT, "--ports", "tcp/22", "--config", lab.configure()]
    done = lab.run("server", *lab.program("knockknock-genprofile"), *words, *options)
    assert "Made" in done.stdout
    for host in (SERVER, "fd77:0::1"):
        lab.hand_over("laptop", host)


def shut(lab: Lab, address: str = SERVER) -> bool:
    return not lab.connects(address)


def knockd(lab: Lab, *steps: str, address: str = SERVER) -> None:
    """Debian's client; -d: milliseconds between packets, so that order holds."""
    lab.run("client", "knock", "-d", "20", address, *steps)


def nc(lab: Lab, *steps: tuple[str, ...]) -> None:
    for words in steps:
        lab.run("client", "nc", *words, check=False, text="x")


def test_who_knows_the_sequence_gets_in(server: tuple[Lab, Daemon]) -> None:
    lab, daemon = server
    assert shut(lab)
    for wrong in (["20012:udp", "20021", "20043"], ["20021", "20043"], ["20021", "20043", "20012:udp", "20043"]):
        knockd(lab, *wrong)
    assert shut(lab), "not in order"
    knockd(lab, "20021", "20012:udp", "20043")
    assert lab.opens(SERVER)
    assert shut(lab, "10.77.1.1") or not lab.connects("10.77.1.1", host="other"), "nobody else does"
    # The wrong ones have its two ports in a row as well.
    closes = daemon.log().count("laptop: close tcp/22 for 10.77.0.2")
    knockd(lab, "20043", "20021")
    until(lambda: daemon.log().count("laptop: close tcp/22 for 10.77.0.2") > closes)
    assert shut(lab)
    # -w 1 sends a second SYN after a second: a copy, and no knock of its own.
    nc(lab, ("-z", "-w", "1", SERVER, "20021"), ("-u", "-w", "1", SERVER, "20012"), ("-z", "-w", "1", SERVER, "20043"))
    assert lab.opens(SERVER)
    log = daemon.log()
    assert not [port for port in ("20021", "20012", "20043") if port in log], "the sequence is a secret"


@pytest.mark.parametrize("address", [SERVER, "fd77:0::1"])
@pytest.mark.parametrize("connected", [True, False])
def test_one_socket_sends_twice_to_the_same_port(lab: Lab, address: str, connected: bool) -> None:
    """Nothing in two datagrams tells them apart, with IPv6, and with IPv4 from a socket that is not connected."""
    lab.settings["single_use"] = "no"
    minted(lab, sequence="udp/2001,udp/2001,udp/2002")
    lab.listen(22)
    daemon = lab.daemon()
    with inside(lab.ns("client")):
        one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    with one:
        for port in (2001, 2001, 2002):
            if connected:
                one.connect((address, port))
                one.send(b"x")
            else:
                one.sendto(b"x", (address, port))
            time.sleep(0.05)
    assert lab.opens(address), daemon.log()


def test_our_own_client_without_root(server: tuple[Lab, Daemon], nobody: int) -> None:
    lab, daemon = server
    for path in (lab.home, *lab.home.rglob("*")):
        os.chown(path, nobody, nobody)
    become = ["setpriv", f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups"]
    client = [*become, str(VIEW["python"]), str(VIEW["root"] / "bin" / "knockknock")]
    for address in (SERVER, "fd77:0::1"):
        assert shut(lab, address)
        done = lab.run("client", *client, address)
        assert done.stdout + done.stderr == ""
        assert lab.opens(address)
        lab.run("client", *client, "--close", address)
        daemon.says(f"laptop: close tcp/22 for {'10.77.0.2' if address == SERVER else 'fd77::2'}")
        assert shut(lab, address)


def test_one_time_sequences_survive_a_restart() -> None:
    """Sequences that were used stay used, also for a new daemon; the log asks for more before all are used up."""
    lab = Lab()
    try:
        lab.guard("nftables")
        lab.settings["single_use"] = "no"
        minted(lab, "--one-time", "3", sequence="")
        path = Path(lab.settings["profiles"]) / "laptop" / "sequences"
        assert path.stat().st_mode & 0o777 == 0o640
        sequences = [line.split(", ") for line in path.read_text().splitlines()]
        said = [[f"{step.partition('/')[2]}:{step.partition('/')[0]}" for step in steps] for steps in sequences]
        lab.listen(22)
        for steps in said[:2]:
            daemon = lab.daemon()
            assert shut(lab)
            lab.run("client", *lab.program("knockknock"), SERVER)
            assert lab.opens(SERVER)
            daemon.says("one-time sequences are left")
            knockd(lab, "20043", "20021")
            daemon.says("laptop: close tcp/22")
            knockd(lab, *steps)
            assert shut(lab), "used up"
            daemon.stop()
            daemon = lab.daemon()
            knockd(lab, *steps)
            assert shut(lab), "after a restart, too"
            daemon.stop()
        lab.daemon()
        knockd(lab, *said[2])
        assert lab.opens(SERVER)
    finally:
        lab.close()
