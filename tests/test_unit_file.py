"""The systemd unit, as systemd itself judges it."""

import re
import subprocess

from .helpers import ROOT

MOST = 2.0
"""Exposure, from 0 (none) to 10, as `systemd-analyze security` computes it."""


def test_exposure() -> None:
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(ROOT / "config" / "knockknock.service")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    found = re.search(r"Overall exposure level for knockknock.service: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= MOST
    assert "ignoring" not in done.stderr, "every setting is one that it knows"


def test_sending_for_others() -> None:
    """The unit and the sudoers rule that let others knock, as systemd and sudo read them."""
    words = [
        "systemd-analyze",
        "security",
        "--offline=true",
        "--no-pager",
        str(ROOT / "config/knockknock-send@.service"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    found = re.search(r"Overall exposure level for knockknock-send@i.service: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= MOST
    assert "ignoring" not in done.stderr, "every setting is one that it knows"
    words = ["visudo", "-c", "-f", str(ROOT / "config/knockknock-send.sudoers")]
    assert "parsed OK" in subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout
