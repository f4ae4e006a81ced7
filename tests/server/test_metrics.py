"""The file for Prometheus, in a directory that others may write to."""

import json
import os
import re
import subprocess
import threading
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from knockknock.cli.blocked import exposition
from knockknock.root.scan_guard import Counts
from knockknock.server.metrics import Metrics

from ..helpers import ROOT

ALERTS, DASHBOARD = ROOT / "config" / "knockknock-alerts.yml", ROOT / "config" / "knockknock-dashboard.json"


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


@pytest.fixture
def names(tmp_path: Path) -> set[str]:
    """The names of all metrics: those of the daemon's file, and those of `blocked --prometheus`."""
    path = tmp_path / "knockknock.prom"
    Metrics(str(path), "1").write(0.0)
    found = list(text_string_to_metric_families(path.read_text() + exposition(Counts(3, 2, 1), 1)))
    return {f"{one.name}_total" if one.type == "counter" else one.name for one in found}


def test_rules_are_what_prometheus_takes() -> None:
    subprocess.run(["promtool", "check", "rules", str(ALERTS)], check=True, capture_output=True)


@pytest.mark.parametrize("path", [ALERTS, DASHBOARD], ids=["alerts", "dashboard"])
def test_only_what_is_written_is_asked_for(path: Path, names: set[str]) -> None:
    asked = set(re.findall(r"\bknockknock_\w+", path.read_text()))
    assert len(asked) >= 2
    assert asked <= names


def test_all_metrics_are_in_the_dashboard_and_documented(names: set[str]) -> None:
    shown = " ".join(
        target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel["targets"]
    )
    assert {name for name in names if name not in shown} == set()
    page = (ROOT / "docs" / "operation.md").read_text()
    assert {name for name in names if f"`{name}" not in page} == set()


def test_every_expression_is_promql(tmp_path: Path) -> None:
    """promtool parses them as a rule's."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    rules = [{"record": "a:b", "expr": target["expr"]} for panel in panels for target in panel["targets"]]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    subprocess.run(["promtool", "check", "rules", "--lint=none", str(tmp_path / "rules.json")], check=True)
