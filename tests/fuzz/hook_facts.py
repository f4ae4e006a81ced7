"""The record that the process that runs hooks is given."""

from knockknock.errors import GrantError
from knockknock.profiles.text import check_name
from knockknock.root.record import Grant, Order
from knockknock.server.hook_runner import environment
from knockknock.server.hooks import RECORD, Happened, pack, unpack

_DOOR = Grant(Order.OPEN_ONCE, bytes([192, 0, 2, 7]), 6, 22, 15)
CORPUS = [
    pack(Happened("laptop", _DOOR)),
    pack(Happened("a" * 64, Grant(Order.OPEN, bytes(range(16)), 17, 51820, 3600))),
    pack(Happened("l.p_t-p", Grant(Order.CLOSE, bytes(4), 6, 1, 0), "ended")),
    pack(Happened("gone", Grant(Order.CLOSE, bytes(4), 17, 1, 0), "revoked")),
    bytes(RECORD.size),
    b"",
]


def target(data: bytes) -> None:
    """A record raises GrantError, or is exactly what its facts are packed to, and harmless in an environment."""
    try:
        happened = unpack(data)
    except GrantError:
        return
    assert pack(happened) == data
    assert check_name(happened.profile)
    for key, value in environment(happened).items():
        assert (key + value).isascii()
        assert (key + value).isprintable()
        assert key == "PATH" or key.startswith("KNOCKKNOCK_")
