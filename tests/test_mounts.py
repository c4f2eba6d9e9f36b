"""Several applications in one server, each under a prefix."""

from __future__ import annotations

import pytest

from rig import http
from rig.http import Connection
from rig.uwsgi import packet, variables

only_rwsgi = pytest.mark.only_rwsgi(why="uWSGI chooses by SCRIPT_NAME alone unless it manages it")

SITE = """
def application(environ, start_response):
    start_response("200 OK", [])
    return [f"{NAME} {environ.get('SCRIPT_NAME', '')!r} {environ['PATH_INFO']!r}".encode()]
named = application
"""


@pytest.fixture
def sites(tmp_path):
    for name in ("main", "shop", "deep"):
        (tmp_path / f"mount_{name}.py").write_text(f"NAME = {name!r}\n{SITE}")
    return tmp_path


def test_the_longest_prefix_is_taken_off_and_told(serve, address, sites):
    serve(
        *("--http-socket", address, "--wsgi-file", "mount_main.py", "--manage-script-name"),
        *("--mount", "/shop=mount_shop.py", "--mount", "/shop/deep=mount_deep:named"),
        cwd=sites,
    )
    for path, expected in {
        "/": "main '' '/'",
        "/shopping": "main '' '/shopping'",
        "/shop": "shop '/shop' ''",
        "/shop/a": "shop '/shop' '/a'",
        "/shop/deep/b": "deep '/shop/deep' '/b'",
    }.items():
        assert http.get(address, path).body.decode() == expected


def test_a_prefix_that_ends_in_a_slash_is_told_with_it(serve, address, sites):
    serve(
        *("--http-socket", address, "--wsgi-file", "mount_main.py", "--manage-script-name"),
        *("--mount", "/shop/=mount_shop.py", "--mount", "/shop/deep/=mount_deep:named"),
        cwd=sites,
    )
    for path, expected in {
        "/": "main '' '/'",
        "/shopping": "main '' '/shopping'",
        "/shop/": "shop '/shop/' ''",
        "/shop/a": "shop '/shop/' 'a'",
        "/shop//a": "shop '/shop/' '/a'",
        "/shop/deep/b": "deep '/shop/deep/' 'b'",
    }.items():
        assert http.get(address, path).body.decode() == expected


@pytest.mark.only_rwsgi(why="uWSGI reads beyond the end of PATH_INFO")
def test_a_prefix_that_ends_in_a_slash_is_found_without_it(serve, address, sites):
    serve(
        *("--http-socket", address, "--wsgi-file", "mount_main.py", "--manage-script-name"),
        *("--mount", "/shop/=mount_shop.py"),
        cwd=sites,
    )
    assert http.get(address, "/shop").body == b"shop '/shop/' ''"


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_path_says_more_than_a_proxy_s_script_name(serve, address, sites, slash):
    """Where the path begins with no prefix, the proxy has taken it off, or means somebody else."""
    serve(
        *("--socket", address, "--wsgi-file", "mount_main.py", "--manage-script-name"),
        *("--mount", f"/shop{slash}=mount_shop.py"),
        cwd=sites,
    )
    rest = "a" if slash else "/a"
    for (script_name, path), expected in {
        ("/shop", "/shop/a"): f"shop '/shop{slash}' '{rest}'",
        ("/other", "/shop/a"): f"shop '/shop{slash}' '{rest}'",
        (f"/shop{slash}", "/a"): f"shop '/shop{slash}' '/a'",
        ("/other", "/a"): "main '/other' '/a'",
    }.items():
        told = {**dict(variables("GET", path)), "SCRIPT_NAME": script_name}
        with Connection(address) as connection:
            connection.send(packet(list(told.items())))
            assert connection.response().body.decode() == expected


def test_a_mount_at_the_root_does_not_replace_the_application(serve, address, sites):
    serve(
        *("--http-socket", address, "--wsgi-file", "mount_main.py", "--manage-script-name"),
        *("--mount", "/=mount_shop.py", "--mount", "/deep=mount_deep.py"),
        cwd=sites,
    )
    assert http.get(address, "/a").body == b"main '' '/a'"
    assert http.get(address, "/deep/a").body == b"deep '/deep' '/a'"


@only_rwsgi
def test_without_managing_it_the_path_stays_whole(serve, address, sites):
    serve("--http-socket", address, "--mount", "/shop=mount_shop.py", cwd=sites)
    assert http.get(address, "/shop/a").body == b"shop '' '/shop/a'"


@pytest.mark.only_rwsgi(why="uWSGI answers 500 where nothing is mounted")
@pytest.mark.parametrize("option", [[], ["no-default-app = true"]])
def test_where_nothing_is_mounted_the_first_answers_unless_it_is_told_not_to(serve, address, sites, option):
    file = sites / "mounts.ini"
    lines = ["[uwsgi]", f"http-socket = {address}", "mount = /shop=mount_shop.py", "mount = /deep=mount_deep:named",
             "manage-script-name = true", *option]
    file.write_text("\n".join(lines) + "\n")
    serve(file, cwd=sites, listens=[address])
    assert http.get(address, "/deep/a").body == b"deep '/deep' '/a'"
    elsewhere = http.get(address, "/elsewhere")
    if option:
        assert elsewhere.status == 404
    else:
        assert elsewhere.body == b"shop '' '/elsewhere'"


@only_rwsgi
def test_a_mount_that_cannot_be_loaded_fails_the_start(serve, address, sites):
    server = serve.run("--http-socket", address, "--wsgi-file", "mount_main.py", "--mount", "/x=missing.py", cwd=sites)
    assert server.wait_exit() == 22
    assert "missing.py" in server.log()
