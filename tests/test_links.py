"""Links between the documents lead to a file, and to a heading, that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/**/*.md"), *ROOT.glob("examples/**/*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")

pytestmark = pytest.mark.only_rwsgi(why="it is about rwsgi's documents")


def without_code(text: str) -> str:
    """The text of a page without its code blocks and comments, which may look like links and headings."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    return re.sub(r"^(?: {4}|\t).*$", "", text, flags=re.M)


def anchors(page: Path) -> set[str]:
    """The names that a page's headings have in links."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.*)$", without_code(page.read_text()), flags=re.M):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(name if name not in found else f"{name}-1")
    return found


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    wrong = []
    for link in LINK.findall(re.sub(r"`[^`]*`", "", without_code(page.read_text()))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# One\n\n## Two `x`: three\n")
    page = tmp_path / "page.md"
    page.write_text("[a](other.md#one) [b](other.md#two-x-three) [c](other.md#no) [d](gone.md) [e](#here)\n\n# Here\n")
    assert broken(page) == ["other.md#no", "gone.md"]
