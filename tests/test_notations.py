"""The same server from every notation, from the environment and from single letters."""

from __future__ import annotations

import json
import os
import subprocess
import venv

import pytest

from rig import http, processes, stats, uwsgi
from rig.addresses import tcp
from rig.server import APPS
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="the uWSGI of the package index is built without XML, and reads YAML its own way")

SITE = """
import json, os, sys

def application(environ, start_response):
    start_response("200 OK", [])
    seen = {"one": os.environ.get("ONE"), "two": os.environ.get("TWO"), "stem": os.environ.get("STEM"), "cwd": os.getcwd(),
            "prefix": sys.prefix, "threads": environ["wsgi.multithread"]}
    return [json.dumps(seen).encode()]
"""
FILES = {
    "site.ini": "[uwsgi]\n; one\nbase = {dir}\nhttp-socket = {address}\nchdir = %(base)\nwsgi-file = page.py\nmaster\n"
    "env = ONE=1\nenv = TWO=2\nenv = STEM=%n\nthreads = 2\nstats = {stats}\nfor = 1 2\nprocesses = %(_)\nendfor =\n",
    "site.xml": "<uwsgi>\n<!-- one --><base>{dir}</base><http-socket>{address}</http-socket><chdir>%(base)</chdir><master/>\n"
    "<app mountpoint=\"/\"><script>page.py</script></app><env>ONE=1</env><env>TWO=2</env><env>STEM=%n</env>\n"
    "<threads>2</threads><stats>{stats}</stats><processes>2</processes></uwsgi>\n",
    "site.yaml": "uwsgi:\n  # one\n  base: {dir}\n  http-socket: {address}\n  chdir: %(base)\n  wsgi-file: page.py\n  master: true\n"
    "  env: ONE=1\n  env: TWO=2\n  env: STEM=%n\n  threads: 2\n  stats: {stats}\n  processes: 2\n",
    "site.json": '{{"uwsgi": {{"base": "{dir}", "http-socket": "{address}", "chdir": "%(base)", "wsgi-file": "page.py",\n'
    '"master": true, "env": ["ONE=1", "TWO=2", "STEM=%n"], "threads": 2, "stats": "{stats}", "processes": 2}}}}\n',
}


@pytest.mark.parametrize("option", [[], ["--OPTION"]], ids=["alone", "option"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_any_notation_is_the_same_server(serve, address, stats_at, tmp_path, name, option):
    (tmp_path / "page.py").write_text(SITE)
    file = tmp_path / name
    file.write_text(FILES[name].format(dir=tmp_path, address=address, stats=stats_at))
    option = [f"--{file.suffix[1:]}" for _ in option]
    serve(*option, file, cwd="/", listens=[address, stats_at])
    seen = json.loads(http.get(address, "/").body)
    assert (seen["one"], seen["two"], seen["stem"], seen["cwd"], seen["threads"]) == ("1", "2", "site", str(tmp_path), True)
    assert len(stats.read(stats_at)["workers"]) == 2


def test_files_include_each_other_and_sections(serve, address, stats_at, tmp_path):
    (tmp_path / "page.py").write_text(SITE)
    (tmp_path / "base.ini").write_text("[uwsgi]\nenv = ONE=base of %n, included by %N\nini = :more\n[more]\nenv = TWO=%x\n")
    (tmp_path / "site.ini").write_text(
        f"[other]\nhttp-socket = 127.0.0.1:1\n[here]\nini = %dbase.ini\nhttp-socket = {address}\nchdir = %d\nwsgi-file = page.py\n"
        "env = STEM=@(body.txt)\nset-placeholder = workers-here=3\nprocesses = %(workers-here)\n"
        f"if-file = %dbody.txt\nstats = {stats_at}\nendif =\nif-env = NOBODY_SETS_THIS\nprocesses = 7\nendif =\n"
    )
    (tmp_path / "body.txt").write_text("from a file\n")
    serve("--ini", f"{tmp_path}/site.ini:here", cwd=tmp_path, listens=[address, stats_at])
    seen = json.loads(http.get(address, "/").body)
    assert (seen["one"], seen["two"], seen["stem"]) == ("base of base, included by site", "more", "from a file")
    assert len(stats.read(stats_at)["workers"]) == 3


def test_loops_patterns_and_magic_reach_the_server(serve, tmp_path):
    """`for-glob`, `pythonpath` with a pattern, `if-not-reload`, and the machine's own words."""
    first, second = tcp(), tcp()
    for name in ("a", "b"):
        (tmp_path / "plugins" / name).mkdir(parents=True)
        (tmp_path / "plugins" / name / f"found_{name}.py").write_text("")
        (tmp_path / f"{name}.address").write_text({"a": first, "b": second}[name])
    (tmp_path / "page.py").write_text("import found_a, found_b\n" + SITE)
    (tmp_path / "site.ini").write_text(
        "[uwsgi]\nfor-glob = %d*.address\nhttp-socket = @(%(_))\nendfor =\npythonpath = %dplugins/*\nwsgi-file = page.py\n"
        "env = ONE=%h\nenv = TWO=$HOME\nif-not-reload =\nenv = STEM=%u:%k:$(HOME)\nendif =\n"
    )
    serve(tmp_path / "site.ini", cwd=tmp_path, listens=[first, second], env={"HOME": "/nowhere"})
    seen = json.loads(http.get(first, "/").body)
    assert seen == json.loads(http.get(second, "/").body)
    assert seen["one"] == os.uname().nodename
    assert (seen["two"], seen["stem"]) == ("/nowhere", f"{os.getuid()}:{len(os.sched_getaffinity(0))}:/nowhere")


def test_variables_of_the_environment_are_options(serve, address, stats_at):
    serve(
        cwd=APPS, listens=[address, stats_at],
        env={"UWSGI_HTTP_SOCKET": address, "UWSGI_WSGI_FILE": "foobar.py", "UWSGI_PROCESSES": "3", "UWSGI_STATS": stats_at},
    )
    assert http.get(address, "/").body == b"Hello World"
    assert len(stats.read(stats_at)["workers"]) == 3


def test_letters_are_options(serve, tmp_path):
    at, log = tcp(), tmp_path / "log"
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    (tmp_path / "page.py").write_text(SITE)
    server = serve.start(
        "-s", at, "-w", "page:application", "-H", environment, "-p", 2, "-M", "-i", "-T", "-m", "-l", 64, "-C", "-b", 32768,
        "-z", 20, "-t", 30, "-R", 500, "-d", log, cwd=tmp_path,
    )  # fmt: skip
    try:
        assert server.wait_exit() == 0, server.log()
        seen = json.loads(uwsgi.get(at, "/").body)
        assert (seen["prefix"], seen["cwd"]) == (str(environment), str(tmp_path))
        until(lambda: "GET /" in log.read_text(), "the access log is in the file")

        # The command returns when the first of them serves.
        def workers() -> int:
            return sum(process.command.startswith("rwsgi worker") for process in server.processes())

        until(lambda: workers() == 2, "both workers are there", context=lambda: str(server.processes()))
    finally:
        for process in server.processes():
            processes.kill(process.pid)


@pytest.mark.parametrize(("letter", "name"), [("-x", "site.xml"), ("-y", "site.yaml"), ("-j", "site.json")])
def test_a_letter_reads_a_file_of_any_name(serve, address, stats_at, tmp_path, letter, name):
    (tmp_path / "page.py").write_text(SITE)
    file = tmp_path / "config"
    file.write_text(FILES[name].format(dir=tmp_path, address=address, stats=stats_at))
    serve(letter, file, cwd=tmp_path, listens=[address, stats_at])
    assert json.loads(http.get(address, "/").body)["two"] == "2"


def test_a_typo_is_warned_of_and_with_strict_an_error(serve, address, tmp_path):
    file = tmp_path / "site.ini"
    lines = f"[uwsgi]\nhttp-socket = {address}\nwsgi-file = foobar.py\nproceses = 3\n"
    file.write_text(lines)
    server = serve(file, listens=[address])
    server.logged("site.ini:4: .*proceses.*did you mean 'processes'")
    server.stop()
    file.write_text(lines + "strict = true\n")
    refused = serve.run(file)
    assert refused.wait_exit() != 0
    (line,) = refused.log().splitlines()
    assert "did you mean 'processes'" in line


def test_what_uwsgi_has_and_this_has_not_is_named_with_what_to_do(serve, address, tmp_path):
    file = tmp_path / "site.ini"
    file.write_text(f"[uwsgi]\nhttp-socket = {address}\nwsgi-file = foobar.py\nrrdtool = %(uri)\nthunder-lock = true\n")
    server = serve(file, listens=[address])
    server.logged("site.ini:4: uWSGI's option rrdtool is not available here: stats gives every figure")
    assert "thunder-lock" not in server.log(), "there is nothing to say of what there is nothing to do for"
    file.write_text(f"[uwsgi]\nhttp-socket = {address}\nwsgi-file = foobar.py\nfastrouter = :9000\n")
    refused = serve.run(file)
    assert refused.wait_exit() != 0
    (line,) = refused.log().splitlines()
    assert "site.ini:4: uWSGI's option fastrouter is not available here" in line
    printed = subprocess.run([serve.program.path, "--check", file], capture_output=True, text=True, check=False)
    assert (printed.returncode, printed.stderr) == (1, "")
    assert "error:" in printed.stdout
