"""The pictures that scripts/bench draws, of made-up figures."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from ..helpers import ROOT

CODE = """
import json, sys
from pathlib import Path
from benchmarks import plots
from benchmarks.floods import RATES
from benchmarks.summary import SOURCES, TOOLS
rows = [{"of": "opening", "what": f"knock to open, {tool}", "values": [2.0]} for tool in TOOLS]
rows += [{"of": "cost", "what": f"CPU per junk packet, {tool}", "values": [0.0]} for tool in TOOLS]
rows += [
    {"of": "floods", "name": tool, "rate": rate, "sources": sources, "delays": [1.0]}
    for tool in TOOLS for rate in RATES for sources in SOURCES
]
rows += [{"of": "kills", "name": t, "how": "all", "before": True, "after": False, "restarted": True} for t in TOOLS]
plots.draw({"where": "here", "rows": rows}, Path(sys.argv[1]))
"""


def test_all_are_drawn(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT}/scripts", "PATH": "/usr/bin", "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", CODE, str(tmp_path)], env=environment, check=True)
    drawn = {path.name for path in tmp_path.glob("*.svg")}
    assert drawn == {"knock-to-open.svg", "junk.svg", "floods.svg", "doors.svg", "fields.svg"}
    for path in tmp_path.glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
        assert (ROOT / "docs" / path.name).exists()
