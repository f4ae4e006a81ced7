"""A knock, a replay and a random SYN get the same answer, at the knock port and at any other port that is closed."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from ..statistics.pvalues import mann_whitney
from .lab import ROOT, Daemon, Lab
from .syn_answers import Asker, Knocker, noise, timed_ports

PORTS = {"compact": 4271, "classic": 4272, "stealth": 4273}
OTHER = 4274


def minimal(lab: Lab) -> None:
    lab.run("server", "nft", "flush", "ruleset")
    script = str(ROOT / "minimal-firewall.sh")
    lab.run("server", "env", f"MINIMAL_FIREWALL_RUN={lab.directory}/run", script, "--nftables", "--reject")


def wall(lab: Lab, kind: str) -> None:
    """The server's own firewall: how it refuses."""
    if kind == "minimal-firewall --reject":
        minimal(lab)
    elif kind.startswith("iptables"):
        lab.guard("iptables-nft")
        for command in ("iptables-nft", "ip6tables-nft"):
            rule = ["-A", "INPUT", "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"]
            lab.run("server", command, *(rule if "reset" in kind else ["-A", "INPUT", "-p", "tcp", "-j", "DROP"]))
    else:
        lab.guard("nftables")
        if kind != "nftables, drop":
            how = "tcp reset" if "reset" in kind else "icmpx type port-unreachable"
            lab.run("server", "nft", f"add rule inet guard input meta l4proto tcp reject with {how}")


WALLS = {
    "nftables, drop": "nothing",
    "nftables, reset": "reset",
    "nftables, ICMP": "ICMP",
    "iptables, drop": "nothing",
    "iptables, reset": "reset",
    "minimal-firewall --reject": "reset",
}


class Walled(NamedTuple):
    """Three hosts, a daemon that hears a profile of each format, and how the server refuses."""

    lab: Lab
    daemon: Daemon
    way: str


@pytest.fixture(scope="module", params=WALLS)
def walled(request: pytest.FixtureRequest) -> Iterator[Walled]:
    """Once for each kind of firewall and of refusal."""
    lab = Lab()
    try:
        # One ICMP error a second for each peer would make any two answers differ.
        lab.run("server", "sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
        wall(lab, request.param)
        for format, port in PORTS.items():
            for family in (4, 6):
                lab.mint(f"{format}{family}", "--format", format, port=port)
        yield Walled(lab, lab.daemon(), WALLS[request.param])
    finally:
        lab.close()


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("format", PORTS)
def test_same_answer(walled: Walled, format: str, family: int) -> None:
    name = f"{format}{family}"
    asker = Asker(walled.lab, family, PORTS[format])
    knock = asker.syn(Knocker(walled.lab, name, family).next())
    packets = {
        "a random SYN": asker.syn(noise(format)),
        "a random SYN to another port": asker.syn(noise(format), OTHER),
        "a knock": knock,
        "the same knock again": knock,
        "a random SYN while the door is open": asker.syn(noise(format)),
    }
    answers = {}
    for what, packet in packets.items():
        answers[what] = asker.plain(asker.ask(packet, 0.25), packet)
        if what == "a knock":
            walled.daemon.says(f"{name}: open tcp/22 for")
    asker.close()
    assert len(set(answers.values())) == 1, answers
    assert (answers["a knock"] == "nothing") is (walled.way == "nothing")
    assert ("quotation" in answers["a knock"]) is (walled.way == "ICMP")


@pytest.mark.parametrize("reject", [True, False])
def test_as_soon_at_the_knock_port_as_elsewhere(reject: bool) -> None:
    """A counter that only SYNs to the knock port meet takes 70 nanoseconds of 12 microseconds, and fails this."""
    assert mann_whitney(*timed_ports(4000, reject)) > 1e-5
