"""Links in a directory of static files: which are followed, and what is sent when they change meanwhile."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from rig import http
from rig.server import Program

pytestmark = pytest.mark.only_rwsgi(why="uWSGI compares the beginnings of names")


@pytest.fixture
def files(tmp_path):
    """A directory of files, a secret beside it, and a link to that inside."""
    root = tmp_path / "files"
    (root / "css").mkdir(parents=True)
    (root / "css" / "site.css").write_text("body {}")
    (tmp_path / "secret.txt").write_text("secret")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    return root


@pytest.fixture
def linked(files, tmp_path):
    """Links of every kind: within the directory, out of it, into a safe place and into one whose name begins alike."""
    for name in ("safe", "safely"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shared.txt").write_text(name)
    (files / "relative.css").symlink_to("css/site.css")
    (files / "absolute.css").symlink_to(files / "css" / "site.css")
    (files / "around.css").symlink_to(f"../{files.name}/css/site.css")
    (files / "directory").symlink_to(tmp_path)
    (files / "safe.txt").symlink_to(tmp_path / "safe" / "shared.txt")
    (files / "safely.txt").symlink_to(tmp_path / "safely" / "shared.txt")
    (files / "circle").symlink_to("circle")
    return files


LINKS = {
    "/relative.css": True, "/absolute.css": True, "/around.css": True, "/link.txt": False, "/directory/secret.txt": False,
    "/directory/files/css/site.css": True, "/circle": False, "/css/site.css/": False, "/css/site.css/x": False,
}


@pytest.fixture(params=["openat2", "ENOSYS", "EPERM"])
def program(request, program, tmp_path):
    """The server where the kernel has openat2, where it has not (before Linux 5.6), and where a filter forbids it."""
    if request.param == "openat2":
        return program
    wrapper = tmp_path / "rwsgi"
    rig = Path(__file__).resolve().parent / "rig"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} {rig}/without_openat2.py {request.param} {program.path} "$@"\n')
    wrapper.chmod(0o755)
    return Program(str(wrapper))


def test_links_are_followed_within_the_directory_and_to_safe_places(serve, address, linked, tmp_path):
    serve("--http-socket", address, "--wsgi-file", "worklife.py", "--check-static", linked, "--static-safe", tmp_path / "safe")
    for path, expected in LINKS.items():
        assert http.get(address, path).body.startswith(b"body") is expected, path
    assert http.get(address, "/safe.txt").body == b"safe"
    # uWSGI compares the beginnings of names, and sends this one.
    assert http.get(address, "/safely.txt").body.isdigit()
    # Only links lead to a safe place.
    assert http.get(address, "/../safe/shared.txt").body.isdigit()


def test_a_link_that_changes_while_it_is_followed_never_leads_out(serve, address, files, tmp_path):
    """What was found to be inside is what is sent: the name is not looked up a second time."""
    serve("--http-socket", address, "--wsgi-file", "worklife.py", "--check-static", files)
    swapped, aside = files / "swapped", files / "aside"
    swapped.mkdir()
    for directory, text in ((swapped, "inside"), (tmp_path, "secret")):
        (directory / "data.txt").write_text(text)
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            swapped.rename(aside)
            swapped.symlink_to(tmp_path)
            swapped.unlink()
            aside.rename(swapped)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        with http.Connection(address) as connection:
            bodies = [connection.request("GET", "/swapped/data.txt").body for _ in range(5_000)]
    finally:
        ended.set()
        swapper.join()
    assert b"inside" in bodies
    assert bodies.count(b"secret") == 0
