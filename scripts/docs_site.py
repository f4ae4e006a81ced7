"""Builds a web site of README.md and docs/ in DIRECTORY/site, checks its links, and opens each page in Chromium.

usage: scripts/docs [DIRECTORY]         (default: build)
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOP = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
"""Pages beside the README that are in the site, too."""


def gather(pages: Path) -> None:
    """Put all pages and pictures into one folder, where the README is index.md."""
    pages.mkdir(parents=True)
    for path in (ROOT / "README.md", *(ROOT / name for name in TOP), *(ROOT / "docs").glob("*.md")):
        name = "index.md" if path.name == "README.md" else path.name
        (pages / name).write_text(moved(path.read_text()))
    for picture in (ROOT / "docs").glob("*.svg"):
        shutil.copy(picture, pages)


def moved(text: str) -> str:
    """A page with its links as they are in that folder; a link to what is no page is its text alone."""

    def link(found: re.Match[str]) -> str:
        words, target, anchor = found[1], found[2].removeprefix("../").removeprefix("docs/"), found[3] or ""
        target = "index.md" if target == "README.md" else target
        is_page = not target or target in TOP or (ROOT / "docs" / target).is_file() or target == "index.md"
        return f"[{words}]({target}{anchor})" if is_page else words

    return re.sub(r"\[([^\]]*)\]\((?!https?:)([^)#]*)(#[^)]*)?\)", link, text)


def opened(page: Path) -> str:
    """The text of a page as Chromium shows it."""
    with tempfile.TemporaryDirectory() as profile:
        words = [
            "chromium",
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={profile}",
            "--dump-dom",
        ]
        done = subprocess.run(
            [*words, page.as_uri()],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
            timeout=60,
        )
    return done.stdout


def main() -> int:
    """Build the site; the exit status is 1 if a link leads nowhere or a page cannot be shown."""
    build = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build").resolve()
    pages, site = build / "pages", build / "site"
    for place in (pages, site):
        shutil.rmtree(place, ignore_errors=True)
    gather(pages)
    shutil.copy(ROOT / "packaging" / "site.yml", build)
    words = [sys.executable, "-m", "zensical", "build", "--strict", "-f", str(build / "site.yml")]
    if subprocess.run(words, check=False).returncode:
        return 1
    for page in sorted(pages.glob("*.md")):
        title = re.findall(r"^# (.*)", page.read_text(), re.MULTILINE)[0]
        if title not in re.sub(r"<[^>]*>", "", opened(site / f"{page.stem}.html")):
            print(f"docs: {page.stem} is shown without its title, {title}", file=sys.stderr)
            return 1
    print(f"{site}/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
