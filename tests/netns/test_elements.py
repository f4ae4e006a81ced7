"""Elements of sets as the kernel takes them from us, held against what nft itself makes and says of them."""

import errno
import ipaddress
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knockknock.errors import FirewallError
from knockknock.grant import Grant, Order
from knockknock.root import elements
from knockknock.root.nftables import Firewall

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


@pytest.fixture
def firewall(lab: Lab) -> Iterator[Firewall]:
    with inside(lab.ns("server")):
        made = Firewall([], 0)
        made.prepare()
        yield made


def listed(lab: Lab, name: str) -> list[Any]:
    """The elements of a set of ours, as nft says."""
    said = json.loads(lab.run("server", "nft", "-j", "-nn", "list", "set", "inet", "knockknock", name).stdout)
    return [item.get("elem", item) for one in said["nftables"] for item in one.get("set", {}).get("elem", ())]


def test_as_nft_makes_them(lab: Lab, firewall: Firewall) -> None:
    firewall.open(FOUR)
    firewall.open(SIX)
    (four,), (six,) = listed(lab, "once4"), listed(lab, "open6")
    assert (four["val"], four["timeout"]) == ({"concat": ["192.0.2.7", 6, 22]}, 15)
    assert (six["val"], six["timeout"]) == ({"concat": ["2001:db8::7", 17, 65535]}, 4_000_000)
    for name, key in (("once4", "192.0.2.7 . tcp . 22"), ("open6", "2001:db8::7 . udp . 65535")):
        lab.run("server", "nft", f"delete element inet knockknock {name} {{ {key} }}")
        assert listed(lab, name) == []
        lab.run("server", "nft", f"add element inet knockknock {name} {{ {key} timeout 9s }}")
    firewall.close(FOUR)
    firewall.close(SIX)
    assert not firewall.status()


@given(st.lists(grants, max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_door(firewall: Firewall, wanted: list[Grant]) -> None:
    """What is opened is what nft lists, once, with the time of the last; and what is closed is not there."""
    firewall.prepare()
    for grant in wanted:
        firewall.open(grant)
    doors = {one._replace(seconds=0): one.seconds for one in wanted}
    found = {one._replace(seconds=0): one.seconds for one in firewall.status()}
    assert found.keys() == doors.keys()
    assert all(0 <= doors[one] - found[one] <= 1 for one in doors)
    for grant in wanted:
        firewall.close(grant)
        firewall.close(grant)
    assert not firewall.status()


def test_all_or_nothing_and_none_of_it_is_heard_later(lab: Lab, firewall: Firewall) -> None:
    """Refused in the beginning, in the middle, at the end, and at once; then the next ones are carried out."""
    kernel = elements.Elements()
    add, absent, nowhere = elements.add("once4", FOUR), elements.delete("once4", FOUR), elements.add("none", FOUR)
    for changes in ((absent, add), (add, nowhere, add), (add, nowhere), (nowhere, absent, nowhere), (nowhere,)):
        with pytest.raises(FileNotFoundError):  # ENOENT
            kernel.change(*changes)
        assert listed(lab, "once4") == []
        kernel.change(add)
        assert len(listed(lab, "once4")) == 1
        kernel.change(absent)


def test_a_table_that_is_gone(lab: Lab, firewall: Firewall) -> None:
    lab.run("server", "nft", "flush ruleset")
    for change in (firewall.open, firewall.close):
        with pytest.raises(FirewallError, match=r"^nftables refused: No such file or directory$"):
            change(FOUR)
    firewall.prepare()
    firewall.open(FOUR)
    assert len(firewall.status()) == 1


def test_a_full_set(lab: Lab, firewall: Firewall) -> None:
    lab.run("server", "nft", "flush ruleset")
    small = "{ type ipv4_addr . inet_proto . inet_service; size 2; flags dynamic, timeout; }"
    lab.run("server", "nft", f"add table inet knockknock; add set inet knockknock once4 {small}")
    for last in (1, 2):
        firewall.open(FOUR._replace(address=bytes([10, 0, 0, last])))
    with pytest.raises(FirewallError, match=r"^nftables refused: Too many open files in system$"):
        firewall.open(FOUR)
    assert len(listed(lab, "once4")) == 2


def test_without_the_right_to(firewall: Firewall, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused as a whole is answered once, for the beginning."""
    monkeypatch.setattr(elements, "_NFTABLES", 11)  # NFNL_SUBSYS_NFT_COMPAT, which takes no batch
    with pytest.raises(OSError, match=r"."):
        elements.Elements().change(elements.add("once4", FOUR))


def test_used_up_in_between(firewall: Firewall, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our look for an element and its deletion a connection may use it up: then it is done again."""
    real, calls = firewall._elements.change, []

    def change(*changes: elements.Change) -> None:
        calls.append(changes)
        if len(calls) == 1:
            raise FileNotFoundError(errno.ENOENT, "gone")
        real(*changes)

    monkeypatch.setattr(firewall._elements, "change", change)
    firewall.open(FOUR)
    assert len(calls) == 2
    assert len(firewall.status()) == 1


def test_what_was_logged_is_counted_as_nft_says(lab: Lab, firewall: Firewall) -> None:
    firewall.watch([(17, 4242)], [])
    assert firewall.logged() == 0
    with inside(lab.ns("client")):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        for _ in range(3):
            client.sendto(b"", ("10.77.0.1", 4242))
    until(lambda: firewall.logged() == 3)
    said = json.loads(lab.run("server", "nft", "-j", "list", "counter", "inet", "knockknock", "told").stdout)
    assert [one["counter"]["packets"] for one in said["nftables"] if "counter" in one] == [3]
    firewall.open(FOUR)
    assert firewall.logged() == 3
    lab.run("server", "nft", "delete", "table", "inet", "knockknock")
    with pytest.raises(FirewallError, match="nftables does not tell what was logged: No such file"):
        firewall.logged()
