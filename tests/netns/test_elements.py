"""Elements of sets as the kernel takes them from us, held against what nft itself makes and says of them."""

import errno
import ipaddress
import json
import re
import socket
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knockknock.errors import FirewallError
from knockknock.root import helper, libnftables, netlink
from knockknock.root.firewall import Firewall
from knockknock.root.policy import Policy, Scan, limits
from knockknock.root.record import Grant, Order
from knockknock.server.privsep import unpack_counts

from .lab import Lab, inside, until

FOUR = Grant(Order.OPEN_ONCE, bytes([192, 0, 2, 7]), 6, 22, 15)
SIX = Grant(Order.OPEN, ipaddress.ip_address("2001:db8::7").packed, 17, 65535, 4_000_000)
grants = st.builds(
    Grant,
    st.sampled_from([Order.OPEN, Order.OPEN_ONCE]),
    st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16),
    st.sampled_from([6, 17]),
    st.integers(1, 65535),
    st.integers(60, 600),
)


LIMITS = limits(Policy((), ((6, 1, 65535), (17, 1, 65535)), 4_000_000, doors_per_minute=1_000_000))
KEY = FOUR.address + bytes([6, 0, 0, 0, 0, 22, 0, 0])


class Helper:
    """Work of the resident helper, done in this process."""

    def __init__(self) -> None:
        self.kernel = netlink.Kernel()

    def open(self, grant: Grant) -> None:
        """Any address, as the limits are not asked."""
        self.kernel.change(*helper.changes(grant, LIMITS))

    def close(self, grant: Grant) -> None:
        self.open(grant._replace(order=Order.CLOSE, seconds=0))

    def status(self) -> list[Grant]:
        return list(helper.status(self.kernel, b""))

    def logged(self) -> int:
        asked = Grant(Order.LOGGED, b"", 0, 0, 0)
        return unpack_counts(helper.obey(self.kernel, asked, LIMITS, deque()))[0]


@pytest.fixture
def firewall(lab: Lab) -> Iterator[Firewall]:
    with inside(lab.ns("server")):
        made = Firewall(Policy(((17, 4242),), (), 600, state=str(lab.directory / "state")))
        made.prepare()
        yield made
        made.remove()


@pytest.fixture
def resident(firewall: Firewall) -> Helper:
    """The helper beside that firewall."""
    return Helper()


def listed(lab: Lab, name: str) -> list[Any]:
    """The elements of a set of ours, as nft says."""
    said = json.loads(lab.run("server", "nft", "-j", "-nn", "list", "set", "inet", "knockknock", name).stdout)
    found = [item for one in said["nftables"] for item in one.get("set", {}).get("elem", ())]
    return [item.get("elem", item) if isinstance(item, dict) else item for item in found]


def test_as_nft_makes_them(lab: Lab, resident: Helper) -> None:
    resident.open(FOUR)
    resident.open(SIX)
    (four,), (six,) = listed(lab, "once4_0"), listed(lab, "open6")
    assert (four["val"], four["timeout"]) == ({"concat": ["192.0.2.7", 6, 22]}, 15)
    assert (six["val"], six["timeout"]) == ({"concat": ["2001:db8::7", 17, 65535]}, 4_000_000)
    for name, key in (("once4_0", "192.0.2.7 . tcp . 22"), ("open6", "2001:db8::7 . udp . 65535")):
        lab.run("server", "nft", f"delete element inet knockknock {name} {{ {key} }}")
        assert listed(lab, name) == []
        lab.run("server", "nft", f"add element inet knockknock {name} {{ {key} timeout 9s }}")
    resident.close(FOUR)
    resident.close(SIX)
    assert not resident.status()


@given(st.lists(grants, max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_door(firewall: Firewall, resident: Helper, wanted: list[Grant]) -> None:
    """Open doors are listed: those for any connection with the last time, those for one each; closed doors are not."""
    firewall.prepare()
    for grant in wanted:
        resident.open(grant)
    doors = {one._replace(seconds=0): one.seconds for one in wanted}
    found = resident.status()
    assert {one._replace(seconds=0) for one in found} == doors.keys()
    single = [one._replace(seconds=0) for one in wanted if one.order is Order.OPEN_ONCE]
    assert sorted(one._replace(seconds=0) for one in found if one.order is Order.OPEN_ONCE) == sorted(single)
    assert all(
        0 <= doors[one] - left <= 1
        for one, left in ((f._replace(seconds=0), f.seconds) for f in found if f.order is Order.OPEN)
    )
    for grant in wanted:
        resident.close(grant)
        resident.close(grant)
    assert not resident.status()


def test_all_or_nothing_and_none_of_it_is_heard_later(lab: Lab, firewall: Firewall) -> None:
    """Refused in the beginning, in the middle, at the end, and at once; then the next ones are carried out."""
    kernel, key = netlink.Kernel(), KEY
    add, absent, nowhere = (
        netlink.add("once4_0", key),
        netlink.delete("once4_0", key),
        netlink.add("none", key),
    )
    for changes in ((absent, add), (add, nowhere, add), (add, nowhere), (nowhere, absent, nowhere), (nowhere,)):
        with pytest.raises(FileNotFoundError):  # ENOENT
            kernel.change(*changes)
        assert listed(lab, "once4_0") == []
        kernel.change(add)
        assert len(listed(lab, "once4_0")) == 1
        kernel.change(absent)


def test_a_table_that_is_gone(lab: Lab, firewall: Firewall, resident: Helper) -> None:
    lab.run("server", "nft", "flush ruleset")
    for change in (resident.open, resident.close):
        with pytest.raises(FileNotFoundError):
            change(FOUR)
    firewall.prepare()
    resident.open(FOUR)
    assert len(resident.status()) == 1


def test_a_full_set(lab: Lab, resident: Helper) -> None:
    lab.run("server", "nft", "flush ruleset")
    small = "{ type ipv4_addr . inet_proto . inet_service; size 2; flags dynamic, timeout; }"
    sets = "".join(f"add set inet knockknock {name} {small};" for name in ("any4", "open4"))
    lab.run("server", "nft", f"add table inet knockknock; {sets}")
    wide = FOUR._replace(order=Order.OPEN)
    for last in (1, 2):
        resident.open(wide._replace(address=bytes([10, 0, 0, last])))
    with pytest.raises(OSError, match="Too many open files in system"):
        resident.open(wide)
    assert len(listed(lab, "open4")) == 2


def test_without_the_right_to(firewall: Firewall, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusal of a whole batch: the kernel answers it once, for the message that begins the batch."""
    kernel = netlink.Kernel()
    with monkeypatch.context() as patch:
        patch.setattr(netlink, "_NFTABLES", 11)  # NFNL_SUBSYS_NFT_COMPAT, which takes no batch
        with pytest.raises(OSError, match=r"."):
            kernel.change(netlink.add("once4_0", KEY))


@pytest.mark.parametrize("times", [1, 20])
def test_taken_away_while_it_is_placed(
    lab: Lab, firewall: Firewall, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Table that somebody deletes right after it is placed: it is placed again, until it stays."""
    real, left = libnftables.run, times

    def run(commands: str) -> None:
        nonlocal left
        real(commands)
        if left:
            left -= 1
            real("delete table inet knockknock")

    monkeypatch.setattr(libnftables, "run", run)
    firewall.prepare()
    until(lambda: firewall.heal(everything=True) == "" and left == 0)
    assert listed(lab, "knock_ports")


def test_nftables_that_takes_no_sets_of_what_knocks_bear(
    lab: Lab, firewall: Firewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ubuntu 22.04's, 1.0.2: the table is placed without them, and tells of every SYN."""
    real = libnftables.run

    def run(commands: str) -> None:
        if "typeof" in commands:
            raise FirewallError(
                "nftables refused: can not use variable sized data types (integer) in concat expressions"
            )
        assert not re.search(r"\b(\d+)-\1\b", commands), "nor does that one take 22-22"
        real(commands)

    monkeypatch.setattr(libnftables, "run", run)
    scan = Scan(3, 60, 600, 64, (), False, public=((80, 80), (90, 95)))
    old = Firewall(firewall.policy._replace(knock_ports=((6, 4242),), protect=((6, 22, 22), (17, 5, 9)), scan=scan))
    old.prepare()
    assert old.policy.expected_size == 0
    assert listed(lab, "every_syn") == [4242]
    assert old.heal(everything=True) == ""
    old.follow(old.policy._replace(knock_ports=((6, 4243),), expected_size=1000))
    assert listed(lab, "every_syn") == [4243]
    lab.run("server", "nft", "delete table inet knockknock")
    old.anew = False
    assert old.heal(everything=False)
    assert old.anew
    assert listed(lab, "every_syn") == [4243]


def test_a_table_that_cannot_be_placed_again_keeps_its_sets(
    lab: Lab, firewall: Firewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure of the moment is no version of nftables, even where others kept us from learning our table's digest."""

    def run(commands: str) -> None:
        raise FirewallError("nftables refused: Device or resource busy")

    made = Firewall(firewall.policy._replace(knock_ports=((6, 4242),)))
    made.prepare()
    lab.run("server", "nft", "delete table inet knockknock")
    made.digest = ""
    with monkeypatch.context() as patched:
        patched.setattr(libnftables, "run", run)
        with pytest.raises(FirewallError, match="busy"):
            made.heal(everything=True)
    assert made.policy.expected_size
    assert made.heal(everything=True)
    assert "set compact" in lab.run("server", "nft", "-t", "list", "table", "inet", "knockknock").stdout


def test_used_up_in_between(resident: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our look for an element and its deletion a connection may use it up: then it is done again."""
    real, calls = resident.kernel.change, []

    def change(*changes: netlink.Change) -> None:
        calls.append(changes)
        if len(calls) == 1:
            raise FileNotFoundError(errno.ENOENT, "gone")
        real(*changes)

    monkeypatch.setattr(resident.kernel, "change", change)
    helper.obey(resident.kernel, FOUR, LIMITS, deque())
    assert len(calls) == 2
    assert len(resident.status()) == 1


def test_what_was_logged_is_counted_as_nft_says(lab: Lab, resident: Helper) -> None:
    assert resident.logged() == 0
    with inside(lab.ns("client")):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        for _ in range(3):
            client.sendto(b"", ("10.77.0.1", 4242))
    until(lambda: resident.logged() == 3)
    said = json.loads(lab.run("server", "nft", "-j", "list", "counter", "inet", "knockknock", "told").stdout)
    assert [one["counter"]["packets"] for one in said["nftables"] if "counter" in one] == [3]
    resident.open(FOUR)
    assert resident.logged() == 3
    lab.run("server", "nft", "delete", "table", "inet", "knockknock")
    with pytest.raises(FileNotFoundError):
        resident.logged()
