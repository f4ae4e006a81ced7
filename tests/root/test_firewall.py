"""The firewall's own part: the file that restores the gate at the next boot, whole or not there, and the removal."""

import errno
import os
import stat
from pathlib import Path

import pytest

from knockknock.errors import FirewallError
from knockknock.root import accept_rule, firewall, iptables_legacy, libnftables
from knockknock.root.policy import Policy

POLICY = Policy((), (), 15, "/var/lib/knockknock", 75, ((6, 22, 22),))


def test_written_for_root_alone_and_gone_when_nothing_is_protected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firewall, "GATE", str(tmp_path / "gate"))
    firewall._save_gate(POLICY)
    assert "table inet knockknock" in (tmp_path / "gate").read_text()
    assert stat.S_IMODE((tmp_path / "gate").stat().st_mode) == 0o600
    firewall._save_gate(POLICY._replace(protect=()))
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewall, "GATE", str(tmp_path / "gate"))
    firewall._save_gate(POLICY)
    before = (tmp_path / "gate").read_text()

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FirewallError, match="so the next boot would begin open: No space left on device"):
        firewall._save_gate(POLICY._replace(protect=((6, 1, 65535),)))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"gate": before}


def test_a_step_of_the_removal_that_fails_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def fails(*_: object) -> None:
        raise FirewallError("legacy iptables is broken")

    monkeypatch.setattr(firewall, "connect", lambda: None)
    monkeypatch.setattr(iptables_legacy, "look", fails)
    monkeypatch.setattr(accept_rule, "remove", lambda *_: done.append("accept rules"))
    monkeypatch.setattr(libnftables, "run", lambda _: done.append("table"))
    with pytest.raises(FirewallError, match="is broken"):
        firewall.Firewall(Policy((), (), 15, "/s", 75)).remove()
    assert done == ["accept rules", "table"]


@pytest.mark.parametrize(
    ("protect", "doors", "left"),
    [
        (((6, 22, 22),), ((6, 22, 22),), []),
        (((6, 22, 23),), ((6, 23, 23),), [(6, 22, 22)]),
        (((6, 1, 1024),), ((6, 443, 443), (6, 22, 22)), [(6, 1, 21), (6, 23, 442), (6, 444, 1024)]),
        (((6, 22, 22), (17, 53, 53)), ((17, 22, 22), (6, 53, 53)), [(6, 22, 22), (17, 53, 53)]),
        (((6, 80, 90),), ((6, 1, 65535),), []),
    ],
)
def test_ports_that_nobody_may_open(
    protect: tuple[tuple[int, int, int], ...], doors: tuple[tuple[int, int, int], ...], left: list[tuple[int, int, int]]
) -> None:
    assert firewall._without(protect, doors) == left


NOTHING = firewall.Survey(accept_rule.Look((), (), False, (), ()), ())


def test_doors_that_nothing_refuses_are_named() -> None:
    """With protect, too, which may name other ports."""
    policy = POLICY._replace(doors=((6, 22, 22), (17, 53, 60)), protect=((6, 22, 22), (17, 55, 55)))
    said = NOTHING.text(policy)
    assert "no other chain refuses input, so udp/53-54, udp/56-60 is open already: name it in protect =" in said
    assert "is open already" not in NOTHING.text(policy._replace(doors=((6, 22, 22),)))
    assert firewall.POINTLESS in NOTHING.text(policy._replace(protect=()))


def test_the_lock_of_legacy_iptables_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iptables_legacy, "XTABLES", str(tmp_path / "lock"))
    monkeypatch.setattr(iptables_legacy, "PATIENCE", 0.1)
    with (
        iptables_legacy._locked(),
        pytest.raises(FirewallError, match="another program holds"),
        iptables_legacy._locked(),
    ):
        pass
    with iptables_legacy._locked():
        pass
