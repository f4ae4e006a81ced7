"""docs/THREATS.md names tests that exist; nobody can take one away, or rename it, without noticing."""

import ast
import re
from pathlib import Path

import pytest

from ..helpers import ROOT

PAGE = ROOT / "docs" / "THREATS.md"
NAMED = sorted(set(re.findall(r"\[(\w+)\]\(\.\./(tests/[^)]*)\)", PAGE.read_text())))


def named_in(path: Path) -> set[str]:
    """The names of a file's tests, of functions or assigned."""
    body = ast.parse(path.read_text()).body
    functions = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    assigned = {
        name.id for node in body if isinstance(node, ast.Assign) for name in node.targets if isinstance(name, ast.Name)
    }
    return {name for name in functions | assigned if name.startswith("test_")}


@pytest.mark.parametrize(("test", "file"), NAMED, ids=[f"{file}-{test}" for test, file in NAMED])
def test_named_test_exists(test: str, file: str) -> None:
    assert test in named_in(ROOT / file)


def test_every_row_names_a_test_or_says_what_does_not_hold() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.endswith("| test |")]
    assert len(rows) > 60
    strange = [row for row in rows if "](../tests/" not in row and "**" not in row and "scripts/" not in row]
    # A client that reads no answer has nothing that a test could send it.
    assert [row.split("|")[1].strip() for row in strange] == ["a server that was taken over"]
