"""Rules that guard: who gets past them, and what a client must not bring about."""

from __future__ import annotations


import pytest

from rig import rules, uwsgi
from rig.http import Connection
from rig.rules import basic, seen, told
from rig.site import KINDS


@pytest.fixture(autouse=True)
def knows_rules(program):
    rules.skip_without(program)


@pytest.fixture
def routed(serve):
    return rules.starter(serve)


@pytest.mark.parametrize("kind", KINDS)
def test_basicauth_lets_in_who_is_known(routed, kind):
    site = routed("--route", "^/admin basicauth:My Realm,joe:pass:word", kind=kind)
    refused = site.get("/admin")
    assert (refused.status, refused.reason) == (401, "Authorization Required")
    assert refused.header("WWW-Authenticate") == 'Basic realm="My Realm"'
    for pair in ("joe:wrong", "joe", "other:pass:word", "joe:pass", ""):
        assert site.get("/admin", basic(pair)).status == 401, pair
    assert seen(site.get("/admin", basic("joe:pass:word")))["REMOTE_USER"] == "joe"
    assert "REMOTE_USER" not in seen(site.get("/"))


def test_basicauth_with_a_file(routed, tmp_path):
    file = tmp_path / "htpasswd"
    # "secret", as `htpasswd -s` and `htpasswd -d` have it.
    file.write_text("sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\ndes:rlcg0.fZequS.\n")
    site = routed("--route", f"^(?!/api).*$ basicauth:Restricted,{file}")
    assert site.get("/api").status == 200
    assert site.get("/").status == 401
    for name in ("sha", "des"):
        assert seen(site.get("/", basic(f"{name}:secret")))["REMOTE_USER"] == name
        assert site.get("/", basic(f"{name}:wrong")).status == 401
    # It is read each time.
    file.write_text("sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n")
    assert site.get("/", basic("des:secret")).status == 401
    file.unlink()
    assert site.get("/", basic("sha:secret")).status == 401


@pytest.mark.only_rwsgi(why="it knows {SHA} and DES alone")
def test_basicauth_knows_what_htpasswd_makes_today(routed, tmp_path):
    file = tmp_path / "htpasswd"
    file.write_text("apr1:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/\n"
                    "bcrypt:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n")
    site = routed("--route", f"^/ basicauth:Restricted,{file}")
    for name, password in [("apr1", "myPassword"), ("bcrypt", "secret")]:
        assert seen(site.get("/", basic(f"{name}:{password}")))["REMOTE_USER"] == name
        assert site.get("/", basic(f"{name}:wrong")).status == 401


def test_one_of_several_knows_somebody(routed):
    site = routed("--route", "^/ basicauth-next:Us,joe:a", "--route", "^/ basicauth:Us,ann:b")
    assert seen(site.get("/", basic("joe:a")))["REMOTE_USER"] == "joe"
    assert seen(site.get("/", basic("ann:b")))["REMOTE_USER"] == "ann"
    assert site.get("/", basic("joe:b")).status == 401


@pytest.mark.only_rwsgi(why="it resolves bare dot segments, and is got around with %2e and //")
def test_a_guard_of_a_path_is_not_got_around(routed, tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "x").write_text("secret")
    (tmp_path / "open").write_text("open")
    guards = ("--route", "^/(admin|s/private|m/private) break:403", "--route", f"^/m/(.*) static:{tmp_path}/$1")
    site = routed(*guards, "--static-map", f"/s={tmp_path}")
    for method in ("GET", "HEAD", "POST", "OPTIONS"):
        for path in ("/admin", "/%61dmin", f"http://{site.address}/admin", "/s/private/x", "/s/%70rivate/x", "/m/private/x"):
            assert site.request(method, path).status == 403, (method, path)
        for path in ("/./admin", "/x/../admin", "/%2e/admin", "/x/%2e%2e/admin", "/x/..%2fadmin", "/s/./private/x",
                     "/s/%2e/private/x", "/s/x/../private/x", "/m/./private/x", "/m/x/../private/x", "/../admin"):
            assert site.request(method, path).status == 400, (method, path)
    for path in ("/s//private/x", "/s/%2fprivate/x", "//s/private/x"):
        assert seen(site.get(path))["PATH_INFO"].endswith("/private/x"), path
    assert site.get("/s/open").body == b"open"
    assert seen(site.get("/a//.b/..c"))["PATH_INFO"] == "/a//.b/..c"


def test_without_a_guard_paths_are_served_as_they_come(routed, tmp_path):
    (tmp_path / "open").write_text("open")
    site = routed("--route", "^/healthz donotlog:", "--static-map", f"/s={tmp_path}")
    assert site.get("/s//open").body == b"open"
    assert site.get("/s/./open").body == b"open"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.only_rwsgi(why="it splits the response")
def test_a_client_cannot_write_headers(routed, kind):
    site = routed(
        "--route", "(?s)^/to/(.*)$ redirect:http://example.org/$1",
        "--route", "(?s)^/add/(.*)$ addheader:X-Path: $1",
        "--response-route", "(?s)^/status/(.*)$ clearheaders:200 $1",
        kind=kind,
    )
    evil = "a\r\nSet-Cookie: evil=1"
    for path in ("/to/", "/add/", "/status/"):
        target = path + evil if kind == "socket" else path + evil.replace("\r\n", "%0d%0a").replace(" ", "%20")
        if kind == "socket":
            variables = [(name, path + evil if name == "PATH_INFO" else value)
                         for name, value in uwsgi.variables("GET", "/x")]
            with Connection(site.address) as connection:
                connection.send(uwsgi.packet(variables))
                answer = connection.response("GET")
        else:
            answer = site.get(target)
        assert answer.all("Set-Cookie") == [], path
        assert answer.status == {"/to/": 400, "/add/": 200, "/status/": 500}[path]
    assert site.get("/").status == 200


@pytest.mark.only_rwsgi(why="PCRE has limits of its own")
def test_a_pattern_that_explodes_costs_little_and_lets_nobody_in(routed):
    site = routed("--route-uri", r"^/(a|aa|\1)+$ basicauth:x,y:z")
    assert site.get("/" + "a" * 60 + "!").status == 500
    assert site.get("/b").status == 200
    told(site, "cannot be decided")
