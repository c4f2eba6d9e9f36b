"""Rules for requests and responses, as uWSGI's internal routing has them.

What is not marked is tried on a real uWSGI too: `--server uwsgi`, of one that was built with PCRE.
"""

from __future__ import annotations

import gzip
import json

import pytest

from rig import http, rules, uwsgi
from rig.http import Closed, Connection
from rig.rules import basic, seen, told
from rig.site import KINDS, Record
from rig.waiting import until


@pytest.fixture(autouse=True)
def knows_rules(program):
    rules.skip_without(program)


@pytest.fixture
def routed(serve):
    return rules.starter(serve)


# Conditions


@pytest.mark.parametrize("kind", KINDS)
def test_a_probe_has_no_line_in_the_access_log(routed, kind):
    site = routed("--route-user-agent", "^kube-probe.* donotlog:", "--route", "^/healthz$ donotlog:", kind=kind)
    for target, agent in [("/live?n=1", "kube-probe/1.27"), ("/healthz?n=2", "curl"), ("/healthz/x?n=3", "curl")]:
        assert site.get(target, {"User-Agent": agent}).status == 200
    log = told(site, "/healthz/x?n=3")
    assert "n=1" not in log and "n=2" not in log


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_of_a_request_can_be_asked_for(routed, kind):
    site = routed(
        "--route-uri", r"^/uri\?x=1$ return:410",
        "--route-host", r"^a\.example$ return:411",
        "--route-qs", "b=2 return:412",
        "--route-referer", "elsewhere return:413",
        "--route-remote-addr", r"^(127\.0\.0\.1|192\.0\.2\.7)$ addvar:MADE=near",
        "--route-remote-user", "^joe$ return:414",
        "--route-if", "startswith:${PATH_INFO};/start return:415",
        "--route-if", "endswith:${PATH_INFO};.php return:416",
        "--route-if", "contains:${HTTP_COOKIE};c=3 return:417",
        "--route-if", "regexp:${cookie[name]};^(a+)$ return:418",
        "--route-if-not", "empty:${qs[full]} return:422",
        "--route-if", "ishigher:${qs[n]};9 return:426",
        "--route-if", "ipv4in:${HTTP_X_REAL_IP};10.0.0.0/8 return:428",
        "--route-if", "isdir:/proc${PATH_INFO} return:429",
        "--route-run", "addheader:X-Through: yes",
    )
    for target, headers, status in [
        ("/uri?x=1", {}, 410), ("/", {"Host": "a.example"}, 411), ("/?b=2", {}, 412),
        ("/", {"Referer": "http://elsewhere/"}, 413), ("/starts", {}, 415), ("/x.php", {}, 416),
        ("/", {"Cookie": "b=2; c=3"}, 417), ("/", {"Cookie": "x=1; name=aa"}, 418), ("/?full=x", {}, 422),
        ("/?n=10", {}, 426), ("/", {"X-Real-IP": "10.2.3.4"}, 428), ("/self", {}, 429),
    ]:
        answer = site.get(target, headers)
        assert answer.status == status, (target, headers)
    for target, headers in [("/x", {}), ("/uri?x=12", {}), ("/x?n=9", {}), ("/x", {"X-Real-IP": "11.2.3.4"})]:
        answer = site.get(target, headers)
        assert seen(answer)["MADE"] == "near"
        assert answer.header("X-Through") == "yes"


def test_ten_thousand_rules_are_not_too_many(routed):
    rules_of_all = [part for number in range(10_000) for part in ("--route", f"^/place{number}/ return:404")]
    site = routed(*rules_of_all)
    assert (site.get("/place/").status, site.get("/place9999/").status) == (200, 404)


def test_rules_go_on_at_a_label(routed):
    site = routed(
        "--route-if", "contains:${HTTP_ACCEPT_ENCODING};gzip goto:_gzip",
        "--route-run", "addheader:X-Way: plain", "--route-run", "last:",
        "--route-label", "_gzip", "--route-run", "addheader:X-Way: gzip",
        "--route-run", "gzip:", "--route-run", "chunked:",
    )
    plain = site.get("/?body=hello")
    assert (plain.header("X-Way"), plain.body, plain.header("Content-Encoding")) == ("plain", b"hello", None)
    packed = site.get("/?body=hello", {"Accept-Encoding": "gzip"})
    assert (packed.header("X-Way"), packed.header("Content-Encoding")) == ("gzip", "gzip")
    assert gzip.decompress(packed.body) == b"hello"
    assert packed.framing == "chunked"


# Answers


@pytest.mark.parametrize("kind", KINDS)
def test_redirects(routed, kind):
    site = routed(
        "--route-if", "equal:${HTTP_X_FORWARDED_PROTO};http redirect-permanent:https://${HTTP_HOST}${REQUEST_URI}",
        "--route", "^/old/(.*)/([^/]*)$ redirect:/new/$2?from=$1&q=${qs[a]}",
        "--route", "^/three redirect-302:/3", "--route", "^/one redirect-301:/1",
    )
    for target, headers, status, location in [
        ("/a?b=c", {"X-Forwarded-Proto": "http", "Host": "example.org"}, 301, "https://example.org/a?b=c"),
        ("/old/x/y/z?a=1", {}, 302, "/new/z?from=x/y&q=1"), ("/three", {}, 302, "/3"), ("/one", {}, 301, "/1"),
    ]:
        answer = site.get(target, headers)
        assert (answer.status, answer.header("Location")) == (status, location)
        assert answer.body == (b"Moved" if status == 302 else b"Moved Permanently")
    assert site.get("/old").status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_answers_without_the_application(routed, kind):
    site = routed(
        "--route", "^/return return:403", "--route", "^/break break:418 Short And Stout",
        "--route", "^/code break:404", "--route", "^/last last:", "--route-run", "return:503",
    )
    answer = site.get("/return")
    assert (answer.status, answer.reason, answer.body) == (403, "Forbidden", b"Forbidden")
    assert answer.header("Content-Type") == "text/plain"
    answer = site.get("/break")
    assert (answer.status, answer.reason, answer.body) == (418, "Short And Stout", b"")
    assert site.get("/code").reason == "Not Found"
    assert seen(site.get("/last"))["PATH_INFO"] == "/last"
    assert site.get("/").status == 503


@pytest.mark.parametrize("kind", KINDS)
def test_a_break_without_a_status_closes_the_connection(routed, program, kind):
    site = routed("--route", "^/away break:", kind=kind)
    if kind == "http" and program.is_uwsgi:
        pytest.skip("its router does not exit afterwards")
    if kind == "socket":
        with Connection(site.address) as connection:
            connection.send(uwsgi.packet(uwsgi.variables("GET", "/away")))
            assert connection.rest() == b""
    else:
        with pytest.raises(Closed):
            site.get("/away")
    assert site.get("/").status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_files(routed, program, tmp_path, kind):
    (tmp_path / "site.css").write_text("body {}\n" * 5_000)
    (tmp_path / "gone.html").write_text("<p>gone</p>")
    site = routed(
        "--route", f"^/css/(.*)$ static:{tmp_path}/$1",
        "--route", f"^/gone file:filename={tmp_path}/gone.html,status=410 Gone",
        "--route", f"^/maybe/(.*)$ file-next:filename={tmp_path}/$1,content_type=text/plain",
        kind=kind,
    )
    answer = site.get("/css/site.css")
    assert (answer.status, answer.body) == (200, b"body {}\n" * 5_000)
    if not program.is_uwsgi:
        # It knows types where other options need them.
        assert answer.header("Content-Type") == "text/css"
    assert site.get("/css/site.css", {"If-Modified-Since": answer.header("Last-Modified")}).status == 304
    answer = site.get("/gone")
    assert (answer.status, answer.body, answer.header("Content-Type")) == (410, b"<p>gone</p>", "text/html")
    assert site.get("/maybe/gone.html").body == b"<p>gone</p>"
    assert seen(site.get("/maybe/none"))["PATH_INFO"] == "/maybe/none"


@pytest.mark.only_rwsgi(why="it answers nothing, and serves what a file: leads to")
def test_no_file_beyond_the_directory_is_served(routed, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "files" / "link").symlink_to(tmp_path / "secret")
    site = routed(
        "--route", f"^/static/(.*)$ static:{tmp_path}/files/$1",
        "--route", f"^/file/(.*)$ file:filename={tmp_path}/files/$1",
        "--route-qs", f"^name=(.*)$ file:filename={tmp_path}/files/$1",
    )
    for target in ("/static/../secret", "/static/%2e%2e/secret", "/static/link", "/file/../secret", "/?name=../secret",
                   "/static/missing", "/file/", "/static//etc/passwd"):
        answer = site.get(target)
        assert b"secret" not in answer.body and b"root:" not in answer.body, target


# What the application is called with


@pytest.mark.parametrize("kind", KINDS)
def test_the_application_is_called_with_what_rules_set(routed, kind):
    site = routed(
        "--route", "^/app(/.*)$ setpathinfo:$1", "--route-run", "setscriptname:/app",
        "--route-run", "addvar:MADE=${REQUEST_METHOD} ${PATH_INFO}", "--route-run", "setuser:joe:x",
        "--route-run", "setmethod:PUT", "--route-run", "seturi:/made", "--route-run", "setremoteaddr:192.0.2.99",
        "--route-run", "setdocroot:/docs", "--route-run", "sethome:/home", "--route-run", "setscheme:https",
        kind=kind,
    )
    environ = seen(site.get("/app/x?q=1"))
    assert environ == {
        "PATH_INFO": "/x", "SCRIPT_NAME": "/app", "MADE": "GET /x", "REMOTE_USER": "joe", "REQUEST_METHOD": "PUT",
        "REQUEST_URI": "/made", "REMOTE_ADDR": "192.0.2.99", "DOCUMENT_ROOT": "/docs", "UWSGI_HOME": "/home",
        "UWSGI_SCHEME": "https", "wsgi.url_scheme": "https", "QUERY_STRING": "q=1",
    }
    lines = site.server.lines
    until(lambda: [line for line in lines("/made") if "192.0.2.99" in line], "a line of what was set", context=site.server.log)


MOUNTED = """def application(environ, start_response):
    start_response("200 OK", [])
    return [f"WHICH {environ.get('SCRIPT_NAME', '')!r} {environ['PATH_INFO']!r}".encode()]
"""


def test_rules_see_the_path_that_the_mounted_application_sees(serve, address, tmp_path):
    """A guard of `/admin` holds for that of each application, as with uWSGI."""
    for name in ("main", "shop", "deep"):
        (tmp_path / f"mount_{name}.py").write_text(MOUNTED.replace("WHICH", name))
    serve(
        *("--http-socket", address, "--wsgi-file", "mount_main.py", "--manage-script-name"),
        *("--mount", "/shop=mount_shop.py", "--mount", "/slash/=mount_deep.py", "--static-map", f"/static={tmp_path}"),
        *("--route", "^/?admin break:403", "--route", "^/static/mount_main break:403"),
        *("--route", "^/new rewrite:/shop/x", "--route-if", "eq:${SCRIPT_NAME};/shop addheader:X-Shop: 1"),
        *("--route", "^/move setscriptname:/shop"),
        cwd=tmp_path,
    )
    for path in ("/admin", "/shop/admin", "/slash/admin", "/shop/static/mount_main.py", "/static/mount_main.py"):
        assert http.get(address, path).status == 403, path
    for path, expected in {
        "/shop/a": "shop '/shop' '/a'",
        "/shop": "shop '/shop' ''",
        "/shop/shop/a": "shop '/shop' '/shop/a'",
        "/shop/new": "shop '/shop' '/shop/x'",
        "/slash/a": "deep '/slash/' 'a'",
        "/move": "shop '/shop' '/move'",
        "/a": "main '' '/a'",
    }.items():
        answer = http.get(address, path)
        assert answer.body.decode() == expected
        assert answer.header("X-Shop") == ("1" if path.startswith("/shop") else None), path
    assert http.get(address, "/shop/static/mount_shop.py").body.startswith(b"def application")


def test_a_rewrite(routed):
    site = routed("--route", "^/item/([0-9]+)$ rewrite:/show?id=$1", "--route", "^/show addvar:MADE=seen",
                  "--route", "^/final rewrite-last:/end", "--route", "^/end return:404")
    environ = seen(site.get("/item/7"))
    assert (environ["PATH_INFO"], environ["QUERY_STRING"], environ["MADE"]) == ("/show", "id=7", "seen")
    assert seen(site.get("/item/7?a=b"))["QUERY_STRING"] == "id=7&a=b"
    assert seen(site.get("/final"))["PATH_INFO"] == "/end"


# Responses


@pytest.mark.parametrize("kind", KINDS)
def test_headers_are_added_removed_and_collected(routed, kind):
    site = routed(
        "--add-header", "X-Frame-Options: SAMEORIGIN", "--del-header", "x-app",
        "--collect-header", "Content-Security-Policy CSP", "--pull-header", "X-Twice TWICE",
        "--response-route-if", "empty:${CSP} addheader:Content-Security-Policy: default-src 'self'",
        "--response-route-run", "addheader:X-Made: ${TWICE} ${uwsgi[status]}",
        "--route", "^/plain remheader:Content-Type",
    )
    answer = site.get("/")
    assert answer.header("X-Frame-Options") == "SAMEORIGIN"
    assert answer.header("X-App") is None and answer.all("X-Twice") == []
    assert answer.header("Content-Security-Policy") == "default-src 'self'"
    assert answer.header("X-Made") == "b 200"
    assert answer.header("Content-Type") == "text/plain"
    assert site.get("/?csp=own").header("Content-Security-Policy") == "own"
    assert site.get("/plain").header("Content-Type") is None


@pytest.mark.parametrize("phase", ["error", "response"])
def test_a_response_can_be_replaced(routed, phase, tmp_path):
    (tmp_path / "missing.html").write_text("<p>missing</p>")
    site = routed(
        f"--{phase}-route-status", "404 redirect:/missing?${PATH_INFO}",
        f"--{phase}-route-status", "403 return:451",
        "--add-header", "X-Added: 1",
    )
    answer = site.get("/x?status=404&body=long&repeat=100000")
    assert (answer.status, answer.header("Location"), answer.body) == (302, "/missing?/x", b"Moved")
    assert answer.header("X-Added") == "1"
    answer = site.get("/x?status=403&body=words&length=1&pieces=1")
    assert (answer.status, answer.body) == (451, b"Unavailable For Legal Reasons")
    assert site.get("/x?status=405&body=kept").body == b"kept"


@pytest.mark.only_rwsgi(why="it was never tried there")
def test_a_file_in_place_of_an_error(routed, tmp_path):
    (tmp_path / "missing.html").write_text("<p>missing</p>")
    site = routed("--error-route-status", f"404 file:filename={tmp_path}/missing.html,status=404 Nope")
    answer = site.get("/?status=404&body=words")
    assert (answer.status, answer.reason, answer.body) == (404, "Nope", b"<p>missing</p>")


def test_a_response_can_begin_anew(routed):
    site = routed("--response-route-status", "418 clearheaders:503 Later",
                  "--response-route-status", "503 addheader:Retry-After: 5")
    answer = site.get("/?status=418&body=wait")
    assert (answer.status, answer.reason, answer.body) == (503, "Later", b"wait")
    assert answer.header("Retry-After") == "5" and answer.header("X-App") is None


@pytest.mark.parametrize("how", ["", "&length=1", "&pieces=1", "&pieces=1&length=1"])
@pytest.mark.only_rwsgi(why="it sends a Content-Length of the application's that is wrong then")
def test_a_compressed_body_is_whole(routed, how):
    site = routed("--route-run", "gzip:")
    answer = site.get(f"/?body=abcdefgh&repeat=20000{how}")
    assert answer.header("Content-Encoding") == "gzip"
    assert gzip.decompress(answer.body) == b"abcdefgh" * 20_000
    assert len(answer.body) < 10_000
    head = site.request("HEAD", f"/?body=abcdefgh{how}")
    assert head.body == b""
    empty = site.get("/?status=204&body=")
    assert (empty.status, empty.header("Content-Encoding")) == (204, None)
    with Connection(site.address) as connection:
        for _ in range(2):
            connection.send(http.head("GET", f"/?body=again{how}", {}))
            assert gzip.decompress(connection.response("GET").body) == b"again"


@pytest.mark.only_rwsgi(why="it sends a Content-Length of the application's that is wrong then")
@pytest.mark.parametrize("rule", ["gzip:", "chunked:", "send:before "])
def test_rules_keep_to_the_length_of_a_file(routed, tmp_path, rule):
    """A part of a file ends where it ends, and HEAD says no length that GET has not."""
    (tmp_path / "file.txt").write_bytes(b"0123456789" * 10_000)
    site = routed("--route-run", rule, "--static-map", f"/s={tmp_path}")
    before = b"before " if rule.startswith("send") else b""
    part = site.get("/s/file.txt", {"Range": "bytes=5-14"})
    assert (part.status, part.header("Content-Encoding")) == (206, None)
    assert part.body == before + b"5678901234"
    whole = site.get("/s/file.txt")
    is_zipped = whole.header("Content-Encoding") == "gzip"
    assert (gzip.decompress(whole.body) if is_zipped else whole.body) == before + b"0123456789" * 10_000
    assert is_zipped == (whole.header("Accept-Ranges") is None) == whole.header("ETag").startswith("W/")
    for target in ("/s/file.txt", "/?body=abc&length=1", "/?body=abc"):
        head, got = site.request("HEAD", target), site.get(target)
        assert head.header("Content-Encoding") == got.header("Content-Encoding")
        if rule != "chunked:":
            assert head.header("Content-Length") in (None, str(len(got.body))), target


@pytest.mark.only_rwsgi(why="it sends whatever comes as a whole")
@pytest.mark.parametrize("rule", ["gzip:", "chunked:", "send:before "])
def test_a_body_that_is_too_short_is_not_made_whole(routed, rule):
    site = routed("--route-run", rule)
    answer = site.get("/?body=abc&header=Content-Length:9")
    assert answer.status == 500
    body = gzip.decompress(answer.body) if answer.header("Content-Encoding") == "gzip" else answer.body
    assert body.endswith(b"Internal Server Error\n")
    with Connection(site.address) as connection:
        connection.send(http.head("GET", "/?body=abcdef&pieces=1&header=Content-Length:9", {}))
        with pytest.raises(Closed):
            connection.response("GET")


@pytest.mark.only_rwsgi(why="it sends the file as a file")
def test_a_file_that_is_too_large_in_place_of_an_error_is_not_cut(routed, tmp_path):
    with open(tmp_path / "huge", "wb") as file:
        file.truncate((16 << 20) + 1)
    site = routed("--error-route-status", f"404 file:filename={tmp_path}/huge")
    assert site.get("/?status=404").status == 500


@pytest.mark.only_rwsgi(why="it answers nothing, and serves what a file: leads to")
def test_no_link_leads_out_of_the_directory_in_place_of_an_error(routed, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "files" / "page").write_text("page")
    (tmp_path / "files" / "link").symlink_to(tmp_path / "secret")
    site = routed("--error-route", f"^/(.*)$ static:{tmp_path}/files/$1")
    assert site.get("/page").body == b"page"
    for target in ("/link", "/../secret", "/missing"):
        assert b"secret" not in site.get(target).body, target


@pytest.mark.only_rwsgi(why="it compresses no file")
def test_files_of_the_application_pass_through_rules(routed, tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    site = routed("--route", "^/zip gzip:", "--route", "^/before send:before ", "--add-header", "X-Added: 1")
    assert gzip.decompress(site.get(f"/zip?file={tmp_path}/file").body) == b"x" * 100_000
    answer = site.get(f"/?file={tmp_path}/file")
    assert (answer.body, answer.header("X-Added")) == (b"x" * 100_000, "1")
    assert site.get(f"/before?file={tmp_path}/file").body == b"before " + b"x" * 100_000
    assert site.get("/before?body=after&length=1").body == b"before after"


@pytest.mark.parametrize("kind", KINDS)
def test_rules_see_the_end(routed, kind, tmp_path):
    record = tmp_path / "signalled"
    site = routed(
        "--final-route-status", "500 log:failed ${PATH_INFO} ${uwsgi[status]}",
        "--final-route", "^/quiet donotlog:", "--final-route-run", "logvar:size=${uwsgi[rsize]}",
        "--route", "^/signal signal:17", "--route-run", "log:begun ${PATH_INFO}",
        kind=kind, env={"SIGNALLED": str(record)},
    )
    site.get("/bad?status=500&body=x")
    site.get("/quiet?body=x")
    site.get("/signal?body=12345&last=1")
    log = told(site, "last=1")
    assert "failed /bad 500" in log and "begun /signal" in log
    assert "/quiet?body" not in log
    assert Record(record).wait()[0] == "17"


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_format_shows_what_rules_have_set(routed, kind):
    site = routed(
        "--log-format", "%(user)|%(var.MADE)|%(var.HTTP_X_MADE)|%(var.CONTENT_TYPE)|%(who)|%(method) %(uri)",
        "--route", "^/admin basicauth:My Realm,joe:pass", "--route", "^/quiet donotlog:",
        "--route", "^/admin addvar:MADE=made", "--route", "^/admin addvar:HTTP_X_MADE=header ${PATH_INFO}",
        "--route", "^/admin addvar:CONTENT_TYPE=text/made",
        "--route", "^/admin logvar:who=first", "--final-route", "^/admin logvar:who=last",
        kind=kind,
    )
    assert site.get("/admin?n=1", basic("joe:pass")).status == 200
    assert site.get("/quiet?n=2").status == 200
    # What was set for a request is not there at the next.
    assert site.get("/?n=3", {"X-Made": "sent"}).status == 200
    log = told(site, "/?n=3")
    assert "joe|made|header /admin|text/made|last|GET /admin?n=1\n" in log
    assert "-|-|sent|-|-|GET /?n=3\n" in log
    assert "n=2" not in log


@pytest.mark.only_rwsgi(why="uWSGI has no such format")
def test_a_variable_of_the_log_that_is_set_twice_is_one_key_of_json(routed):
    site = routed("--access-log-format", "json", "--route-run", "logvar:a=1", "--route-run", "logvar:a=2")
    site.get("/?n=1")
    [line] = [line for line in told(site, "/?n=1").splitlines() if "/?n=1" in line]
    assert json.loads(line, object_pairs_hook=list)[-1] == ("vars", [("a", "2")])


@pytest.mark.only_rwsgi(why="its line shows log variables only in a format that names them")
def test_variables_of_the_log(routed):
    site = routed("--route-run", "logvar:who=${HTTP_X_WHO}", "--final-route-run", "logvar:size=${uwsgi[rsize]}")
    site.get("/?body=12345", {"X-Who": 'a"b'})
    assert 'who="a%22b" size="5"' in told(site, "body=12345")


@pytest.mark.only_rwsgi(why="it closes the connection of a request that raises")
def test_an_error_has_its_page(routed, tmp_path):
    (tmp_path / "500.html").write_text("<p>sorry</p>")
    site = routed("--error-page-500", tmp_path / "none.html", "--error-page-500", tmp_path / "500.html",
                  "--add-header", "X-Added: 1")
    answer = site.get("/?raise=1")
    assert (answer.status, answer.body, answer.header("Content-Type")) == (500, b"<p>sorry</p>", "text/html")
    assert answer.header("X-Added") == "1"
    assert site.get("/?status=500&body=own").body == b"own"


@pytest.mark.only_rwsgi(why="it answers nothing")
def test_a_file_that_is_not_there_has_its_page(routed, tmp_path):
    (tmp_path / "404.html").write_text("<p>not here</p>")
    site = routed("--error-page-404", tmp_path / "404.html", "--route", f"^/(.*) static:{tmp_path}/files/$1")
    answer = site.get("/a")
    assert (answer.status, answer.body, answer.header("Content-Type")) == (404, b"<p>not here</p>", "text/html")
    assert site.get("/../a").body == b"Forbidden"


@pytest.mark.only_rwsgi(why="it closes the connection")
def test_a_request_has_its_own_harakiri(routed, stats_at):
    site = routed("--route", "^/slow harakiri:5", "--processes", 1, "--stats", stats_at)
    first = site.server.wait_workers(1)["workers"][0]["pid"]
    # It is over with the request.
    assert site.get("/slow?body=fast").body == b"fast"
    assert site.get("/?sleep=7&body=late").body == b"late"
    assert site.server.stats()["workers"][0]["pid"] == first
    with pytest.raises(Closed):
        site.get("/slow?sleep=60")
    site.server.wait_stats(lambda document: document["workers"][0]["pid"] not in (0, first), "another process")
    assert site.get("/?body=again").body == b"again"


def test_rules_stand_in_a_file(serve, tmp_path, address):
    file = tmp_path / "rules.ini"
    file.write_text(f"""\
[uwsgi]
http-socket = {address}
wsgi-file = routed.py
master = true
secret = /private
if-env = HOME
route = ^%(secret)/([0-9]+%%?)$ addvar:MADE=$1 $(HOME) ${{HTTP_HOST}}
endif =
route-if = contains:${{HTTP_ACCEPT_ENCODING}};gzip goto:_packed
route-run = last:
route-label = _packed
route-run = addheader:X-Label: reached; twice
""")
    serve("--ini", file, env={"HOME": "/home/x"}, listens=[address])
    assert seen(http.get(address, "/private/12", {"Host": "h"}))["MADE"] == "12 /home/x h"
    assert http.get(address, "/", {"Accept-Encoding": "gzip"}).header("X-Label") == "reached; twice"
    assert http.get(address, "/").header("X-Label") is None


# The start


@pytest.mark.parametrize("option, value, said", [
    ("--route", "^/x ldapauth:x", "'ldapauth' is an action of uWSGI's that is not here"),
    ("--route", "^/x nonsense:", "'nonsense' is none"),
    ("--route-if", "nonsense:x log:", "'nonsense' is none"),
    ("--route", "( log:", "regular expression"),
    ("--route-run", "donotlog", "ACTION:ARGUMENT"),
])
def test_what_is_no_rule_is_refused_with_what_there_is(serve, program, address, option, value, said):
    if program.is_uwsgi and "is not here" in said:
        pytest.skip("it is there")
    server = serve.run("--http-socket", address, "--wsgi-file", "routed.py", option, value)
    assert server.process.returncode != 0
    if not program.is_uwsgi:
        lines = [line for line in server.log().splitlines() if option.strip("-") in line]
        assert len(lines) == 1 and said in lines[0], server.log()


@pytest.mark.parametrize("option, value, said", [
    ("--route", "^/x cache:key=x", "there is no action 'cache' here"),
    ("--response-route-if-not", "empty:${X} sse:server=a", "there is no action 'sse' here"),
    ("--response-route-run", "remheader:X-App", "comes too late"),
])
@pytest.mark.only_rwsgi(why="it has these, or says nothing")
def test_what_can_be_left_out_is_named(serve, address, option, value, said):
    server = serve("--http-socket", address, "--wsgi-file", "routed.py", option, value)
    lines = [line for line in server.log().splitlines() if option.strip("-") in line]
    assert len(lines) == 1 and said in lines[0] and "WARN" in lines[0], server.log()
    assert http.get(address, "/x").header("X-App") == "1"


@pytest.mark.only_rwsgi(why="it sends it")
def test_a_header_that_cannot_be_sent_is_named(serve, address):
    server = serve("--http-socket", address, "--wsgi-file", "routed.py", "--add-header", "Transfer-Encoding: chunked")
    assert "Transfer-Encoding" in server.log()
    assert http.get(address, "/").status == 200
