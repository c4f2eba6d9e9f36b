"""Debian's way of starting: the defaults that its uWSGI package ships, and an application's own file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from rig import http, other_user
from rig.server import Servers

APP = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'from Debian']\n"


@pytest.fixture(scope="module")
def default_ini(tmp_path_factory) -> str:
    """What is in the real package, which is not installed."""
    other_user.www_data()
    if shutil.which("apt-get") is None:
        pytest.skip("apt has the package")
    directory = tmp_path_factory.mktemp("package")
    command = "apt-get -qq download uwsgi || { apt-get -qq update && apt-get -qq download uwsgi; }"
    download = subprocess.run(["sh", "-c", command], cwd=directory, capture_output=True, text=True)
    assert download.returncode == 0, download.stderr
    (package,) = directory.glob("uwsgi_*.deb")
    subprocess.run(["dpkg", "-x", package, directory], check=True)
    return (directory / "usr/share/uwsgi/conf/default.ini").read_text()


@pytest.fixture
def for_all():
    """A directory that everybody may enter."""
    directory = other_user.place()
    yield directory
    shutil.rmtree(directory)


def test_the_packaged_defaults_and_an_applications_own_file(program, default_ini, address, tmp_path, for_all: Path):
    # As its init script does it: the directory is the user's, the names are in the environment, its own file comes last.
    run = for_all / "app" / "site"
    run.mkdir(parents=True)
    nobody = other_user.www_data()
    shutil.chown(run, nobody.pw_uid, nobody.pw_gid)
    # Nothing else in the file is a path of the machine's.
    (for_all / "default.ini").write_text(default_ini.replace("/run/uwsgi/", f"{for_all}/"))
    (for_all / "site.py").write_text(APP)
    own = for_all / "site.ini"
    own.write_text(f"[uwsgi]\nhttp-socket = {address}\nwsgi-file = {for_all}/site.py\nworkers = 1\n")
    serve = Servers(other_user.install(program, for_all / "venv"), tmp_path)
    try:
        server = serve(
            "--ini", for_all / "default.ini", "--ini", own, cwd=for_all, listens=[address],
            env={"UWSGI_DEB_CONFNAMESPACE": "app", "UWSGI_DEB_CONFNAME": "site"},
        )  # fmt: skip
        assert http.get(address, "/").body == b"from Debian"
        assert (run / "pid").read_text().strip() == str(server.pid)
        socket = (run / "socket").stat()
        assert (socket.st_uid, socket.st_mode & 0o777) == (nobody.pw_uid, 0o660)
        assert "there is no option" not in server.log()
    finally:
        serve.stop_all()
