"""The record that crosses the privilege line."""

from knockknock.errors import GrantError
from knockknock.root.record import RECORD, Order, pack, unpack

CORPUS = [
    bytes.fromhex("010406000016000fc0000207000000000000000000000000"),
    bytes.fromhex("02061100ca6c0e1020010db8000000000000000000000007"),
    bytes.fromhex("030406000016000000000000000000000000000000000000"),
    bytes.fromhex("040000000000000000000000000000000000000000000000"),
    bytes(24),
    b"",
]


def target(data: bytes) -> None:
    """A record raises GrantError, or is sane and exactly what its grant is packed to."""
    try:
        grant = unpack(data)
    except GrantError:
        return
    assert len(data) == RECORD.size
    assert pack(grant) == data
    if grant.order in (Order.RELOAD, Order.LOGGED):
        assert grant[1:] == (b"", 0, 0, 0)
    elif grant.order is Order.STATUS:
        assert grant[2:] == (0, 0, 0)
    elif grant.order is Order.BLOCK:
        assert grant[2:] == (0, 0, 0)
        assert len(grant.address) in (4, 16)
    else:
        assert grant.protocol in (6, 17)
        assert 1 <= grant.port <= 65535
        assert len(grant.address) in (4, 16)
        assert (grant.seconds == 0) is (grant.order is Order.CLOSE)
