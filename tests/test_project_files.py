"""What others read of the project: README and its pictures, packages' descriptions, the change log, forms for issues."""

from __future__ import annotations

import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from rig import chromium
from rig.chromium import Chromium
from rig.waiting import until

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "bench"))

import animation  # noqa: E402
import overview  # noqa: E402

pytestmark = pytest.mark.only_rwsgi(why="it is about the project's files")

README = (ROOT / "README.md").read_text()
PACKAGES = {"rwsgi": "server", "rwsgi_top": "top"}
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
# Nothing that these tests need comes from a network.
OFFLINE = {**os.environ, "CARGO_NET_OFFLINE": "true"}

needs_cargo = pytest.mark.skipif(shutil.which("cargo") is None, reason="it reads manifests with cargo, which is not here")


def run(*command: object, **options) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=280, cwd=ROOT, env=OFFLINE, **options, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


# --- README and its pictures


def test_readme_is_read_in_a_minute():
    text = re.sub(r"^\|.*\n|<!--.*?-->", "", README, flags=re.M)
    assert len(text.split()) < 600, "move the details to docs/"


def test_each_row_of_the_table_says_something_of_every_server():
    rows = [line.strip("|").split("|") for line in README.splitlines() if line.startswith("| ") and "---" not in line]
    assert [cell.split()[0] for cell in rows[0] if cell.strip()] == ["rwsgi", "uWSGI", "gunicorn", "granian", "mod_wsgi"]
    assert len(rows) > 15
    for row in rows[1:]:
        assert len(row) == 6 and all(cell.strip() for cell in row), row
    # It says where others have more.
    assert sum("**" in row[1] for row in rows) >= 5


@pytest.mark.parametrize("name", ["rtop.svg", "performance.svg"])
def test_a_picture_is_small_and_needs_nothing_else(name):
    assert f"(docs/{name})" in README
    text = (ROOT / "docs" / name).read_text()
    assert len(text.encode()) < 300_000
    elements = list(ElementTree.fromstring(text).iter())
    assert {element.tag.rpartition("}")[2] for element in elements} <= set("svg title style rect circle path text tspan g".split())
    assert not [value for element in elements for key, value in element.attrib.items() if "href" in key or "url(" in value]


def test_the_animation_stands_still_for_who_prefers_that():
    assert "@media (prefers-reduced-motion:reduce){.f{animation:none}" in (ROOT / "docs" / "rtop.svg").read_text()


@pytest.mark.skipif(chromium.found() is None, reason="Chromium is not installed: apt-get install chromium")
def test_the_animation_shows_one_frame_at_a_time_and_begins_again(tmp_path):
    browser = Chromium(tmp_path)
    try:

        def shown(second: float) -> tuple[int, bytes]:
            browser.ask(f"document.getAnimations().forEach(a => {{ a.pause(); a.currentTime = {second * 1000} }})")
            visible = browser.ask(
                "[...document.querySelectorAll('.f')].map((f, i) => getComputedStyle(f).visibility == 'visible' ? i : '').join('')"
            )
            return int(str(visible)), browser.screenshot(0, 0, 900, 600)

        browser.open(ROOT / "docs" / "rtop.svg")
        frames = int(str(browser.ask("document.querySelectorAll('.f').length")))
        assert frames >= 8
        first, last = shown(0.5), shown(frames - 0.5)
        assert (first[0], last[0]) == (0, frames - 1)
        assert first[1] != last[1]
        until(lambda: shown(frames + 0.5) == first, "it begins again")
        # The screen is wide enough for what it shows.
        wide = "Math.max(...[...document.querySelectorAll('tspan')].map(t => t.getBBox().x + t.getBBox().width))"
        assert float(str(browser.ask(wide))) <= float(str(browser.ask("document.documentElement.viewBox.baseVal.width")))
        browser.media(prefers_reduced_motion="reduce")
        browser.open(ROOT / "docs" / "rtop.svg")
        assert browser.ask("document.getAnimations().length") == 0
        until(lambda: browser.screenshot(0, 0, 900, 600) == first[1], "it is drawn as the first frame")
    finally:
        browser.close()


def test_a_film_draws_once_what_no_frame_changes():
    plain, red = animation.Style(), animation.Style(front="#ff0000", bold=True)
    rows = [(("same <row>", plain),), (("REQ 1", red), ("  ██▄", plain))]
    frames = [
        animation.Frame("first", tuple(rows)),
        animation.Frame("second", (rows[0], (("REQ 2", red), ("  █▄▄", plain)))),
    ]
    made = animation.svg(frames, 20)
    assert made.count("same &lt;row&gt;") == 1 and made.count("REQ 1") == 1 and made.count("REQ 2") == 1
    assert "animation:f 2s step-end infinite" in made and "50.0000%" in made
    assert ".s0{fill:#ff0000;font-weight:700}" in made
    # Two full blocks are one box, twice as wide as one.
    assert f"h{2 * animation.WIDE:.4g}v{animation.HIGH}h" in made


def test_the_chart_shows_what_the_page_says_and_where_others_are_better():
    page = (ROOT / "docs" / "performance.md").read_text()
    assert (ROOT / "docs" / "performance.svg").read_text() == overview.chart(page), "run bench/overview.py"
    facts, works = overview.read(page)
    assert facts["measured"] in README or facts["measured"] in overview.chart(page)
    assert "prefers-color-scheme:dark" in overview.chart(page)
    ours, theirs = "rwsgi --http-socket", "uwsgi --http-socket"
    lost = {work for work, row in works.items() if ours in row and theirs in row and row[ours].median > row[theirs].median}
    assert lost <= overview.WORKS.keys(), "uWSGI needs less for a work that the chart does not show"


# --- Packages


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The source distribution of each package."""
    directory = tmp_path_factory.mktemp("sources")
    if shutil.which("cargo") is None:
        pytest.skip("maturin makes source distributions with cargo, which is not here")
    for part in PACKAGES.values():
        run(sys.executable, "-m", "maturin", "sdist", "--manifest-path", f"{part}/Cargo.toml", "--out", directory)
    return directory


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_package_describes_itself(sources, name):
    from trove_classifiers import classifiers

    [archive] = sources.glob(f"{name}-[0-9]*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", archive)
    with tarfile.open(archive) as files:
        top = archive.name.removesuffix(".tar.gz")
        told = email.message_from_bytes(files.extractfile(f"{top}/PKG-INFO").read())
        names = files.getnames()
    assert {f"{top}/LICENSE-MIT", f"{top}/LICENSE-APACHE", f"{top}/Cargo.lock"} <= set(names)
    assert told["License-Expression"] == "Apache-2.0 OR MIT"
    assert told.get_all("License-File") == ["LICENSE-APACHE", "LICENSE-MIT"]
    assert told["Summary"] and told["Keywords"] and told["Requires-Python"] == ">=3.9"
    assert told["Description-Content-Type"].startswith("text/markdown")
    assert f"# {name.replace('_', '-')}\n" in told.get_payload()
    assert told.get_all("Project-URL") == [f"Source Code, {repository()}"]
    assert told.get_all("Classifier") and set(told.get_all("Classifier")) <= set(classifiers)
    # On an index there is nothing beside it.
    assert re.findall(r"\]\((?!https?:)[^)]*\)", told.get_payload()) == []


def manifests() -> list[dict]:
    told = json.loads(run("cargo", "metadata", "--no-deps", "--format-version", "1"))
    return told["packages"]


def repository() -> str:
    [address] = {package["repository"] for package in manifests() if package["publish"] is None}
    return address


@needs_cargo
def test_every_crate_describes_itself():
    crates = [package for package in manifests() if package["publish"] is None]
    assert {"rwsgi", "rwsgi-top"} <= {crate["name"] for crate in crates}
    for crate in crates:
        assert crate["description"] and crate["license"] and crate["rust_version"] and crate["categories"], crate["name"]
        assert 0 < len(crate["keywords"]) <= 5 and all(re.fullmatch(r"[a-z][\w+-]{0,19}", word) for word in crate["keywords"])
        text = (Path(crate["manifest_path"]).parent / crate["readme"]).read_text()
        assert text.startswith(f"# {crate['name']}\n"), crate["name"]


@needs_cargo
def test_crates_can_be_packaged(tmp_path):
    """Without a build, which the rest of the tests have: that crates.io takes what the manifests say."""
    release = re.match(r"cargo 1\.(\d+)", run("cargo", "--version"))
    if release and int(release[1]) < 90:
        pytest.skip("before 1.90, cargo packages no crates that need one another and are on no index yet")
    own = [package["name"] for package in manifests() if package["publish"] == []]
    left_out = [argument for name in own for argument in ("--exclude", name)]
    run("cargo", "package", "--workspace", *left_out, "--no-verify", "--allow-dirty", "--quiet", "--target-dir", tmp_path)
    assert len(list((tmp_path / "package").glob("*.crate"))) == len(manifests()) - len(own)


def content(path: Path) -> bytes:
    """Of a file that another test may just have removed."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


@needs_cargo
def test_the_address_of_the_repository_stands_in_one_place():
    """As long as nobody knows it, it is one of `.invalid`: it is set in Cargo.toml before a release, and nowhere else."""
    address = repository()
    assert re.fullmatch(r"https://[\w.-]+/[\w./-]+", address)
    found = []
    for directory, directories, names in os.walk(ROOT):
        # What was built, fetched or checked out may have it.
        directories[:] = [name for name in directories if name not in ("target", ".git", "__pycache__", "node_modules", ".venv")]
        paths = [Path(directory) / name for name in names if not name.endswith((".so", ".pyc"))]
        found += [path for path in paths if path.is_file() and address.encode() in content(path)]
    assert [str(path.relative_to(ROOT)) for path in found] == ["Cargo.toml"]


# --- The change log, rules, forms


def test_the_change_log_keeps_its_form():
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (.*)$", text, re.M)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions[1:])
    kinds = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        found = re.findall(r"^### (.*)$", section, re.M)
        assert found == [kind for kind in kinds if kind in found], found
        for part in re.split(r"^### ", section, flags=re.M)[1:]:
            assert re.search(r"^- ", part, re.M), f"nothing in {part.splitlines()[0]}"
    for entry in re.findall(r"^- (.*(?:\n  .*)*)", text, re.M):
        assert entry.endswith("."), entry


def test_who_takes_part_finds_the_rules():
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    for name in ("CODE_OF_CONDUCT.md", "SECURITY.md", "CHANGELOG.md"):
        assert f"({name})" in contributing and (ROOT / name).exists()
    for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"):
        assert f"({name})" in README
    assert "CONTRIBUTING.md" in (ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md").read_text()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_a_form_is_one_that_github_takes(form):
    schema = "github-issue-config" if form.name == "config.yml" else "github-issue-forms"
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", form)


def test_forms_ask_for_versions_and_a_form_that_is_wrong_is_found(tmp_path):
    import yaml

    assert {form.stem for form in FORMS} == {"bug", "moving", "feature", "config"}
    for form in FORMS:
        fields = [field for field in yaml.safe_load(form.read_text()).get("body", []) if field["type"] != "markdown"]
        names = [field["id"] for field in fields]
        assert len(set(names)) == len(names)
        assert "version" in names or form.stem not in ("bug", "moving")
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(FORMS[0].read_text() if FORMS[0].stem != "config" else FORMS[1].read_text())
    wrong.write_text(wrong.read_text().replace("type: textarea", "type: text area"))
    with pytest.raises(AssertionError):
        run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-issue-forms", wrong)
