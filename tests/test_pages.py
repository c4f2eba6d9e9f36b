"""The pages of the documentation: the site is built from them strictly, links lead somewhere, and commands do what is shown."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

from rig import pages, wheels
from test_links import anchors

pytestmark = pytest.mark.only_rwsgi(why="it is about rwsgi's documents")

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

# Pages of which no block is run by this test, and why. Every other page of docs/ is checked: each of its blocks has a mark.
UNCHECKED = {
    "design.md": "it has diagrams and no commands",
    "find-it.md": "rtop is steered by keys: test_find_it.py does that",
    "fleet.md": "it needs many servers, other machines, DNS and Prometheus: test_fleet.py and test_fleet_sources.py have them",
    "kubernetes.md": "it needs Docker and a cluster: test_image.py and test_kubernetes.py run what can be run without",
}
# Checked pages outside of docs/.
ALSO = ("README.md",)

# Programs of the system that pages run. tests/run installs them as root.
NEEDS = {
    "deploy.md": ("nginx", "systemd-analyze", "logrotate", "openssl", "curl"), "deploys.md": ("ab",), "https.md": ("openssl",),
    "install.md": ("curl",), "quick-start.md": ("curl", "tmux"), "rtop.md": ("ab",), "stacks.md": ("ab",),
}

CHECKED = sorted(path.name for path in DOCS.glob("*.md") if path.name not in UNCHECKED) + list(ALSO)


HAS_CODE = re.compile(r"^(?:\s*```|    \S)", re.M)


def page(name: str) -> Path:
    return DOCS / name if (DOCS / name).exists() else ROOT / name


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory):
    return wheels.make(tmp_path_factory.mktemp("wheels") / "w")


def build(directory: Path, *arguments: object, config: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    """Makes the site, in which a warning is an error."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", config, "--site-dir", directory, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, by the names of its files."""
    directory = tmp_path_factory.mktemp("site") / "site"
    done = build(directory)
    assert done.returncode == 0, done.stdout + done.stderr
    return {str(path.relative_to(directory)): Html(path.read_text()) for path in directory.rglob("*.html")}, directory


class Html(HTMLParser):
    """What a page of the site has: names, links, what it loads, and the elements of its text in their order."""

    ELEMENTS = ("h1", "h2", "h3", "h4", "h5", "li", "pre", "table", "tr", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.links, self.loads, self.elements = set(), [], [], []
        self.in_text = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if "id" in found:
            self.ids.add(found["id"])
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(found["href"])
        elif "src" in found:
            self.loads.append(found["src"])
        if tag == "article":
            self.in_text = True
        elif self.in_text and tag in self.ELEMENTS:
            self.elements.append(tag)

    def handle_endtag(self, tag):
        self.in_text = self.in_text and tag != "article"


def test_every_link_of_the_site_leads_to_a_file_and_a_heading(site):
    found, directory = site
    wrong = []
    for name, html in found.items():
        for link in html.links + html.loads:
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = ((directory / name).parent / unquote(path)).resolve() if path else directory / name
            target = target / "index.html" if target.is_dir() else target
            # The page for what is not found knows no directory that it is in.
            if name != "404.html" and not target.is_file():
                wrong.append(f"{name}: {link}")
            elif anchor and target.suffix == ".html" and unquote(anchor) not in found[str(target.relative_to(directory))].ids:
                wrong.append(f"{name}: {link}")
    assert wrong == []
    assert {"index.html", "quick-start.html", "source/CONTRIBUTING.html", "source/deploy/nginx/proxy.conf.html"} <= set(found)


def test_the_site_loads_nothing_from_elsewhere(site):
    found, directory = site
    assert [(name, load) for name, html in found.items() for load in html.loads if re.match(r"(?:[a-z]+:)?//", load)] == []
    styles = "".join(path.read_text() for path in directory.rglob("*.css"))
    assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", styles) == []


def test_the_search_knows_every_page_of_docs(site):
    told = json.loads((site[1] / "search" / "search_index.json").read_text())["docs"]
    found = {entry["location"].partition("#")[0] for entry in told}
    assert {path.name.replace(".md", ".html") for path in DOCS.glob("*.md")} - found == set()
    assert not [name for name in found if name.startswith("source/deploy")]


@pytest.mark.parametrize("name", sorted(path.name for path in DOCS.glob("*.md")))
def test_a_page_has_the_same_on_the_site_as_on_a_repository_page(site, name):
    """Lists, blocks and tables that one of the two readers of Markdown would take for something else are found here."""
    html = site[0][name.replace(".md", ".html")]
    wanted = []
    tags = {"heading_open": None, "list_item_open": "li", "fence": "pre", "code_block": "pre", "table_open": "table", "tr_open": "tr"}
    for token in MarkdownIt("commonmark").enable("table").parse((DOCS / name).read_text()):
        if token.type in tags:
            wanted.append(tags[token.type] or token.tag)
        wanted += [child.tag for child in token.children or [] if child.type == "image"]
    assert html.elements == wanted
    assert anchors(DOCS / name) <= html.ids


@pytest.mark.parametrize("name", sorted(path.name for path in DOCS.glob("*.md")))
def test_the_rows_of_a_table_have_as_many_cells_as_its_head(name):
    wrong, columns = [], None
    for number, line in enumerate((DOCS / name).read_text().splitlines(), 1):
        cells = len(re.findall(r"(?<!\\)\|", line.strip())) if line.lstrip().startswith("|") else None
        columns = (columns or cells) if cells else None
        if cells != columns:
            wrong.append(f"line {number}: {line}")
    assert wrong == []


def test_a_wrong_link_and_a_wrong_anchor_fail_the_build(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# One\n\n[a](gone.md) [b](#two)\n")
    config = (ROOT / "mkdocs.yml").read_text().split("\nnav:")[0]
    config = config.replace("hooks: [docs/site/hooks.py]", "").replace("extra_css: [site/site.css]", "")
    (tmp_path / "mkdocs.yml").write_text(config)
    done = build(tmp_path / "site", config=tmp_path / "mkdocs.yml")
    assert done.returncode != 0
    assert "gone.md" in done.stderr and "#two" in done.stderr


@pytest.mark.parametrize("name", CHECKED)
def test_every_block_says_how_it_is_tested(name):
    assert pages.unmarked(page(name).read_text()) == []


# On a busy machine: environments for Python are made and filled.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name in CHECKED if HAS_CODE.search(page(name).read_text())])
def test_the_commands_of_a_page_do_what_it_says(name, wheelhouse):
    missing = [program for program in NEEDS.get(name, ()) if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    with pages.Run(page(name), wheelhouse) as run:
        run.all()


def test_only_these_pages_are_not_checked():
    """So that the gap is seen, and does not grow by itself."""
    assert [name for name in UNCHECKED if not (DOCS / name).exists()] == []
    assert len(UNCHECKED) <= 4


PAGE = """
<!-- places: /srv/mysite -->

```python title="/srv/mysite/app.py"
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"Hello\\n"]
```

<!-- run: server -->
```console
$ cd /srv/mysite
$ rwsgi --http-socket 127.0.0.1:8000 --wsgi-file app.py
…
… http-socket on 127.0.0.1:8000
…
```

<!-- run -->
```console
$ pwd; curl -s http://127.0.0.1:8000/
/srv/mysite
Hello
```

<!-- stop -->

1. In a list, with two commands of which the last one fails:

   <!-- run: exit 3 -->
   ```console
   $ true
   $ echo one two three; sh -c 'exit 3'
   one … three
   ```

<!-- options -->
    processes = 4

<!-- not run: it would fail -->
```sh
false
```
"""


def ran(tmp_path, text: str) -> None:
    (tmp_path / "page.md").write_text(text)
    with pages.Run(tmp_path / "page.md", tmp_path) as run:
        run.all()


def test_a_page_is_run(tmp_path):
    assert pages.unmarked(PAGE) == []
    ran(tmp_path, PAGE)


@pytest.mark.parametrize(("right", "wrong", "why"), [
    ("\nHello\n```", "\nHullo\n```", "the page shows\n/srv/mysite\nHullo"),
    ("one … three", "one … four", "the page shows\none … four"),
    ("exit 3 -->", "exit 4 -->", "ended with status 3 and not 4"),
    ("<!-- run: exit 3 -->", "<!-- run -->", "failed with status 3"),
    ("processes = 4", "prosesses = 4", "did you mean 'processes'"),
    ("--wsgi-file app.py", "--wsgi-file app.py --processes -1", "the server ended while it started"),
    ("<!-- not run: it would fail -->", "<!-- not run -->", "gives no reason"),
    ("<!-- not run: it would fail -->", "<!-- run -->", "failed with status 1"),
    ("<!-- not run: it would fail -->", "", "has no mark"),
    ("<!-- places: /srv/mysite -->", "", "outside of the page's directory"),
], ids=lambda value: value.strip()[:30])  # fmt: skip
def test_what_a_page_says_wrongly_is_found(tmp_path, right, wrong, why):
    assert right in PAGE
    with pytest.raises(AssertionError, match=re.escape(why)):
        ran(tmp_path, PAGE.replace(right, wrong))


def test_a_block_without_a_mark_is_found():
    assert pages.unmarked("# One\n\n    rwsgi\n\n<!-- run -->\n```sh\ntrue\n```\n\n```sh\nfalse\n```\n") == ["line 3: rwsgi", "line 10: false"]
