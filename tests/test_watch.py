"""What the root helper makes of announcements, and how often it then looks; the real ones are in tests/netns."""

import select
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from knockknock.errors import FirewallError
from knockknock.grant import NOTICE
from knockknock.root import watch
from knockknock.root.netlink import text

NEW_TABLE, DELETE_TABLE, DELETE_RULE, NEW_ELEMENT, DELETE_ELEMENT, NEW_GENERATION = 0, 2, 8, 12, 14, 15


def message(kind: int, body: bytes = b"body", subsystem: int = 10) -> bytes:
    """One netlink message."""
    return struct.pack("=IHHII", 16 + len(body), subsystem << 8 | kind, 0, 0, 0) + body + bytes(-len(body) % 4)


@pytest.mark.parametrize(
    ("kinds", "matters"),
    [
        ([NEW_GENERATION], False),
        ([NEW_ELEMENT, NEW_GENERATION], False),
        ([DELETE_ELEMENT, NEW_ELEMENT, NEW_ELEMENT], False),
        ([DELETE_RULE], True),
        ([NEW_TABLE, NEW_GENERATION], True),
        ([NEW_ELEMENT, DELETE_RULE, NEW_ELEMENT], True),
    ],
)
def test_what_matters(kinds: list[int], matters: bool) -> None:
    data = b"".join(message(kind, b"x" * (3 + kind)) for kind in kinds)
    found = [kind for kind, _ in watch._messages(data)]
    assert [kind & 0xFF for kind in found] == kinds
    assert any(map(watch._matters, found)) is matters


def test_other_subsystems_do_not_matter() -> None:
    assert not watch._matters(1 << 8 | DELETE_RULE)


@pytest.mark.parametrize("data", [b"", b"x", bytes(15), bytes(64), b"\xff" * 64, message(DELETE_RULE)[:17]])
def test_nonsense_ends(data: bytes) -> None:
    assert len(list(watch._messages(data))) <= len(data) // 16


class Fake:
    """A firewall that says what it is told to."""

    def __init__(self) -> None:
        self.says = ""
        self.fails = False

    def heal(self) -> str:
        if self.fails:
            raise FirewallError("the kernel has no mind to")
        return self.says


@pytest.fixture
def both() -> Iterator[tuple[watch.Watch, socket.socket, Fake]]:
    """A watch, and the daemon's end of its pair."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    try:
        looking = watch.Watch(theirs)
    except PermissionError:
        pytest.skip("needs root")
    with ours, theirs:
        yield looking, ours, Fake()


def heal(looking: watch.Watch, firewall: Fake) -> None:
    looking.heal(firewall)  # type: ignore[arg-type]  # it needs no more of a firewall


def test_nothing_to_heal_is_not_told(both: tuple[watch.Watch, socket.socket, Fake]) -> None:
    looking, ours, firewall = both
    heal(looking, firewall)
    with pytest.raises(BlockingIOError):
        ours.recv(4096)


def test_failure_is_told_once(both: tuple[watch.Watch, socket.socket, Fake]) -> None:
    looking, ours, firewall = both
    firewall.fails = True
    heal(looking, firewall)
    assert ours.recv(4096) == NOTICE + (
        b"after a change of the firewall's rules: the kernel has no mind to; tried again when they change again"
    )
    heal(looking, firewall)
    with pytest.raises(BlockingIOError):
        ours.recv(4096)
    firewall.fails, firewall.says = False, "placed"
    heal(looking, firewall)
    assert ours.recv(4096) == NOTICE + b"placed"


def test_pause_grows_and_comes_back(
    both: tuple[watch.Watch, socket.socket, Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, _, firewall = both
    now = time.monotonic() + 1000
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pauses = []
    for number in range(12):
        firewall.says = f"placed {number}"
        heal(looking, firewall)
        pauses.append(looking._pause)
        now += looking._pause
    assert pauses[0] == watch.SETTLE
    assert pauses == sorted(pauses)
    assert pauses[-1] == watch.LONGEST
    now += 1000
    firewall.says = "placed once more"
    heal(looking, firewall)
    assert looking._pause == watch.SETTLE


@pytest.mark.parametrize(
    ("kinds", "at_once"), [([DELETE_TABLE], True), ([DELETE_TABLE, NEW_TABLE], False), ([DELETE_RULE], False)]
)
def test_our_table_is_placed_again_at_once(
    both: tuple[watch.Watch, socket.socket, Fake], monkeypatch: pytest.MonkeyPatch, kinds: list[int], at_once: bool
) -> None:
    """Its ports are open while it is missing. One that is replaced is not missing."""
    looking, ours, firewall = both
    monkeypatch.setattr(watch, "SETTLE", 5)
    monkeypatch.setattr(firewall, "heal", lambda: str(ours.send(b"healed")))
    looking._changes, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with looking._changes, kernel:
        looking._changes.setblocking(False)
        looking._poll.register(looking._changes.fileno(), select.POLLIN)
        kernel.send(b"".join(message(kind, bytes(4) + text(1, "knockknock")) for kind in kinds))
        if not at_once:
            ours.send(b"record")
        began = time.monotonic()
        assert looking.record(firewall) == (b"healed" if at_once else b"record")  # type: ignore[arg-type]  # as above
        assert time.monotonic() - began < 4


def test_a_stopped_daemon_does_not_stop_the_helper(both: tuple[watch.Watch, socket.socket, Fake]) -> None:
    looking, _, firewall = both
    for number in range(2000):
        firewall.says = f"placed {number}" * 100
        heal(looking, firewall)


def test_a_record_is_handed_out(both: tuple[watch.Watch, socket.socket, Fake]) -> None:
    looking, ours, firewall = both
    ours.send(b"record")
    assert looking.record(firewall) == b"record"  # type: ignore[arg-type]  # as above
    ours.close()
    assert looking.record(firewall) == b""  # type: ignore[arg-type]  # as above
