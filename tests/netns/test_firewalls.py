"""Firewalls as people have them: each refuses ssh, a knock opens it once, and they are left as they were."""

import shutil
import subprocess
import sys
import time
from functools import partial
from statistics import median
from typing import NamedTuple

import pytest

from knockknock.root.record import SURVEYED

from .lab import ROOT, Daemon, Lab, inside, start_watch, until

HOST, HOST6 = "10.77.0.1", "fd77:0::1"
POINTLESS = "knocking is pointless"
ESTABLISHED = """ct state established,related accept; iif lo accept;
icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; """


class Case(NamedTuple):
    """A firewall."""

    rules: str
    """Commands of iptables without its name, one a line; or a file of nft."""
    addresses: tuple[str, ...] = (HOST, HOST6)
    """Those that it refuses."""


def filters(rest: str, policy: str = "accept", hook: str = "input priority filter", name: str = "input") -> str:
    """An nftables chain."""
    return f"chain {name} {{ type filter hook {hook}; policy {policy}; {ESTABLISHED}{rest}\n }}\n"


IPTABLES = {
    "policy": Case("-P INPUT DROP"),
    "last rule": Case("-A INPUT -j DROP"),
    "a log behind what refuses": Case("-A INPUT -j REJECT\n-A INPUT -j LOG"),
    "an accept behind what refuses": Case("-A INPUT -j REJECT\n-A INPUT -p tcp --dport 8080 -j ACCEPT"),
    "two chains further": Case("-N fw\n-N fw-refuse\n-A INPUT -j fw\n-A fw -j fw-refuse\n-A fw-refuse -j DROP"),
    "log and drop": Case(
        "-N LOGGING\n-A INPUT -j LOGGING\n-A LOGGING -m limit --limit 2/min -j LOG\n-A LOGGING -j DROP"
    ),
    "one interface": Case("-A INPUT -i s0 -j DROP"),
    "the other family is open": Case("6 -P INPUT DROP", (HOST6,)),
    "mangle": Case("-t mangle -A INPUT -p tcp --dport 22 -j DROP"),
}
NFTABLES = {
    "policy": Case(f"table inet f {{ {filters('', 'drop')} }}"),
    "last rule": Case(f"table inet f {{ {filters('drop')} }}"),
    "names of iptables": Case(
        f"table ip filter {{ {filters('', 'drop', name='INPUT')} }}".replace(
            ESTABLISHED, "ct state established accept; "
        ),
        (HOST,),
    ),
    "a jump": Case(f"table inet f {{ chain no {{ counter drop\n }}\n {filters('jump no')} }}"),
    "an accept behind what refuses": Case(f"table inet f {{ {filters('drop; tcp dport 22 accept')} }}"),
    "mangle": Case(f"table inet f {{ {filters('', 'drop', 'input priority mangle')} }}"),
    "prerouting": Case(f"table inet f {{ {filters('tcp dport 22 drop', hook='prerouting priority mangle')} }}"),
    "two chains": Case(
        f"table inet f {{ {filters('tcp dport 22 reject')} }}\n"
        f"table inet g {{ {filters('', 'drop', 'input priority 10')} }}"
    ),
    "a verdict map": Case(
        f"table inet f {{ {filters('tcp dport vmap {{ 22 : drop }}')} }}".replace("{{", "{").replace("}}", "}")
    ),
    "the comment that ours have": Case(f"""table inet f {{ {filters('tcp dport 22 drop comment "knockknock"')} }}"""),
}
MADE = {"ufw": "ufw.rules", "firewalld": "firewalld.nft"}
"""Files in tests/vectors with the rules that these programs make to refuse ssh."""
CASES = (
    [pytest.param(kind, Case((ROOT / "tests/vectors" / name).read_text()), id=kind) for kind, name in MADE.items()]
    + [pytest.param("nft", case, id=f"nftables-{name}") for name, case in NFTABLES.items()]
    + [pytest.param("iptables-nft", case, id=f"iptables-nft-{name}") for name, case in IPTABLES.items()]
    + [pytest.param("iptables-legacy", case, id=f"iptables-legacy-{name}") for name, case in IPTABLES.items()]
)
HOLDS = """
import ctypes, sys
nft = ctypes.CDLL("libnftables.so.1")
nft.nft_ctx_new.restype = ctypes.c_void_p
context = ctypes.c_void_p(nft.nft_ctx_new(0))
sys.exit(nft.nft_run_cmd_from_buffer(context, sys.argv[1].encode()) or input("held\\n"))
"""
"""Makes a table and keeps the socket that owns it."""


@pytest.fixture
def bare(lab: Lab) -> Lab:
    """Nothing refuses anything; ssh listens."""
    lab.run("server", "nft", "flush", "ruleset")
    lab.listen(22)
    lab.mint("laptop", hosts=(HOST,))
    lab.mint("laptop6", port=4243, hosts=(HOST6,))
    return lab


def put(lab: Lab, kind: str, rules: str) -> None:
    if kind in ("nft", "firewalld"):
        lab.run("server", "nft", "-f", "-", text=rules.replace("; ", "\n") if kind == "nft" else rules)
        return
    if kind == "ufw":
        for name, text in zip(("ip", "ip6"), rules.split("\n\n"), strict=True):
            lab.run("server", f"{name}tables-nft-restore", text=f"{text}\n")
        return
    first = ["-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT", "-A INPUT -i lo -j ACCEPT"]
    for line in first + rules.splitlines():
        for family in (6,) if line.startswith("6 ") else (4, 6):
            words = line.removeprefix("6 ").split()
            if family == 6 and line == first[0]:
                neighbours = ["-A", "INPUT", "-p", "ipv6-icmp", "-j", "ACCEPT"]
                lab.run("server", f"ip6{kind.removeprefix('ip')}", *neighbours)
            lab.run("server", kind if family == 4 else f"ip6{kind.removeprefix('ip')}", *words)


def opens_once(lab: Lab, daemon: Daemon, address: str) -> None:
    lab.knock(address)
    assert lab.opens(address), f"{daemon.log()}{lab.ruleset()}"
    assert not lab.connects(address), "a second connection came in"


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_case(bare: Lab, kind: str, case: Case) -> None:
    put(bare, kind, case.rules)
    before = bare.ruleset()
    daemon = bare.daemon()
    daemon.says("doors are in the table inet knockknock")
    for address in case.addresses:
        assert not bare.connects(address)
        opens_once(bare, daemon, address)
    log = daemon.log()
    assert POINTLESS not in log
    assert "may still refuse" not in log
    assert daemon.stop() == 0
    assert bare.ruleset() == before


def test_says_that_knocking_is_pointless(bare: Lab) -> None:
    put(bare, "nft", f"table inet f {{ {filters('accept')} }}")
    daemon = bare.daemon()
    daemon.says(f"{POINTLESS}: set protect =, or see minimal-firewall.sh")
    done = bare.run("server", *bare.program("knockknock-daemon"), "--config", bare.configure(), "--check", check=False)
    assert done.returncode == 1
    assert POINTLESS in done.stderr


def owned(lab: Lab, last: str) -> None:
    """A table that nobody else may change, as firewalld's is since 2.1."""
    rules = f"table inet firewalld {{ flags owner\n {filters(last, 'drop')} }}".replace("; ", "\n")
    holder = ["ip", "netns", "exec", lab.ns("server"), sys.executable, "-c", HOLDS, rules]
    process = subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    lab.on_close(process.kill)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"


def test_a_table_that_nobody_else_may_change(bare: Lab) -> None:
    owned(bare, "")
    daemon = bare.daemon()
    daemon.says("inet firewalld input may refuse what a door lets in")
    bare.knock(HOST)
    daemon.says("open tcp/22 for 10.77.0.2, 2 s, one connection, but inet firewalld input may still refuse it")
    assert not bare.connects(HOST)


def test_such_a_table_and_a_protected_port(bare: Lab) -> None:
    owned(bare, "tcp dport 22 accept")
    bare.settings["protect"] = "tcp/22"
    daemon = bare.daemon()
    assert not bare.connects(HOST)
    opens_once(bare, daemon, HOST)
    opens_once(bare, daemon, HOST6)


def test_a_port_that_is_not_tracked(bare: Lab) -> None:
    put(
        bare,
        "nft",
        f"""table inet f {{ {filters("", "drop")}
        chain in {{ type filter hook prerouting priority raw; tcp dport 22 notrack\n }}
        chain out {{ type filter hook output priority raw; tcp sport 22 notrack\n }}
        }}""",
    )
    iptables = "-t raw -A PREROUTING -p udp --dport 53 -j CT --notrack"
    bare.run("server", "iptables-nft", *iptables.split())
    daemon = bare.daemon()
    daemon.says("inet f in takes packets out of connection tracking: a door cannot let those in")
    daemon.says("ip raw PREROUTING takes packets out")
    bare.knock(HOST)
    daemon.says("connection, but inet f in, which takes such packets out of connection tracking, may still refuse it")
    assert "but ip raw" not in daemon.log()
    assert not bare.connects(HOST)


def test_replies_leave_by_the_link_they_came_by(bare: Lab) -> None:
    """Marks of others route; ours is a label, and a connection through a door is routed as all are."""
    put(
        bare,
        "nft",
        f"""table inet f {{ {filters("", "drop")}
        chain marks {{ type filter hook prerouting priority mangle; iifname s1 ct mark set 2\n }}
        chain routes {{ type route hook output priority mangle; meta mark set ct mark\n }}
        }}""",
    )
    # Without its mark a reply to the other host leaves by the wrong link.
    bare.run("server", "ip", "route", "add", "default", "via", "10.77.0.2")
    bare.run("server", "ip", "rule", "add", "fwmark", "2", "table", "2")
    bare.run("server", "ip", "route", "add", "10.77.1.0/24", "dev", "s1", "table", "2")
    bare.run("server", "ip", "route", "del", "10.77.1.0/24", "dev", "s1")
    bare.run("server", "sysctl", "-qw", "net.ipv4.conf.s1.rp_filter=0", "net.ipv4.conf.all.rp_filter=0")
    bare.hand_over("laptop", "10.77.1.1")
    daemon = bare.daemon()
    knock = [*bare.program("knockknock"), "-p", "22", "10.77.1.1"]
    bare.run("other", *knock)
    daemon.says("open tcp/22 for 10.77.1.2")
    assert bare.opens("10.77.1.1", host="other"), bare.ruleset()


def test_many_rules_that_change_all_the_time(bare: Lab) -> None:
    rules = "\n".join(f"add rule inet f input ip saddr 192.0.2.{n % 256} tcp dport {n} accept" for n in range(1, 20001))
    put(bare, "nft", f"table inet f {{ {filters('', 'drop')} }}")
    bare.run("server", "nft", "-f", "-", text=rules)
    daemon = bare.daemon()
    change = "while nft add rule inet f input tcp dport 1 accept; do sleep 0.3; done"
    bare.start("server", "sh", "-c", change)

    def heard(number: int) -> bool:
        return daemon.log().count("open tcp/22") == number

    took = []
    for number in range(1, 8):
        bare.knock(HOST)
        began = time.monotonic()
        until(partial(heard, number))
        took.append(time.monotonic() - began)
        assert bare.opens(HOST)
    assert median(took) < 1, "each knock waits for a look at the rules"


def test_iptables_still_lists_beside_us(bare: Lab) -> None:
    put(bare, "iptables-nft", IPTABLES["policy"].rules)
    for port in ("8001", "8002"):
        bare.run("server", "iptables-nft", "-I", "INPUT", "-p", "tcp", "--dport", port, "-j", "ACCEPT")
    before = bare.run("server", "iptables-nft", "-S", "INPUT").stdout.splitlines()
    bare.daemon()
    policy, ours, *others = bare.run("server", "iptables-nft", "-S", "INPUT").stdout.splitlines()
    assert [policy, *others] == before
    assert ours == '-A INPUT -m connlabel --label "75" -m comment --comment knockknock -j ACCEPT'
    assert "nft tool" not in bare.run("server", "iptables-nft", "-L", "-n").stdout


@pytest.mark.parametrize("kind", ["iptables-nft", "iptables-legacy"])
def test_a_drop_of_iptables_at_prerouting(bare: Lab, kind: str) -> None:
    put(bare, kind, IPTABLES["policy"].rules)
    rule = ["-t", "mangle", "-A", "PREROUTING", "-p", "tcp", "--dport", "22", "-j", "DROP"]
    bare.run("server", kind, *rule)
    before = bare.ruleset()
    daemon = bare.daemon()
    daemon.says(f"{'ip' if kind == 'iptables-nft' else 'iptables-legacy'} mangle PREROUTING")
    opens_once(bare, daemon, "10.77.0.1")
    assert daemon.stop() == 0
    assert bare.ruleset() == before


def test_a_drop_of_legacy_iptables_before_all_doors_is_named(bare: Lab) -> None:
    bare.run("server", "iptables-legacy", "-t", "raw", "-A", "PREROUTING", "-p", "tcp", "--dport", "22", "-j", "DROP")
    daemon = bare.daemon()
    daemon.says("iptables-legacy raw PREROUTING may refuse what a door lets in: it comes before the doors")
    bare.knock("10.77.0.1")
    daemon.says("but iptables-legacy raw PREROUTING may still refuse")


def test_legacy_iptables_where_its_library_is_not_installed(bare: Lab) -> None:
    """Our rule is placed by the command instead."""
    put(bare, "iptables-legacy", IPTABLES["policy"].rules)
    before, package = bare.ruleset(), bare.directory / "copy"
    shutil.copytree(ROOT / "knockknock", package / "knockknock", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "iptc.py").write_text(f"open({str(bare.directory / 'tried')!r}, 'w')\nraise ImportError\n")
    pair = start_watch(bare, package, bare.configure())
    while (said := pair.recv(1 << 16)).startswith(SURVEYED):
        pass
    assert b"accepted in iptables-legacy filter INPUT, ip6tables-legacy filter INPUT" in said
    rule = '-m connlabel --label "75" -m comment --comment knockknock -j ACCEPT'
    assert bare.ruleset().count(rule) == 2
    assert (bare.directory / "tried").exists()
    pair.close()
    assert bare.processes[-1].wait(5) == 0
    assert bare.ruleset() == before


@pytest.mark.parametrize("label", ["5", "100"])
@pytest.mark.parametrize("kind", ["iptables-nft", "iptables-legacy"])
def test_another_label(bare: Lab, kind: str, label: str) -> None:
    put(bare, kind, IPTABLES["policy"].rules)
    bare.settings["ct_label"] = label
    daemon = bare.daemon()
    assert f'label "{label}"' in bare.run("server", kind, "-S", "INPUT").stdout
    opens_once(bare, daemon, "10.77.0.1")


def test_iptables_still_lists_its_mangle_table_beside_us(bare: Lab) -> None:
    bare.run("server", "iptables-nft", "-t", "mangle", "-A", "PREROUTING", "-p", "tcp", "--dport", "9", "-j", "DROP")
    before = bare.run("server", "iptables-nft", "-t", "mangle", "-S", "PREROUTING").stdout.splitlines()
    bare.daemon()
    policy, ours, *others = bare.run("server", "iptables-nft", "-t", "mangle", "-S", "PREROUTING").stdout.splitlines()
    assert [policy, *others] == before
    assert ours == '-A PREROUTING -m connlabel --label "75" -m comment --comment knockknock -j ACCEPT'
    assert "nft tool" not in bare.run("server", "iptables-nft", "-t", "mangle", "-L", "-n").stdout


def test_check_touches_nothing(lab: Lab) -> None:
    lab.mint("laptop")
    before = lab.ruleset()
    state = sorted(path.name for path in (lab.directory / "state").iterdir())
    done = lab.run("server", *lab.program("knockknock-daemon"), "--config", lab.configure(), "--check")
    assert "doors are in the table inet knockknock, and accepted in inet guard input" in done.stdout
    assert "profile laptop: knock port tcp/4242, compact, may open tcp/22" in done.stdout
    assert lab.ruleset() == before
    assert sorted(path.name for path in (lab.directory / "state").iterdir()) == state


def test_without_nf_tables(lab: Lab) -> None:
    """A kernel that has none, as a user namespace without the right to it shows it."""
    code = "from knockknock.root import listing, netlink; netlink.NETFILTER = 31; listing.connect()"
    with inside(lab.ns("server")):
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "this kernel has no nf_tables, which knockknock is made for" in done.stderr


def test_minimal_firewall_and_the_daemon(bare: Lab) -> None:
    """Placing the script of this repository again does not shut the daemon's doors."""
    script = ["env", f"MINIMAL_FIREWALL_RUN={bare.directory}/run", str(ROOT / "minimal-firewall.sh"), "--nftables"]
    bare.run("server", *script)
    daemon = bare.daemon()
    daemon.says("accepted in inet minimal_firewall input")
    opens_once(bare, daemon, HOST)
    bare.run("server", *script, "--keep", "80")
    bare.knock(HOST)
    assert bare.opens(HOST)
