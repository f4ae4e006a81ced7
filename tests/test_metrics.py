"""The file for Prometheus, in a directory that others may write to."""

import os
import threading
from pathlib import Path

import pytest

from knockknock.metrics import Metrics


def test_no_link_that_somebody_plants_is_followed(tmp_path: Path) -> None:
    """Neither at the place of the file nor at a name that can be foreseen."""
    victim, path = tmp_path / "victim", tmp_path / "textfile" / "knockknock.prom"
    victim.write_text("17\n")
    path.parent.mkdir()
    guesses = ("", ".new", ".tmp", f".{os.getpid()}", f".{os.getpid()}.{threading.get_ident()}")
    for name in (f"{before}{path.name}{after}" for before in ("", ".") for after in guesses):
        (path.parent / name).symlink_to(victim)
    planted = len(os.listdir(path.parent))
    Metrics(str(path), "1").write(0.0)
    assert victim.read_text() == "17\n"
    assert "knockknock_knocks_accepted" in path.read_text()
    assert (path.is_symlink(), path.stat().st_mode & 0o777) == (False, 0o644)
    assert len(os.listdir(path.parent)) == planted


def test_what_could_not_be_written_leaves_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "knockknock.prom"
    path.mkdir()
    Metrics(str(path), "1").write(0.0)
    assert f"textfile {path} cannot be written: Is a directory" in caplog.text
    assert os.listdir(tmp_path) == [path.name]
