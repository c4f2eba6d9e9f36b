"""The pages of the documentation: the site is built from them strictly, links lead somewhere, and commands do what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig import pages, wheels

pytestmark = pytest.mark.only_rwsgi(why="it is about rwsgi's documents")

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

# Pages of which no block is run by this test, and why. Every other page of docs/ is checked: each of its blocks has a mark.
UNCHECKED = {
}
# Checked pages outside of docs/.
ALSO = ()

CHECKED = sorted(path.name for path in DOCS.glob("*.md") if path.name not in UNCHECKED) + list(ALSO)


def page(name: str) -> Path:
    return DOCS / name if (DOCS / name).exists() else ROOT / name


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory):
    return wheels.make(tmp_path_factory.mktemp("wheels") / "w")


@pytest.mark.parametrize("name", CHECKED)
def test_every_block_says_how_it_is_tested(name):
    assert pages.unmarked(page(name).read_text()) == []


@pytest.mark.parametrize("name", [name for name in CHECKED if pages.steps(page(name).read_text())])
def test_the_commands_of_a_page_do_what_it_says(name, wheelhouse):
    with pages.Run(page(name), wheelhouse) as run:
        run.all()
