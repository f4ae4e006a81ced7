"""Words that the pages, the settings and the code do without (CONTRIBUTING.md)."""

import re
import subprocess

from ..helpers import ROOT

BANNED = re.compile(r"\b(whoever|whom|it is told of|as far as)\b", re.IGNORECASE)
WHERE = ("knockknock", "config", "docs", "README.md", "CONTRIBUTING.md", "SECURITY.md")


def test_no_sentence_has_to_be_read_twice_for_them() -> None:
    listed = subprocess.run(["git", "ls-files", *WHERE], cwd=ROOT, capture_output=True, text=True, check=True)
    found = [
        f"{name}:{number}: {line.strip()}"
        for name in listed.stdout.split()
        if not name.endswith(".svg")
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        if BANNED.search(line)
    ]
    assert found == []


def test_each_exception_to_a_check_has_its_reason() -> None:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = [
        f"{name}:{number}: {line.strip()}"
        for name in listed.stdout.split()
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        if re.search(r"# (type: ignore|noqa)", line)
        and not re.search(r"# (type: ignore\[[a-z-]+\]|noqa: [A-Z]+[0-9]+)  # \S", line)
    ]
    assert found == []
