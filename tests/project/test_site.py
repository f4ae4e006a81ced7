"""The web site of the documentation: it is built without a complaint, and a browser shows each page."""

import os
import subprocess
import sys
from pathlib import Path

from ..helpers import ROOT


def test_site(tmp_path: Path) -> None:
    subprocess.run(
        [str(ROOT / "scripts" / "docs"), str(tmp_path)], env=os.environ | {"PYTHON": sys.executable}, check=True
    )
    assert (tmp_path / "site" / "search.json").stat().st_size > 100_000


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    """Zensical is what looks: its word for a page and for a heading that are not there."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# A page\n\n[one](nowhere.md), [two](#nothing)\n")
    (tmp_path / "site.yml").write_text("site_name: a site\n")
    words = [sys.executable, "-m", "zensical", "build", "--strict", "-f", str(tmp_path / "site.yml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "page does not exist" in done.stdout + done.stderr
    assert "anchor does not exist" in done.stdout + done.stderr
