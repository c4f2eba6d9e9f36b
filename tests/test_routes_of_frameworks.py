"""One line tells the server of each framework's routes; under another server it does nothing."""

from __future__ import annotations

import subprocess
import textwrap

import pytest

from rig import http
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI does not count by route")

DJANGO = """
from django.conf import settings
from django.http import HttpResponse
from django.urls import path, re_path
def view(request, **kwargs):
    if "go" in request.GET:
        import os, time
        end = time.monotonic() + 60
        while not os.path.exists(request.GET["go"]) and time.monotonic() < end:
            time.sleep(0.005)
    return HttpResponse("fine")
def fail(request):
    raise ValueError("no")
urlpatterns = [
    path("", view), path("users/<int:pk>/orders", view), path("fail", fail),
    re_path("^articles/(?P<year>[0-9]+)$", view),
]
settings.configure(
    ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x", LOGGING_CONFIG=None,
    MIDDLEWARE=["rwsgi.django.RouteMiddleware"],
)
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""

FLASK = """
from flask import Flask
import rwsgi.flask
application = Flask(__name__)
rwsgi.flask.name_routes(application)
@application.route("/")
@application.route("/users/<int:pk>/orders")
def view(pk=None):
    return "fine"
@application.route("/fail")
def fail():
    raise ValueError("no")
"""

BOTTLE = """
import bottle
import rwsgi.bottle
application = bottle.Bottle()
application.install(rwsgi.bottle.RoutePlugin())
@application.route("/")
@application.route("/users/<pk:int>/orders")
def view(pk=None):
    return "fine"
@application.route("/fail")
def fail():
    raise ValueError("no")
"""

PYRAMID = """
from pyramid.config import Configurator
from pyramid.response import Response
def view(request):
    return Response("fine")
def fail(request):
    raise ValueError("no")
with Configurator() as config:
    config.include("rwsgi.pyramid")
    for name, pattern, answer in (("home", "/", view), ("orders", "/users/{pk}/orders", view), ("fail", "/fail", fail)):
        config.add_route(name, pattern)
        config.add_view(answer, route_name=name)
    application = config.make_wsgi_app()
"""

FALCON = """
import falcon
import rwsgi.falcon
class View:
    def on_get(self, req, resp, pk=None):
        resp.text = "fine"
class Fail:
    def on_get(self, req, resp):
        raise ValueError("no")
application = falcon.App(middleware=[rwsgi.falcon.RouteMiddleware()])
application.add_route("/", View())
application.add_route("/users/{pk:int}/orders", View())
application.add_route("/fail", Fail())
"""

FRAMEWORKS = {
    "django": (DJANGO, "/users/<int:pk>/orders"),
    "flask": (FLASK, "/users/<int:pk>/orders"),
    "bottle": (BOTTLE, "/users/<pk:int>/orders"),
    "pyramid": (PYRAMID, "/users/{pk}/orders"),
    "falcon": (FALCON, "/users/{pk:int}/orders"),
}


def written(tmp_path, framework: str) -> str:
    (tmp_path / "framework_app.py").write_text(FRAMEWORKS[framework][0])
    return str(tmp_path)


def named(document) -> dict[str, int]:
    return {row["route"]: row["requests"] for row in document["routes"] if row["named"]}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_one_line_tells_the_framework_s_routes(serve, address, stats_at, tmp_path, framework):
    server = serve(
        "--http-socket", address, "--stats", stats_at, "--pythonpath", written(tmp_path, framework), "--module",
        "framework_app", "--disable-logging",
    )  # fmt: skip
    for target in ("/users/1/orders", "/users/2/orders?a=b", "/"):
        assert http.get(address, target).status == 200, server.log()
    assert http.get(address, "/fail").status == 500
    assert http.get(address, "/users/none/orders/here").status == 404
    expected = {FRAMEWORKS[framework][1]: 2, "/": 1, "/fail": 1}
    until(lambda: named(server.stats()) == expected, "the routes are told", context=lambda: str(server.stats()["routes"]))


def test_django_s_regular_expressions_are_told_without_their_beginning(serve, address, stats_at, tmp_path):
    server = serve(
        "--http-socket", address, "--stats", stats_at, "--pythonpath", written(tmp_path, "django"), "--module",
        "framework_app", "--disable-logging",
    )  # fmt: skip
    assert http.get(address, "/articles/2024").status == 200
    until(lambda: named(server.stats()) == {"/articles/(?P<year>[0-9]+)$": 1}, "the route is told")


def test_a_framework_s_route_is_known_while_its_view_runs(serve, address, stats_at, tmp_path):
    server = serve(
        "--http-socket", address, "--stats", stats_at, "--pythonpath", written(tmp_path, "django"), "--module",
        "framework_app", "--disable-logging",
    )  # fmt: skip
    go_on = tmp_path / "go"
    with http.Connection(address) as connection:
        connection.send(http.head("GET", f"/users/7/orders?go={go_on}"))
        server.wait_stats(
            lambda document: document["workers"][0]["cores"][0]["req_info"].get("route") == "/users/<int:pk>/orders",
            "the route is told",
        )  # fmt: skip
        go_on.touch()
        assert connection.response().status == 200


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_without_the_server_it_does_nothing(venv_bin, tmp_path, framework):
    script = textwrap.dedent("""
        from framework_app import application
        from wsgiref.util import setup_testing_defaults
        environ = {"PATH_INFO": "/users/1/orders"}
        setup_testing_defaults(environ)
        statuses = []
        body = b"".join(application(environ, lambda status, headers, exc_info=None: statuses.append(status)))
        print(statuses[0], body.decode())
    """)
    ran = subprocess.run(
        [venv_bin / "python", "-c", script], cwd=written(tmp_path, framework), capture_output=True, text=True, timeout=60
    )  # fmt: skip
    assert ran.stdout.strip() == "200 OK fine", ran.stderr
