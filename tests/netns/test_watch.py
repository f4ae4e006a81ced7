"""The firewall reloaded by somebody else: noticed without polling, healed, said, and never in a loop."""

import fcntl
import os
import signal
import time

import pytest

from .lab import NFT_BASE, Daemon, Lab, children, until

HOST = "10.77.0.1"
PORT = 4711
"""A knock port that no other test has, as the kernel's log is everybody's."""
WITHIN = 5.0
"""Seconds to the rules being in place again."""
HEALED = "placed again"


def placed(lab: Lab) -> list[str]:
    return sorted(lab.ruleset().split("\n"))


def start(lab: Lab, firewall: str) -> Daemon:
    lab.run("server", "nft", "flush", "ruleset")
    lab.guard(firewall)
    lab.listen(22)
    lab.mint("laptop", port=PORT)
    return lab.daemon()


def ours(lab: Lab) -> int:
    """Number of lines of the ruleset that are ours."""
    return sum("knockknock" in line.lower() for line in lab.ruleset().split("\n"))


NFT_RELOADS = {
    "nftables.service": "flush ruleset\n" + NFT_BASE,
    "one table at a time": "delete table inet guard\n" + NFT_BASE + "delete table inet knockknock\n",
    "chains of others alone": "flush table inet guard\n" + NFT_BASE,
    "our rules alone": "flush chain inet knockknock prerouting\n",
}


@pytest.mark.parametrize("reload", NFT_RELOADS)
def test_nft(lab: Lab, reload: str) -> None:
    daemon = start(lab, "nftables")
    before = placed(lab)
    lab.run("server", "nft", "-f", "-", text=NFT_RELOADS[reload])
    began = time.monotonic()
    daemon.says(HEALED, WITHIN)
    assert time.monotonic() - began < WITHIN
    assert placed(lab) == before
    lab.knock(HOST)
    assert lab.opens(HOST), daemon.log()
    time.sleep(0.5)
    assert daemon.log().count(HEALED) == 1, "healing is not itself a reason to heal"
    daemon.stop()
    assert ours(lab) == 0


def iptables(lab: Lab, *words: str, kind: str = "nft") -> str:
    """Run one iptables command for each family on the server."""
    return "".join(lab.run("server", f"{family}-{kind}", *words).stdout for family in ("iptables", "ip6tables"))


def restore(lab: Lab, kind: str, *options: str) -> None:
    """Put a saved table back, without our rules, as netfilter-persistent does."""
    for family in ("iptables", "ip6tables"):
        text = "*filter\n:INPUT DROP\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n"
        text += "-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT"
        if family == "ip6tables":
            text += "\n-A INPUT -p ipv6-icmp -j ACCEPT"
        lab.run("server", f"{family}-{kind}-restore", *options, text=text + "\nCOMMIT\n")


def accepts(lab: Lab, kind: str) -> list[str]:
    """Our rules in the tables of iptables."""
    # Unlike -S, -save takes no lock, and so wakes nobody.
    listed = [lab.run("server", f"{family}-{kind}-save").stdout for family in ("iptables", "ip6tables")]
    return [line for text in listed for line in text.splitlines() if "knockknock" in line]


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_iptables(lab: Lab, kind: str) -> None:
    daemon = start(lab, f"iptables-{kind}")
    before = accepts(lab, kind)
    assert len(before) == 2, "one for each family"

    def healed() -> None:
        until(lambda: accepts(lab, kind) == before, WITHIN)
        time.sleep(0.6)
        said = daemon.log().count(HEALED)
        time.sleep(0.6)
        assert daemon.log().count(HEALED) == said, "healing is not itself a reason to heal"
        assert accepts(lab, kind) == before, "all of it, and nothing twice"
        lab.knock(HOST)
        assert lab.opens(HOST), daemon.log()

    iptables(lab, "-F", kind=kind)
    iptables(lab, "-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT", kind=kind)
    healed()
    daemon.says(HEALED)
    restore(lab, kind)
    healed()
    daemon.stop()
    assert "knock" not in lab.ruleset().lower()


def test_no_chain_for_a_while(lab: Lab) -> None:
    """All flushed, and only later something that filters: said, and our rule is in the new chain, too."""
    daemon = start(lab, "nftables")
    lab.run("server", "nft", "flush", "ruleset")
    daemon.says("no chain refuses input now", WITHIN)
    lab.run("server", "nft", "-f", "-", text=NFT_BASE.replace("guard", "other"))
    daemon.says("our rule placed again in each", WITHIN)
    lab.knock(HOST)
    assert lab.opens(HOST), daemon.log()


def test_doors_stay_open_when_our_table_is_left_alone(lab: Lab) -> None:
    lab.configure(single_use="no", delay="20")
    daemon = start(lab, "nftables")
    lab.knock(HOST)
    daemon.says("open tcp/22")
    lab.run("server", "nft", "-f", "-", text=NFT_RELOADS["chains of others alone"])
    daemon.says(HEALED, WITHIN)
    assert lab.connects(HOST)


def test_a_reload_looks_as_well(lab: Lab) -> None:
    """python-iptables takes no lock, so nothing announces it: SIGHUP makes good what it did."""
    daemon = start(lab, "iptables-legacy")
    flush = "import iptc; table = iptc.Table('filter'); iptc.Chain(table, 'INPUT').flush()"
    lab.run("server", lab.program("knockknock")[0], "-c", flush)
    daemon.reload()
    daemon.says("reloaded")
    daemon.says(HEALED)
    assert len(accepts(lab, "legacy")) == 2


def test_a_stop_while_somebody_holds_the_lock_of_legacy_iptables(lab: Lab) -> None:
    """Our rule there has to stay, and lets nobody in by itself; all else goes."""
    daemon = start(lab, "iptables-legacy")
    lab.run("server", "nft", "-f", "-", text=NFT_BASE)
    daemon.reload()
    until(lambda: "knockknock" in lab.run("server", "nft", "list", "table", "inet", "guard").stdout)
    with (lab.directory / "xtables.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        daemon.process.terminate()
        daemon.process.wait(20)
    daemon.says("not all could be taken out of the firewall: ")
    assert "knockknock" not in lab.run("server", "nft", "list", "ruleset").stdout
    assert not lab.connects(HOST)


def test_legacy_tables_that_come_later(lab: Lab) -> None:
    """Test that the watch keeps the right to change legacy tables, and that each legacy command wakes it."""
    lab.run("server", "nft", "flush", "ruleset")
    lab.listen(22)
    lab.mint("laptop", port=PORT)
    daemon = lab.daemon()
    restore(lab, "legacy")
    until(lambda: len(accepts(lab, "legacy")) == 2, 10)
    lab.knock(HOST)
    assert lab.opens(HOST), daemon.log()
    assert daemon.stop() == 0
    assert not accepts(lab, "legacy")


def test_busy_administrator(lab: Lab) -> None:
    """Changes that do not touch us are looked at a few times a second at most; bans of others not at all."""
    daemon = start(lab, "nftables")
    lab.run("server", "nft", "add set inet guard banned { type ipv4_addr; }")
    daemon.at_rest()
    for number in range(30):
        lab.run("server", "nft", f"add element inet guard banned {{ 192.0.2.{number + 1} }}")
        assert children(daemon.watch) == [daemon.helper], "elements are no reason to look"
    quiet = daemon.at_rest()
    time.sleep(1)
    assert daemon.switches() == quiet, "who is idle sleeps"
    for number in range(30):
        lab.run("server", "nft", f"add rule inet guard input tcp dport {number + 1} accept")
    time.sleep(0.6)
    assert HEALED not in daemon.log()
    lab.knock(HOST)
    assert lab.opens(HOST)


def test_knocks_are_obeyed_while_rules_are_looked_at(lab: Lab) -> None:
    """However long that takes: here it is stopped in the middle."""
    daemon = start(lab, "nftables")
    daemon.at_rest()
    lab.run("server", "nft", "add rule inet guard input tcp dport 1 accept")
    until(lambda: len(children(daemon.watch)) == 2)
    look = children(daemon.watch)[1]
    os.kill(look, signal.SIGSTOP)
    for _ in range(2):
        lab.knock(HOST)
        assert lab.opens(HOST), daemon.log()
    os.kill(look, signal.SIGCONT)
    until(lambda: len(children(daemon.watch)) == 1)
    assert daemon.stop() == 0


def test_two_that_undo_each_other(lab: Lab) -> None:
    """Somebody takes our rules away as soon as they are there: we try more and more seldom, and stay alive."""
    daemon = start(lab, "nftables")
    end, taken = time.monotonic() + 6, 0
    while time.monotonic() < end:
        taken += lab.run("server", "nft", "delete table inet knockknock", check=False).returncode == 0
        time.sleep(0.02)
    assert 3 <= taken <= 12, daemon.log()
    until(lambda: ours(lab) > 1, 10)  # it is there in the end, at whatever moment it was taken
    assert daemon.stop() == 0
