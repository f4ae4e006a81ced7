"""Which firewall the daemon finds, and that it leaves what is not its own alone."""

from .lab import Lab

HOST = "10.77.0.1"


def test_says_that_knocking_is_pointless(lab: Lab) -> None:
    lab.run("server", "nft", "flush", "ruleset")
    lab.mint("laptop")
    daemon = lab.daemon()
    daemon.says("knocking is pointless: see minimal-firewall.sh")
    done = lab.run("server", *lab.program("knockknock-daemon"), "--config", lab.configure(), "--check", check=False)
    assert done.returncode == 1
    assert "knocking is pointless" in done.stderr


def test_two_that_refuse(lab: Lab) -> None:
    lab.run("server", "iptables-nft", "-P", "INPUT", "DROP")
    lab.mint("laptop")
    daemon = lab.daemon(ready=False)
    assert daemon.process.wait(10) == 1
    daemon.says("both nftables (inet guard input) and")


def test_named_chain(lab: Lab) -> None:
    lab.run("server", "nft", "add table inet second")
    lab.run("server", "nft", "add chain inet second in { type filter hook input priority 5; policy accept; }")
    lab.run("server", "nft", "add rule inet second in tcp dport 22 drop")
    lab.mint("laptop")
    lab.listen(22)
    daemon = lab.daemon()
    lab.knock(HOST)
    daemon.says("open tcp/22")
    assert not lab.connects(HOST), "the second chain was not named, so it still refuses"
    daemon.stop()
    lab.run("server", "nft", "flush chain inet guard input")
    lab.run("server", "nft", "chain inet guard input { policy accept; }")
    lab.configure(nft_table="inet second", nft_chain="in")
    daemon = lab.daemon()
    daemon.says("inet second in")
    lab.knock(HOST)
    assert lab.opens(HOST)


def test_several_filtering_chains(lab: Lab) -> None:
    """An accept in one base chain does not undo a drop in another, so each gets its rule."""
    lab.run("server", "nft", "add table ip second")
    lab.run("server", "nft", "add chain ip second in { type filter hook input priority 10; policy accept; }")
    lab.run("server", "nft", "add rule ip second in ct state established accept")
    lab.run("server", "nft", "add rule ip second in counter reject")
    lab.mint("laptop")
    lab.listen(22)
    before = lab.ruleset()
    daemon = lab.daemon()
    daemon.says("inet guard input, ip second in")
    lab.knock(HOST)
    assert lab.opens(HOST)
    daemon.stop()
    assert lab.ruleset() == before


def test_iptables_still_lists_beside_us(lab: Lab) -> None:
    lab.run("server", "nft", "flush", "ruleset")
    lab.guard("iptables-nft")
    lab.mint("laptop")
    daemon = lab.daemon()
    daemon.says("(nf_tables) filters input")
    listing = lab.run("server", "iptables-nft", "-L", "-n").stdout
    assert "KNOCKKNOCK" in listing
    assert "nft tool" not in listing


def test_rules_of_others_stay_in_their_order(lab: Lab) -> None:
    lab.run("server", "nft", "flush", "ruleset")
    lab.guard("iptables-nft")
    for port in ("8001", "8002", "8003"):
        lab.run("server", "iptables-nft", "-I", "INPUT", "-p", "tcp", "--dport", port, "-j", "ACCEPT")
    before = lab.run("server", "iptables-nft", "-S", "INPUT").stdout
    lab.mint("laptop")
    daemon = lab.daemon()
    during = lab.run("server", "iptables-nft", "-S", "INPUT").stdout
    assert [line for line in during.splitlines() if "KNOCK" not in line] == before.splitlines()
    daemon.stop()
    assert lab.run("server", "iptables-nft", "-S", "INPUT").stdout == before


def test_check_touches_nothing(lab: Lab) -> None:
    lab.mint("laptop")
    before = lab.ruleset()
    state = sorted(path.name for path in (lab.directory / "state").iterdir())
    done = lab.run("server", *lab.program("knockknock-daemon"), "--config", lab.configure(), "--check")
    assert "nftables: the chain inet guard input filters input" in done.stdout
    assert "profile laptop: knock port tcp/4242, compact, may open tcp/22" in done.stdout
    assert lab.ruleset() == before
    assert sorted(path.name for path in (lab.directory / "state").iterdir()) == state


def test_minimal_firewall_and_the_daemon(lab: Lab) -> None:
    """The script of this repository is found, and placing it again does not shut the daemon's doors."""
    from .lab import ROOT

    lab.run("server", "nft", "flush", "ruleset")
    script = str(ROOT / "minimal-firewall.sh")
    lab.run("server", "env", f"MINIMAL_FIREWALL_RUN={lab.directory}/run", script, "--nftables")
    lab.mint("laptop")
    lab.listen(22)
    daemon = lab.daemon()
    daemon.says("inet minimal_firewall input filters input")
    lab.knock(HOST)
    assert lab.opens(HOST)
    lab.run("server", "env", f"MINIMAL_FIREWALL_RUN={lab.directory}/run", script, "--nftables", "--keep", "80")
    lab.knock(HOST)
    assert lab.opens(HOST)
