"""Each target on its corpus and on a bounded number of changed inputs; scripts/fuzz goes on from there for hours."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from ..helpers import ROOT
from . import TARGETS, grant_record
from .mutate import inputs

NUMBER = 20_000


@pytest.mark.parametrize("name", TARGETS)
def test_target(name: str) -> None:
    """The same inputs in every run, without feedback."""
    module = import_module(f"{__package__}.{name}")
    for data in inputs(module.CORPUS, NUMBER, 20260101):
        try:
            module.target(data)
        except Exception as error:
            pytest.fail(f"{module.__name__}.target({data!r}): {type(error).__name__}: {error}")


@pytest.mark.parametrize("name", TARGETS)
def test_fuzzer(name: str, tmp_path: Path) -> None:
    """A short run with feedback: atheris finds neither crash, hang nor growth."""
    pytest.importorskip("atheris", reason="there is no atheris for this Python")
    words = ["-m", "tests.fuzz", name, "--runs", str(NUMBER), "--seed", "1", "--length", "300"]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{name}: {NUMBER} inputs" in done.stdout


def test_inputs_are_the_same_every_time_and_many() -> None:
    runs = [list(inputs(grant_record.CORPUS, 1000, 1)) for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 800
