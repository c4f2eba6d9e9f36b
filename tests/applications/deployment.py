"""An application under a server, with nginx in front where its configuration listens on a socket."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from applications.answers import Reader
from applications.browser import Browser
from applications.environment import Installed
from applications.table import Application
from rig.addresses import listening, tcp
from rig.nginx import Nginx
from rig.server import Program, Server, Servers
from rig.waiting import until

# Seconds that an application may take to be loaded: some take ten on an idle machine.
PATIENCE = 240.0

NGINX = """
server {
    listen ADDRESS;
    client_max_body_size 100m;
    location / {
        include uwsgi_params;
        uwsgi_read_timeout 120s;
        uwsgi_pass UPSTREAM;
    }
}
"""


def entrances(application: Application) -> tuple[str, ...]:
    """The ways in: what the configuration listens on; and the http router, in front of a socket."""
    return ("socket", "http") if application.listens == "socket" else ("http",)


@contextmanager
def served(
    application: Application, installed: Installed, program: Program, entrance: str, directory: Path
) -> Iterator[tuple[str, Path]]:
    """A running server with a copy of the state of its own: where it answers HTTP, and the copy."""
    root = directory / "root"
    shutil.copytree(installed.state, root, symlinks=True)
    address, router = tcp(), tcp()
    variables = {
        **installed.variables(application, root), "ADDRESS": address, "RUN_AS": pwd.getpwuid(os.getuid()).pw_name,
    }
    arguments = ["--ini", str(application.directory / "uwsgi.ini")]
    text = (application.directory / "uwsgi.ini").read_text()
    if "$(ENV)" not in text:
        arguments += ["--home", str(installed.env)]
    if entrance != application.listens:
        arguments += ["--http", router]
    if program.is_uwsgi:
        arguments += application.uwsgi_options
    servers = Servers(program, directory)
    front = None
    server = None
    try:
        server = servers.start(*arguments, cwd=root, env=variables, listens=[address])
        until(lambda: _serves(server, program, directory), "the application is loaded", PATIENCE, server.log)
        reached = address
        if entrance == "socket":
            front = nginx(application, installed, root, address, directory)
            reached = front.addresses["site"]
        elif application.listens == "socket":
            reached = router
        yield reached, root
    finally:
        if front is not None:
            front.stop()
        if program.is_uwsgi and server is not None:
            # What it does at its end is not of interest here; with some applications it takes a minute.
            server.destroy()
        servers.stop_all()


def _serves(server: Server, program: Program, directory: Path) -> bool:
    status = server.process.poll()
    assert status is None, f"the server exited with {status} while starting:\n{server.log()}"
    if not all(listening(each) for each in server.listens):
        return False
    # It listens before it has loaded anything. Its log may be in files of its own.
    return not program.is_uwsgi or any("spawned uWSGI worker" in log.read_text(errors="replace") for log in directory.rglob("*.log"))


def nginx(application: Application, installed: Installed, root: Path, upstream: str, directory: Path) -> Nginx:
    """nginx in front, with the application's own block where it has one."""
    own = application.directory / "nginx.conf"
    block = own.read_text() if own.exists() else NGINX
    for name, value in (("UPSTREAM", upstream), ("ROOT", str(root)), ("ENV", str(installed.env))):
        block = block.replace(name, value)
    prefix = directory / "nginx"
    prefix.mkdir()
    return Nginx(prefix, {}, servers={"site": block})


def use(application: Application, installed: Installed, program: Program, entrance: str, directory: Path) -> Reader:
    """Starts it, runs its client, and gives back what was answered."""
    with served(application, installed, program, entrance, directory) as (address, root):
        browser = Browser(address, entrance, program.is_uwsgi)
        try:
            client(application)(browser, root)
        except Exception as error:
            logs = "\n".join(f"== {log}\n{log.read_text(errors='replace')[-6000:]}" for log in sorted(directory.glob("*.log")))
            raise AssertionError(f"{application.name} under {program.path}: {error!r}\n{logs}") from error
    places = {str(directory): "<directory>", str(installed.env): "<env>", address: "<address>"}
    return Reader(browser, places, application)


def client(application: Application):
    """`use(browser, root)` of its client."""
    path = application.directory / "client.py"
    spec = importlib.util.spec_from_file_location(f"applications.client_of_{application.name.replace('-', '_')}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.use
