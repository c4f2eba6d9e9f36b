"""The ini form of the options, each by its effect."""

from __future__ import annotations

import json
import os
import sys
import venv

import pytest

from rig import http, stats, uwsgi
from rig.addresses import tcp
from rig.server import APPS

OF_RWSGI = pytest.mark.only_rwsgi(why="uWSGI has another default, key or word for it")


@pytest.fixture
def serve_ini(serve, tmp_path):
    """Starts a server with an ini file of these keys."""

    def start(keys: list[tuple[str, object]], listens: list[str], section="uwsgi", **options):
        file = tmp_path / "app.ini"
        file.write_text(f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in keys))
        return serve("--ini", file, listens=listens, **options)

    return start


def test_every_socket_and_size(serve_ini, stats_at):
    router, plain, packets = tcp(), tcp(), tcp()
    keys = [("http", router), ("http-socket", plain), ("socket", packets), ("stats", stats_at), ("master", "true")]
    keys += [("wsgi-file", "foobar.py"), ("processes", 3), ("threads", 2)]
    serve_ini(keys, [router, plain, packets, stats_at])
    workers = stats.read(stats_at)["workers"]
    assert [len(worker["cores"]) for worker in workers] == [2, 2, 2]
    assert http.get(plain, "/").body == uwsgi.get(packets, "/").body == b"Hello World"


@OF_RWSGI
@pytest.mark.parametrize("section", ["uwsgi", "rwsgi"])
def test_either_section_is_read(serve_ini, address, section):
    serve_ini([("http-socket", address), ("wsgi-file", "foobar.py")], [address], section=section)
    assert http.get(address, "/").body == b"Hello World"


def test_comments_blank_lines_and_repetition(serve, tmp_path):
    first, second = tcp(), tcp()
    (tmp_path / "app.ini").write_text(
        f"; a comment\n\n[uwsgi]\n# another\nhttp-socket={first}\n  http-socket  =   {second}  \nwsgi-file = foobar.py\nmaster\n"
    )
    serve(tmp_path / "app.ini", listens=[first, second])
    assert http.get(first, "/").body == http.get(second, "/").body == b"Hello World"


def test_module_callable_chdir_and_pythonpath(serve_ini, address, tmp_path):
    package, work = tmp_path / "lib" / "pkg", tmp_path / "work"
    package.mkdir(parents=True)
    work.mkdir()
    (package / "__init__.py").write_text("")
    (package / "mod.py").write_text(
        "import os\ndef here(e, s):\n    s('200 OK', [])\n    return [os.getcwd().encode()]\n"
    )
    keys = [("http-socket", address), ("module", "pkg.mod"), ("callable", "here"), ("chdir", work), ("pythonpath", tmp_path / "lib")]
    serve_ini(keys, [address])
    assert http.get(address, "/").text == str(work)


def test_module_with_its_callable_after_a_colon(serve_ini, address):
    serve_ini([("http-socket", address), ("module", "mysite.wsgi:application"), ("chdir", APPS)], [address])
    assert http.get(address, "/hello").body == b"hello from django"


@OF_RWSGI
@pytest.mark.parametrize("key", ["home", "virtualenv"])
def test_a_virtual_environment_is_used(serve_ini, address, tmp_path, key):
    site = tmp_path / "venv" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    venv.create(tmp_path / "venv", with_pip=False)
    (site / "only_here.py").write_text("WORD = b'from the environment'\n")
    (tmp_path / "app.py").write_text(
        "import only_here, sys\ndef application(e, s):\n    s('200 OK', [('X-Prefix', sys.prefix)])\n    return [only_here.WORD]\n"
    )
    serve_ini([("http-socket", address), ("wsgi-file", tmp_path / "app.py"), (key, tmp_path / "venv")], [address])
    answer = http.get(address, "/")
    assert answer.body == b"from the environment"
    assert answer.header("X-Prefix") == str(tmp_path / "venv")


@OF_RWSGI
def test_the_workers_load_the_application_themselves_with_lazy_apps(serve, tmp_path, stats_at):
    (tmp_path / "app.py").write_text(
        "import os\nLOADED_BY = os.getpid()\n"
        "def application(e, s):\n    s('200 OK', [])\n    return [b'%d %d' % (LOADED_BY, os.getpid())]\n"
    )
    for lazy in ([], ["--lazy-apps"]):
        address, at = tcp(), tcp()
        server = serve("--http-socket", address, "--wsgi-file", "app.py", "--stats", at, *lazy, cwd=tmp_path)
        worker = server.wait_workers(1)["workers"][0]["pid"]
        loaded, served = map(int, http.get(address, "/").text.split())
        assert served == worker
        assert (loaded == worker) == bool(lazy)


def test_logging_and_memory_keys(serve_ini, address):
    keys = [("http-socket", address), ("wsgi-file", "foobar.py"), ("disable-logging", "true"), ("need-app", "true")]
    server = serve_ini(keys, [address])
    assert http.get(address, "/?token=quiet").status == 200
    server.stop()
    assert not server.lines("token=quiet")


@OF_RWSGI
def test_the_environment_reaches_the_application(serve, address, tmp_path):
    (tmp_path / "app.py").write_text(
        "import os, json\ndef application(e, s):\n    s('200 OK', [])\n    return [json.dumps(dict(os.environ)).encode()]\n"
    )
    serve("--http-socket", address, "--wsgi-file", "app.py", cwd=tmp_path, env={"APP_SETTING": "caf\u00e9"})
    assert json.loads(http.get(address, "/").body)["APP_SETTING"] == "caf\u00e9"


@OF_RWSGI
def test_it_starts_where_python_is_not_to_import_from_a_script_s_directory(serve, address):
    serve("--http-socket", address, "--wsgi-file", "foobar.py", env={"PYTHONSAFEPATH": "1"})
    assert http.get(address, "/").status == 200


@OF_RWSGI
def test_an_unknown_key_is_named_with_the_nearest_one(serve_ini, address):
    server = serve_ini([("http-socket", address), ("wsgi-file", "foobar.py"), ("procesess", 3)], [address])
    server.logged("procesess.*processes")
    assert http.get(address, "/").status == 200
    assert os.path.basename(server.arguments[-1]) in server.log()
