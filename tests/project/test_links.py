"""The pages: links between them lead somewhere, and those that are to be short are."""

import re

import pytest

from ..helpers import ROOT

PAGES = sorted(path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))


def anchors(text: str) -> set[str]:
    """The names of a page's headings in links, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_anchors_are_those_of_github() -> None:
    assert anchors("# Use it, by `ssh`\ntext\n## A 0.8-profile\n") == {"use-it-by-ssh", "a-08-profile"}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", path.read_text()):
        there = path.parent / target if target else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there.read_text()), f"{target}#{anchor}"


@pytest.mark.parametrize(("page", "most"), [("README.md", 200), ("docs/DESIGN.md", 300), ("docs/GLOSSARY.md", 50)])
def test_short_pages(page: str, most: int) -> None:
    assert len((ROOT / page).read_text().splitlines()) <= most
