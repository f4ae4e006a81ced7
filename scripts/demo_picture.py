"""Makes docs/demo.svg: a terminal with what scripts/demo prints in a real run."""

import io
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 132
FORMAT = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: DejaVu Sans Mono, Menlo, Consolas, monospace; font-size: {char_height}px; }}
.{unique_id}-title {{ font-family: sans-serif; font-size: 18px; font-weight: bold; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""
"""rich's own has fonts of another server in it."""
STYLES = {
    r"^ ?\d+\..*": "bold",
    r"(?<=:)\s+ssh: .*": "red",
    r"hello from a shell on the server": "green",
    r"open tcp/22 .*": "green",
    r"Flags \[S\].*": "cyan",
}


def drawn(text: str) -> str:
    """The picture of a terminal that shows a text, as SVG."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    shown = Text(f"$ sudo scripts/demo\n{text}")
    for pattern, style in STYLES.items():
        shown.highlight_regex(f"(?m){pattern}", style)
    console.print(shown)
    return console.export_svg(title="scripts/demo", code_format=FORMAT, unique_id="demo")


def main() -> int:
    """Run the demo and write the picture."""
    done = subprocess.run([ROOT / "scripts" / "demo"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return done.returncode
    (ROOT / "docs" / "demo.svg").write_text(drawn(done.stdout))
    return 0


if __name__ == "__main__":
    sys.exit(main())
