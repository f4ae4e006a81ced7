"""The systemd units, as systemd itself judges them."""

import re
import subprocess

import pytest

from knockknock.root import firewall

from ..helpers import ROOT

MOST = {"knockknock.service": 2.3, "knockknock-proxy@.service": 2.0}
"""Exposure, from 0 (none) to 10, as `systemd-analyze security` computes it; 0.3 of it are for legacy iptables."""


@pytest.mark.parametrize("unit", MOST)
def test_exposure(unit: str) -> None:
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(ROOT / "config" / unit)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= MOST[unit]
    assert "ignoring" not in done.stderr, "every setting is one that it knows"


SERVICES = sorted(path.name for path in (ROOT / "config").glob("*.service"))


def settings(unit: str) -> dict[str, str]:
    """Settings of a unit, each by its last line."""
    lines = [line for line in (ROOT / "config" / unit).read_text().splitlines() if "=" in line and line[:1] != "#"]
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


@pytest.mark.parametrize("unit", SERVICES)
def test_no_outage_is_too_long_and_nothing_grows_without_end(unit: str) -> None:
    found = settings(unit)
    if found.get("Type") == "oneshot":
        return
    assert {"MemoryMax", "LimitFSIZE"} <= found.keys()
    if "Restart" in found:
        assert (found["StartLimitIntervalSec"], found["RestartSec"]) == ("0", "5"), "a start takes half a second of CPU"


@pytest.mark.parametrize("unit", SERVICES)
def test_systemd_knows_every_setting(unit: str) -> None:
    """In its section; that the program is not where they look for it is all that is said."""
    words = ["systemd-analyze", "--man=no", "verify", str(ROOT / "config" / unit)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert all("is not executable" in line for line in done.stderr.splitlines()), done.stderr


def test_what_refuses_at_the_boot_is_where_the_daemon_writes_it() -> None:
    """Whatever its state directory is."""
    for text in ((ROOT / "config/knockknock-gate.service"), (ROOT / "debian/knockknock.postrm")):
        assert firewall.GATE in text.read_text()


def test_what_refuses_at_the_boot_is_active_from_the_first_start_on() -> None:
    """Else a restart of nftables.service, which takes away all tables, would not start it anew."""
    found = settings("knockknock-gate.service")
    assert not [key for key in found if key.startswith(("Condition", "Assert"))]
    assert (found["PartOf"], found["RemainAfterExit"]) == ("nftables.service", "yes")
    assert settings("knockknock.service")["Wants"] == "knockknock-gate.service"


def test_sending_for_others() -> None:
    """The unit and the sudoers rule that let others knock, as systemd and sudo read them."""
    words = [
        "systemd-analyze",
        "security",
        "--offline=true",
        "--no-pager",
        str(ROOT / "config/knockknock-send.service"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    found = re.search(r"Overall exposure level for knockknock-send.service: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= 2.0
    assert "ignoring" not in done.stderr, "every setting is one that it knows"
    words = ["visudo", "-c", "-f", str(ROOT / "config/knockknock-send.sudoers")]
    assert "parsed OK" in subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout


def test_what_a_hook_leaves_behind_ends_with_the_unit() -> None:
    assert settings("knockknock.service").get("KillMode", "control-group") == "control-group"


def test_no_burst_of_clients_ends_the_sender() -> None:
    assert settings("knockknock-send.socket")["TriggerLimitIntervalSec"] == "0"
    assert settings("knockknock-send.service")["StartLimitIntervalSec"] == "0"
