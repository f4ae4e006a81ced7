"""The pages say how many lines run as root, as scripts/root-table counts them."""

import re
import subprocess

from ..helpers import ROOT


def test_the_pages_have_the_numbers_of_today() -> None:
    done = subprocess.run([ROOT / "scripts" / "root-table"], capture_output=True, text=True, check=True)
    rows = done.stdout.splitlines()[2:]
    assert len(rows) == 7
    design = (ROOT / "docs" / "DESIGN.md").read_text().splitlines()
    assert [row for row in rows if row not in design] == []
    counts = [row.split(" | ")[-1].removesuffix(" |") for row in rows]
    said = re.search(
        "([0-9,]+) lines that open ports.*; ([0-9,]+) that watch rules.*; up to ([0-9,]+) that place",
        (ROOT / "README.md").read_text(),
    )
    assert said
    assert list(said.groups()) == [counts[3], counts[2], counts[1]]
