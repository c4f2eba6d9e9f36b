"""`path-normalize`: the path that an application sees of a path that a proxy did not normalise."""

from __future__ import annotations

import json
import signal

import pytest

from rig import http, uwsgi
from rig.addresses import tcp
from rig.http import Connection
from rig.nginx import Nginx
from rig.server import APPS
from rig.site import KINDS, Site, every_kind
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI has no path-normalize")

# What `keep`, `nginx` and `reject` make of a path: what the application sees, or the status that refuses it.
PATHS = {
    "/": ("/", "/", "/"),
    "/a/b": ("/a/b", "/a/b", "/a/b"),
    "/a%20b": ("/a b", "/a b", "/a b"),
    "/caf%C3%A9": ("/caf\xc3\xa9", "/caf\xc3\xa9", "/caf\xc3\xa9"),
    "/a+b": ("/a+b", "/a+b", "/a+b"),
    "/a%3fb": ("/a?b", "/a?b", "/a?b"),
    "/a%23b": ("/a#b", "/a#b", "/a#b"),
    "/a%252e%252e/b": ("/a%2e%2e/b", "/a%2e%2e/b", "/a%2e%2e/b"),
    "/a?b/../c": ("/a", "/a", "/a"),
    "/a/b/?x=//../": ("/a/b/", "/a/b/", "/a/b/"),
    "/a/...": ("/a/...", "/a/...", "/a/..."),
    "/a/..b/.c": ("/a/..b/.c", "/a/..b/.c", "/a/..b/.c"),
    "/a/..;/b": ("/a/..;/b", "/a/..;/b", "/a/..;/b"),
    "/.": ("/.", "/", 400),
    "/./": ("/./", "/", 400),
    "/%2e": ("/.", "/", 400),
    "/a/./b": ("/a/./b", "/a/b", 400),
    "/a/%2e/b": ("/a/./b", "/a/b", 400),
    "/a/b/.": ("/a/b/.", "/a/b/", 400),
    "/a/..": ("/a/..", "/", 400),
    "/a/b/..": ("/a/b/..", "/a/", 400),
    "/a/../b": ("/a/../b", "/b", 400),
    "/a/.%2e/b": ("/a/../b", "/b", 400),
    "/a/%2E./b": ("/a/../b", "/b", 400),
    "/a/..?q": ("/a/..", "/", 400),
    "/a;x/../c": ("/a;x/../c", "/c", 400),
    "/a/b/../../c": ("/a/b/../../c", "/c", 400),
    "/a/.../../b": ("/a/.../../b", "/a/b", 400),
    "/..": ("/..", 400, 400),
    "/../a": ("/../a", 400, 400),
    "/%2e%2e/a": ("/../a", 400, 400),
    "/a/b/../../../c": ("/a/b/../../../c", 400, 400),
    "/x/%2e%2e/..%2fadmin": ("/x/../../admin", 400, 400),
    "/x/y/%2e%2e/..%2fadmin": ("/x/y/../../admin", "/admin", 400),
    "//": ("//", "/", 400),
    "///": ("///", "/", 400),
    "//a": ("//a", "/a", 400),
    "/a//b": ("/a//b", "/a/b", 400),
    "/a/b///": ("/a/b///", "/a/b/", 400),
    "/%2F%2Fa": ("///a", "/a", 400),
    "/admin//../x": ("/admin//../x", "/x", 400),
    "/a/b//..//c": ("/a/b//..//c", "/a/c", 400),
    "/a%2fb": ("/a/b", "/a/b", 400),
    "/a%2f%2e%2e%2fb": ("/a/../b", "/b", 400),
    "/a%2f..%2f..%2fb": ("/a/../../b", 400, 400),
    "/a\\b": ("/a\\b", "/a\\b", 400),
    "/a%5c..%5cb": ("/a\\..\\b", "/a\\..\\b", 400),
    "/a%zzb": ("/a%zzb", 400, 400),
    "/100%": ("/100%", 400, 400),
    "/a%00b": (400, 400, 400),
    "http://other.example/a/../b": ("/a/../b", "/b", 400),
}
MODES = ("keep", "nginx", "reject")


def seen(answer) -> str | int:
    """What the application was given, or the status of the refusal."""
    return json.loads(answer.body)["PATH_INFO"] if answer.status == 200 else answer.status


@pytest.fixture(scope="module")
def sites(serve_module):
    return {mode: every_kind(serve_module, "--wsgi-file", "echo.py", "--path-normalize", mode) for mode in MODES}


def paths_of(site, targets) -> dict[str, str | int]:
    found = {}
    for target in targets:
        with Connection(site.address) as connection:
            answer = connection.request("GET", target)
            found[target] = seen(answer)
            if answer.status == 200:
                assert json.loads(answer.body)["REQUEST_URI"] == target
            else:
                assert answer.header("Connection") == "close"
    return found


@pytest.mark.parametrize("kind", ["http", "http-socket"])
@pytest.mark.parametrize("mode", MODES)
def test_a_path_is_kept_normalised_or_refused(sites, mode, kind):
    expected = {target: outcomes[MODES.index(mode)] for target, outcomes in PATHS.items()}
    assert paths_of(sites[mode][kind], PATHS) == expected


def test_nginx_normalises_the_same_paths_alike(tmp_path):
    block = 'server { listen ADDRESS; location / { default_type text/plain; return 200 "$uri"; } }'
    nginx = Nginx(tmp_path, {}, servers={"uri": block})
    try:
        for target, (_, expected, _) in PATHS.items():
            with Connection(nginx.addresses["uri"]) as connection:
                answer = connection.request("GET", target, {"Connection": "close"})
            assert (answer.text if answer.status == 200 else answer.status) == expected, target
    finally:
        nginx.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_option_a_path_is_kept(serve, kind):
    site = every_kind(serve, "--wsgi-file", "echo.py")[kind]
    # Over the uwsgi protocol it is the proxy that decodes.
    for target in ("/x/../admin", "//a//", "/x/%2e%2e/..%2fadmin"):
        path = target if kind == "socket" else PATHS.get(target, (target,))[0]
        assert seen(site.get(target)) == path


@pytest.mark.parametrize(("path", "expected"), [
    ("/a/b", ("/a/b", "/a/b", "/a/b")),
    ("", ("", "", "")),
    # It has been decoded already.
    ("/100%/%2e%2e/a", ("/100%/%2e%2e/a", "/100%/%2e%2e/a", "/100%/%2e%2e/a")),
    ("/a/../b", ("/a/../b", "/b", 400)),
    ("/a//b/.", ("/a//b/.", "/a/b/", 400)),
    ("/a/../../b", ("/a/../../b", 400, 400)),
    ("../b", ("../b", 400, 400)),
    ("/a\\b", ("/a\\b", "/a\\b", 400)),
])
def test_the_path_of_a_uwsgi_packet_is_treated_alike(sites, path, expected):
    """Only PATH_INFO: what REQUEST_URI says is what the client sent, as ever."""
    variables = [(name, path if name == "PATH_INFO" else value) for name, value in uwsgi.variables("GET", "/a%2f..%2f..//b")]
    outcomes = []
    for mode in MODES:
        with Connection(sites[mode]["socket"].address) as connection:
            connection.send(uwsgi.packet(variables))
            answer = connection.response()
            outcomes.append(seen(answer))
            if answer.status == 200:
                assert json.loads(answer.body)["REQUEST_URI"] == "/a%2f..%2f..//b"
    assert tuple(outcomes) == expected


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_a_refused_path_has_its_body_refused_too(sites, mode, kind):
    with Connection(sites[mode][kind].address) as connection:
        answer = connection.request("POST", "/a/../../b", body=b"x" * 1000)
        assert answer.status == (200 if mode == "keep" else 400)
        assert mode == "keep" or connection.closed_by_server()
    if mode != "keep":
        assert sites[mode][kind].server.logged("path-normalize")


@pytest.mark.parametrize("mode", MODES)
def test_no_path_leads_out_of_a_directory_of_static_files(serve, address, tmp_path, mode):
    root = tmp_path / "files"
    (root / "css").mkdir(parents=True)
    (root / "css" / "site.css").write_text("body")
    (tmp_path / "secret.txt").write_text("secret")
    serve("--http-socket", address, "--wsgi-file", "echo.py", "--static-map", f"/static={root}", "--path-normalize", mode)
    assert http.get(address, "/static/css/site.css").text == "body"
    for path in ("/static/../secret.txt", "/static/%2e%2e/secret.txt", "/static/css/..%2f..%2fsecret.txt", "/static//../secret.txt",
                 "/static/./../secret.txt", "/static/css/%2e%2e/%2e%2e/secret.txt", "/static/../files/css/site.css"):
        answer = http.get(address, path)
        assert answer.text not in ("secret", "body"), path


def test_an_application_is_mounted_at_the_path_that_it_sees(serve, address, tmp_path):
    for name in ("admin", "other"):
        (tmp_path / f"{name}.py").write_text(
            "def application(environ, start_response):\n"
            "    start_response('200 OK', [])\n"
            f"    return ['{name} {{PATH_INFO}}'.format(**environ).encode()]\n"
        )
    arguments = ("--mount", f"/admin={tmp_path}/admin.py", "--mount", f"/={tmp_path}/other.py", "--manage-script-name")
    for mode, raw, expected in [
        ("nginx", "/x/../admin/a", "admin /a"), ("nginx", "/admin//../x", "other /x"), ("nginx", "//admin", "admin "),
        ("keep", "/x/../admin/a", "other /x/../admin/a"), ("keep", "//admin", "other //admin"),
    ]:
        server = serve("--http-socket", address, *arguments, "--path-normalize", mode)
        assert http.get(address, raw).text == expected, (mode, raw)
        server.stop()


def test_a_reload_changes_what_becomes_of_paths(serve, tmp_path):
    addresses = {kind: tcp() for kind in KINDS}
    options = [f"{kind} = {address}" for kind, address in addresses.items()]
    file = tmp_path / "site.ini"

    def configure(mode: str) -> None:
        file.write_text("\n".join(["[uwsgi]", *options, f"wsgi-file = {APPS}/echo.py", f"path-normalize = {mode}", ""]))

    configure("keep")
    server = serve("--ini", file, listens=list(addresses.values()))
    sites = {kind: Site(server, kind, address) for kind, address in addresses.items()}
    for mode, expected in [("keep", "/a/../b"), ("reject", 400), ("nginx", "/b"), ("keep", "/a/../b")]:
        configure(mode)
        server.send(signal.SIGHUP)
        for kind, site in sites.items():
            until(lambda site=site: seen(site.get("/a/../b")) == expected, f"{mode} holds at {kind}", context=server.log)


def test_another_word_is_an_error_in_words(serve, address):
    server = serve.run("--http-socket", address, "--wsgi-file", "echo.py", "--path-normalize", "apache")
    assert "path-normalize" in server.log() and "keep, nginx or reject" in server.log()
