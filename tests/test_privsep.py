"""The daemon's end of the pair: answers and notices come by the same way, in any order."""

import socket
from collections.abc import Iterator

import pytest

from knockknock import grant
from knockknock.errors import FirewallError, PrivilegeError
from knockknock.grant import DONE, FAILED, NOTICE
from knockknock.privsep import Helper


@pytest.fixture
def ends() -> Iterator[tuple[Helper, socket.socket]]:
    """A Helper whose other end is ours."""
    helper = Helper.__new__(Helper)
    helper._pair, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    helper._notices = []
    with helper._pair, theirs:
        yield helper, theirs


def test_notices_before_an_answer_are_kept(ends: tuple[Helper, socket.socket]) -> None:
    helper, theirs = ends
    for message in (NOTICE + b"first", NOTICE + b"second", DONE, NOTICE + b"third"):
        theirs.send(message)
    helper.obey(grant.RELOAD)
    assert helper.notices(more=False) == ["first", "second"]
    assert helper.notices(more=True) == ["third"]
    assert helper.notices(more=False) == []


def test_refusal_behind_a_notice(ends: tuple[Helper, socket.socket]) -> None:
    helper, theirs = ends
    theirs.send(NOTICE + b"first")
    theirs.send(FAILED + b"no room")
    with pytest.raises(FirewallError, match="no room"):
        helper.obey(grant.RELOAD)
    assert helper.notices(more=False) == ["first"]


def test_end_of_the_helper_is_no_notice(ends: tuple[Helper, socket.socket]) -> None:
    helper, theirs = ends
    theirs.close()
    with pytest.raises(PrivilegeError, match="the root helper is gone"):
        helper.notices(more=True)
