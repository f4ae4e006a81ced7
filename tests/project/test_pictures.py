"""The pictures of the pages show what is so: docs/demo.svg is from a run of the demo as it is now."""

import html
import re

from ..helpers import ROOT
from ..netns.test_pages import SHOWS


def test_the_terminal_shows_what_the_demo_shows() -> None:
    """Made anew by scripts/demo-picture when the demo changes."""
    picture = (ROOT / "docs" / "demo.svg").read_text()
    lines: dict[str, str] = {}
    for height, text in re.findall(r"<text[^>]* y=\"([\d.]+)\"[^>]*>([^<]*)</text>", picture):  # some for each line
        lines[height] = lines.get(height, "") + html.unescape(text).replace("\xa0", " ")
    patterns = [pattern.replace(" +", " *") for pattern in SHOWS["sudo scripts/demo\n"]]
    assert re.search("(?s:.*)".join(patterns), "\n".join(lines.values())), lines
    assert "url(http" not in picture, "it takes nothing from another server"
