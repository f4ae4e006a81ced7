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
