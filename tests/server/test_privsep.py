"""The daemon's end of the pair: answers and notices come by the same way, in any order."""

import inspect
import socket
import textwrap
from collections.abc import Iterator

import pytest

from knockknock.errors import FirewallError, GrantError, PrivilegeError
from knockknock.root import helper as resident
from knockknock.root import record
from knockknock.root.record import DONE, FAILED, NOTICE, PLACED, SURVEYED, Grant, Order
from knockknock.server.privsep import Helper

from ..helpers import ROOT, SOURCE


@pytest.fixture
def ends() -> Iterator[tuple[Helper, socket.socket]]:
    """A Helper whose other end is ours."""
    helper = Helper.__new__(Helper)
    helper._pair, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    helper._notices, helper._late, helper.placed = [], [], False
    with helper._pair, theirs:
        yield helper, theirs


def test_notices_before_an_answer_are_kept(ends: tuple[Helper, socket.socket]) -> None:
    helper, theirs = ends
    for message in (NOTICE + b"first", NOTICE + b"second", DONE, NOTICE + b"third"):
        theirs.send(message)
    helper.obey(record.RELOAD)
    assert helper.notices(more=False) == ["first", "second"]
    assert helper.notices(more=True) == ["third"]
    assert helper.notices(more=False) == []


def test_the_source_is_drained_after_a_notice_too(ends: tuple[Helper, socket.socket]) -> None:
    """The helper is at work until its answer, whatever comes before that."""
    helper, theirs = ends
    theirs.send(NOTICE + b"first")
    drained = []

    def meanwhile() -> None:
        drained.append(helper._notices[:])
        if len(drained) == 2:
            theirs.send(DONE)

    helper.meanwhile = meanwhile
    helper.obey(record.RELOAD)
    assert drained == [["first"], ["first"]]


def test_the_reason_why_the_watch_has_ended_is_told(ends: tuple[Helper, socket.socket]) -> None:
    helper, theirs = ends
    theirs.send(FAILED + b"no memory")
    assert helper.notices(more=True) == ["no memory"]


def test_chains_that_may_refuse_are_said_of_what_they_refuse(ends: tuple[Helper, socket.socket]) -> None:
    helper, theirs = ends
    theirs.send(SURVEYED + b"any the chain a\n17/53 the chain b")
    found = []
    for order in (Grant(Order.OPEN, SOURCE, 6, 53, 1), Grant(Order.OPEN, SOURCE, 17, 53, 1)):
        theirs.send(DONE)
        found.append(helper.obey(order))
    theirs.send(DONE)
    assert helper.obey(Grant(Order.CLOSE, SOURCE, 17, 53, 0)) == ""
    assert found == ["the chain a", "the chain a, the chain b"]
    assert not helper.placed
    theirs.send(PLACED)
    assert helper.notices(more=True) == []
    assert helper.placed


def test_values_are_packed_behind_their_set(ends: tuple[Helper, socket.socket]) -> None:
    helper, theirs = ends
    theirs.send(DONE)
    helper.expect("classic", [bytes(16)], [b"x" * 16])
    assert theirs.recv(100) == bytes([11, 0, 0, 1]) + bytes(16) + b"x" * 16
    theirs.send(FAILED + b"full")
    with pytest.raises(FirewallError, match="full"):
        helper.expect("every_syn", [b"\0\x16"], [])


def test_refusal_behind_a_notice(ends: tuple[Helper, socket.socket]) -> None:
    helper, theirs = ends
    theirs.send(NOTICE + b"first")
    theirs.send(FAILED + b"no room")
    with pytest.raises(FirewallError, match="no room"):
        helper.obey(record.RELOAD)
    assert helper.notices(more=False) == ["first"]


@pytest.mark.parametrize("change", [{"port": 0}, {"seconds": 0}, {"protocol": 1}, {"address": b""}])
def test_what_would_end_the_helper_is_not_sent(
    ends: tuple[Helper, socket.socket], change: dict[str, int | bytes]
) -> None:
    """Whatever a packet has made the daemon ask for."""
    helper, theirs = ends
    theirs.setblocking(False)
    sane = Grant(Order.OPEN, bytes([192, 0, 2, 7]), 6, 22, 15)
    with pytest.raises(GrantError):
        helper.obey(sane._replace(**change))  # type: ignore[arg-type]  # one field at a time
    with pytest.raises(BlockingIOError):
        theirs.recv(100)


def test_end_of_the_helper_is_no_notice(ends: tuple[Helper, socket.socket]) -> None:
    helper, theirs = ends
    theirs.close()
    with pytest.raises(PrivilegeError, match="the root helper is gone"):
        helper.notices(more=True)


def test_readme_quotes_the_loop() -> None:
    """Of what keeps root, to the letter."""
    _, begin, loop = inspect.getsource(resident.serve).partition("    while ")
    assert len(loop.splitlines()) <= 16
    assert textwrap.indent(textwrap.dedent(begin + loop), "    ") in (ROOT / "README.md").read_text()
