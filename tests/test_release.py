"""What a release is made of, and the workflows that make it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest
import yaml
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.only_rwsgi(why="it is about rwsgi's sources")


def module(name: str):
    file = next(path for path in (ROOT / f"release/{name}.py", ROOT / "release" / name) if path.exists())
    spec = importlib.util.spec_from_loader(f"release_{name}", SourceFileLoader(f"release_{name}", str(file)))
    sys.modules[spec.name] = loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


plan = module("plan")


def build(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([ROOT / "release/build", *arguments], capture_output=True, text=True)


def tags(name: str) -> set[str]:
    return {str(tag) for tag in parse_wheel_filename(name)[3]}


def test_there_is_a_wheel_of_the_server_for_each_python_and_target():
    wheels = [artifact for artifact in plan.artifacts() if artifact.kind == "rwsgi"]
    assert len(wheels) == len(plan.PYTHONS) * len(plan.TARGETS) == len({wheel.file("1.2.3") for wheel in wheels})
    assert {version.rstrip("t") for version in plan.PYTHONS} == {f"3.{minor}" for minor in range(9, 16)}


def test_a_wheel_is_named_for_its_interpreter_and_the_oldest_c_library():
    gnu, musl = plan.TARGETS[0], plan.TARGETS[2]
    named = plan.Artifact("rwsgi", "rwsgi", gnu, "3.11").file("1.2.3")
    assert "cp311-cp311-manylinux_2_17_x86_64" in tags(named)
    named = plan.Artifact("rwsgi", "rwsgi", musl, "3.14t").file("1.2.3")
    assert tags(named) == {"cp314-cp314t-musllinux_1_2_x86_64"}


def test_rtops_wheel_is_for_every_python():
    for artifact in plan.artifacts(kinds=("rwsgi-top",)):
        assert all(tag.startswith("py3-none-") for tag in tags(artifact.file("1.2.3")))


def test_pip_on_this_machine_would_take_one_wheel_of_each_package():
    """Of the names in the table, those of this interpreter's tags: no two, which would leave pip to choose."""
    from packaging.tags import sys_tags

    ours = set(sys_tags())
    for kind in ("rwsgi", "rwsgi-top"):
        names = [artifact.file("1.2.3") for artifact in plan.artifacts(kinds=(kind,))]
        fitting = [name for name in names if ours & parse_wheel_filename(name)[3]]
        assert len(fitting) == 1, fitting


def found(tag: str, libraries: dict) -> dict:
    """What auditwheel says of a wheel whose symbols are all there."""
    overall = "linux_x86_64" if libraries else tag
    return {"overall_tag": overall, "sym_tag": tag, "external_libs": libraries, "unsupported_isa": False}


def test_a_wheel_for_musl_may_need_musl_by_its_own_name_and_nothing_else():
    judged, gnu, musl = module("build").judged, plan.TARGETS[0], plan.TARGETS[2]
    assert judged(found("musllinux_1_2_x86_64", {"libc.so": None}), musl) == "musllinux_1_2_x86_64"
    assert judged(found("musllinux_1_2_x86_64", {}), musl) == "musllinux_1_2_x86_64"
    for libraries in ({"libz.so.1": None}, {"libc.so": None, "libz.so.1": None}, {"libc.so.6": None}):
        assert judged(found("musllinux_1_2_x86_64", libraries), musl).startswith("FAILED")
    assert judged(found("musllinux_1_3_x86_64", {"libc.so": None}), musl).startswith("FAILED")
    assert judged(found("manylinux_2_17_x86_64", {"libc.so": None}), gnu).startswith("FAILED")
    assert judged(found("manylinux_2_17_x86_64", {}), gnu) == "manylinux_2_17_x86_64"


def test_a_free_threaded_interpreter_is_described_as_one():
    described = dict(line.split("=", 1) for line in plan.python_config("3.14t").splitlines())
    assert (described["version"], described["build_flags"], described["abi_tag"]) == ("3.14", "Py_GIL_DISABLED", "314t")
    described = dict(line.split("=", 1) for line in plan.python_config("3.14").splitlines())
    assert (described["version"], described["build_flags"], described["abi_tag"]) == ("3.14", "", "314")


def test_the_static_program_is_made_for_musl_alone():
    assert {artifact.target.musl for artifact in plan.artifacts(kinds=("static",))} == {True}


def test_the_build_lists_what_is_asked_for_in_the_workspaces_version():
    listed = build("--list", "--only", "rwsgi", "--python", "3.12", "--target", "aarch64-unknown-linux-gnu")
    version = re.search(r'(?ms)^\[workspace\.package\]\nversion = "(.*?)"', (ROOT / "Cargo.toml").read_text())[1]
    assert listed.stdout == f"rwsgi-{version}-cp312-cp312-manylinux2014_aarch64.manylinux_2_17_aarch64.whl\n"


@pytest.mark.parametrize("wrong", [("--only", "wheels"), ("--python", "3.8"), ("--target", "riscv64gc-unknown-linux-gnu")])
def test_the_build_refuses_what_it_does_not_know(wrong):
    refused = build("--list", *wrong)
    assert refused.returncode == 2
    assert f"'{wrong[1]}' is not one of" in refused.stderr


def test_who_packs_the_static_program_and_when_leaves_no_trace(tmp_path):
    pack = module("build").pack
    for when, mode, mask in ((1_000_000_000, 0o755, 0o022), (1_100_000_000, 0o700, 0o077)):
        directory = tmp_path / str(when) / "rtop-1.2.3"
        directory.mkdir(parents=True)
        for name in ("rtop", "LICENSE-MIT"):
            (directory / name).write_text(name)
            (directory / name).chmod(mode if name == "rtop" else 0o666 & ~mask)
            os.utime(directory / name, (when, when))
        pack(directory, tmp_path / f"{when}.tar.gz", 1_700_000_000)
    first, second = sorted(tmp_path.glob("*.tar.gz"))
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as packed:
        modes = {member.name: oct(member.mode) for member in packed}
    assert modes == {"rtop-1.2.3": "0o755", "rtop-1.2.3/LICENSE-MIT": "0o644", "rtop-1.2.3/rtop": "0o755"}


def test_sources_of_rust_that_are_not_all_there_are_not_taken(tmp_path, monkeypatch):
    toolchain = module("toolchain")
    programs = {
        "apt-get": "case $* in *download*) touch rust-src_1.2.3_all.deb ;; esac",
        "apt-cache": "echo '     1.2.3+dfsg-1 500'",
        # As when it is interrupted.
        "dpkg-deb": 'mkdir -p "$3/usr/src/rustc-1.2.3/library/std"; touch "$3/usr/src/rustc-1.2.3/library/std/Cargo.toml"; exit 1',
        "rustc": "echo /nowhere",
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(toolchain, "DEBIAN_KEYS", tmp_path)
    for _ in range(2):
        with pytest.raises(toolchain.NoStd, match="could not be had"):
            toolchain.sources("1.2.3", tmp_path)


@pytest.mark.parametrize("package", sorted(plan.PACKAGES))
def test_an_sdist_holds_all_that_it_is_built_from(package, tmp_path):
    """Its workspace resolves where there is no checkout, and what a licence asks for is there."""
    command = [BIN / "maturin", "sdist", "--manifest-path", ROOT / plan.PACKAGES[package] / "Cargo.toml", "--out", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path)
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    for file in ("PKG-INFO", "pyproject.toml", "Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT"):
        assert (unpacked / file).stat().st_size
    manifest = unpacked / plan.PACKAGES[package] / "Cargo.toml"
    metadata = ["cargo", "metadata", "--format-version", "1", "--manifest-path", manifest]
    resolved = subprocess.run(metadata, capture_output=True, text=True, env={**os.environ, "PYO3_PYTHON": sys.executable})
    assert resolved.returncode == 0, resolved.stderr
    assert str(ROOT) not in resolved.stdout
    # The same versions as here, none added.
    pinned = set(re.findall(r'(?m)^name = "(.*)"\nversion = "(.*)"', (ROOT / "Cargo.lock").read_text()))
    assert set(re.findall(r'(?m)^name = "(.*)"\nversion = "(.*)"', (unpacked / "Cargo.lock").read_text())) <= pinned
    # What is included in the sources' text is there, too.
    for source in unpacked.rglob("*.rs"):
        for included in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', source.read_text()):
            if "/tests" not in str(source) and source.name != "tests.rs":
                assert (source.parent / included).exists(), f"{source} includes {included}"


def test_the_workflows_pass_actionlint():
    actionlint = shutil.which("actionlint", path=f"{BIN}:{os.environ['PATH']}")
    assert actionlint, "actionlint is missing: tests/requirements.txt has it"
    found = subprocess.run([actionlint, "-no-color", *WORKFLOWS], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    assert {path.name for path in WORKFLOWS} >= {"ci.yml", "release.yml"}


def test_the_release_is_made_for_every_target():
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    rows = release["jobs"]["wheels"]["strategy"]["matrix"]["include"]
    assert {row["target"] for row in rows} == {target.triple for target in plan.TARGETS}
    # Each on a machine of its own kind, where what was built can be started.
    assert all(row["target"].startswith("aarch64") == row["runner"].endswith("-arm") for row in rows)


def test_every_action_is_pinned_by_its_commit():
    for workflow in WORKFLOWS:
        for action in re.findall(r"uses: (\S+.*)", workflow.read_text()):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", action), f"{workflow.name}: {action}"


def test_a_job_that_may_sign_or_write_runs_none_of_our_code():
    for workflow in WORKFLOWS:
        read = yaml.safe_load(workflow.read_text())
        assert read["permissions"] == {"contents": "read"}
        for name, job in read["jobs"].items():
            if "write" in job.get("permissions", {}).values():
                actions = [step["uses"].split("@")[0] for step in job["steps"] if "uses" in step]
                assert "actions/checkout" not in actions, f"{workflow.name}: {name}"


def test_each_project_is_published_from_an_environment_of_its_own():
    """Else PyPI takes one trusted publisher of a project that is yet to be made, and refuses the second."""
    job = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]["pypi"]
    assert {row["project"] for row in job["strategy"]["matrix"]["include"]} == set(plan.PACKAGES)
    assert job["environment"]["name"] == "pypi-${{ matrix.project }}"
    for project in plan.PACKAGES:
        assert f"`pypi-{project}`" in (ROOT / "docs/releasing.md").read_text()


@pytest.mark.parametrize("tag, status", [("v{}", 0), ("v9{}", 1), ("v{}rc1", 1)])
def test_a_tag_that_is_not_the_version_is_refused(tag, status, tmp_path):
    steps = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]["sdists"]["steps"]
    (script,) = (step["run"] for step in steps if step.get("name", "").startswith("The tag is the version"))
    version = re.search(r'(?ms)^\[workspace\.package\]\nversion = "(.*?)"', (ROOT / "Cargo.toml").read_text())[1]
    (tmp_path / "release").symlink_to(ROOT / "release")
    # With an address, whether or not it is set by now.
    (tmp_path / "Cargo.toml").write_text('repository = "https://example.org/rwsgi"\n')
    environment = {**os.environ, "GITHUB_REF_NAME": tag.format(version)}
    done = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stderr


def test_the_version_stands_in_one_place():
    """All packages take the workspace's; where crates.io wants it beside a path, it is the same."""
    manifest = (ROOT / "Cargo.toml").read_text()
    version = re.search(r'(?ms)^\[workspace\.package\]\nversion = "(.*?)"', manifest)[1]
    assert set(re.findall(r'path = "[^"]*", version = "(.*?)"', manifest)) <= {version}
    for package in plan.PACKAGES.values():
        assert "version.workspace = true" in (ROOT / package / "Cargo.toml").read_text()
        assert "version" in re.search(r"(?m)^dynamic = (\[.*\])", (ROOT / package / "pyproject.toml").read_text())[1]
