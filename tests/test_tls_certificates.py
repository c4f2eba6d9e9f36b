"""Certificates and keys of `https`: which are taken and shown, clients' own, their renewal, and who can read the keys."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess

import pytest

from rig import other_user, tls
from rig.addresses import tcp
from rig.http import Closed, head
from rig.server import Servers
from rig.tls import TlsConnection, https, router_of, waiting
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="the test environment's uWSGI is built without TLS")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The servers' certificate."""
    return tls.self_signed(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_kinds_of_keys(serve, tmp_path, kind):
    own, at = tls.self_signed(tmp_path, kind=kind), tcp()
    https(serve, at, own)
    with TlsConnection(at, tls.client(own)) as connection:
        assert connection.request("GET", "/unread").text == "not read"


def test_keys_in_their_own_formats_and_certificates_of_version_1_are_taken(serve, tmp_path):
    """As the recipe in uWSGI's documentation makes them."""
    key, at = tls.key(tmp_path / "foobar.key", "rsa"), tcp()
    tls.openssl("rsa", "-in", key, "-traditional", "-out", tmp_path / "own.key")
    https(serve, at, tls.Certificate(tls.of_version_1(tmp_path, key), tmp_path / "own.key"), more=",HIGH")
    with TlsConnection(at) as connection:
        assert connection.request("GET", "/unread").text == "not read"


def test_ciphers_choose_among_those_of_tls_1_2(serve, tmp_path):
    own, at = tls.self_signed(tmp_path, kind="rsa"), tcp()
    server = https(serve, at, own, more=",ECDHE-RSA-AES128-GCM-SHA256:AES128-SHA:!aNULL")
    context = tls.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with TlsConnection(at, context) as connection:
        assert connection.tls.cipher()[0] == "ECDHE-RSA-AES128-GCM-SHA256"
    context.set_ciphers("ECDHE-RSA-AES256-GCM-SHA384")
    with pytest.raises(ssl.SSLError):
        TlsConnection(at, context)
    server.logged("https: some of these ciphers are not here")


def test_hosts_have_certificates_of_their_own(serve, own, tmp_path):
    one, other, by_dir = (tls.self_signed(tmp_path, name) for name in ("one.example", "other.example", "dir.example"))
    directory = tmp_path / "sni"
    directory.mkdir()
    for file in (by_dir.cert, by_dir.key):
        file.rename(directory / file.name)
    by_dir = tls.Certificate(directory / by_dir.cert.name, directory / by_dir.key.name)
    (directory / "nokey.crt").write_text(one.pem)
    at = tcp()
    sni = ("--sni", f"one.example {one.cert},{one.key}", "--sni", f"Other.Example {other.cert},{other.key},HIGH")
    https(serve, at, own, *sni, "--sni-dir", directory)
    wanted = {"one.example": one, "OTHER.example": other, "dir.example": by_dir, "localhost": own, "nokey": own}
    for host, certificate in wanted.items():
        assert tls.shown_certificate(at, host) == tls.der(certificate), host


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """An authority of clients' certificates."""
    return tls.self_signed(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="module")
def alice(tmp_path_factory, authority):
    """A client that it has signed."""
    return tls.signed(tmp_path_factory.mktemp("alice"), "alice", authority, "/C=DE/O=Example & Co/CN=alice")


def test_a_client_that_must_show_a_certificate_does_or_is_refused(serve, own, authority, alice, tmp_path):
    at = tcp()
    https(serve, at, own, "--https-export-cert", more=f",HIGH,!{authority.cert}")
    with TlsConnection(at, tls.client(own, alice)) as connection:
        for _ in range(2):
            environ = json.loads(connection.request("GET", "/environ").body)
            assert environ["HTTPS_DN"] == "/C=DE/O=Example & Co/CN=alice"
            assert environ["HTTPS_CC"] == alice.pem
            assert environ["HTTPS_CLIENT_CERTIFICATE"].encode("latin-1") == tls.der(alice)
            assert environ["REMOTE_ADDR"] == "127.0.0.1"
    stranger = tls.signed(tmp_path, "mallory", tls.self_signed(tmp_path, "stranger"), "/CN=mallory")
    for shown in (None, stranger):
        with pytest.raises((ssl.SSLError, ConnectionError, Closed)):
            # A client of TLS 1.3 learns it when it reads.
            with TlsConnection(at, tls.client(own, shown)) as connection:
                connection.request("GET", "/environ")


def test_a_client_that_may_show_a_certificate_need_not(serve, own, authority, alice, tmp_path):
    at = tcp()
    https(serve, at, own, more=f",,{authority.cert}")
    with TlsConnection(at, tls.client(own)) as connection:
        assert "HTTPS_DN" not in json.loads(connection.request("GET", "/environ").body)
    with TlsConnection(at, tls.client(own, alice)) as connection:
        environ = json.loads(connection.request("GET", "/environ").body)
        assert environ["HTTPS_DN"].endswith("/CN=alice") and "HTTPS_CC" not in environ


def test_no_other_host_s_connection_leads_to_one_that_demands_a_certificate(serve, own, authority, alice, tmp_path):
    """A client names the host of its TLS itself, and that of its request again."""
    public, secret = tls.self_signed(tmp_path, "public.example"), tls.self_signed(tmp_path, "secret.example")
    hosts = ("--sni", f"public.example {public.cert},{public.key}", "--sni", f"secret.example {secret.cert},{secret.key},,!{authority.cert}")
    by_socket, by_host = tcp(), tcp()
    https(serve, by_socket, own, *hosts, more=f",,!{authority.cert}")
    https(serve, by_host, own, *hosts)

    def status(at, connected, asked, shown=None, target="/unread"):
        with TlsConnection(at, tls.client(shown=shown), host=connected) as connection:
            return connection.request("GET", target, {"Host": asked}).status

    for at in (by_socket, by_host):
        assert status(at, "public.example", "Public.example:443") == 200
        assert status(at, "secret.example", "secret.example", alice) == 200
        for asked in ("secret.example", "SECRET.example:8443", "secret.example."):
            assert status(at, "public.example", asked) == 421
        assert status(at, "public.example", "public.example", target="http://secret.example/unread") == 421
        # A certificate that was never asked for is none.
        assert status(at, "public.example", "secret.example", alice) == 421
    # Every other host is the socket's own.
    assert status(by_socket, "public.example", "localhost") == 421
    assert status(by_socket, "localhost", "127.0.0.1", alice) == 200
    assert status(by_host, "public.example", "localhost") == 200
    assert status(by_host, "localhost", "secret.example") == 421


def test_certificates_are_renewed_by_a_reload_while_connections_go_on(serve, tmp_path, record):
    own, at = tls.self_signed(tmp_path), tcp()
    before = tls.der(own)
    server = https(serve, at, own, "--threads", 2)
    with TlsConnection(at) as kept, TlsConnection(at) as busy:
        assert kept.request("GET", "/unread").text == "not read"
        busy.send(head("GET", waiting(record, tmp_path / "go")))
        record.wait()
        renewed = tls.self_signed(tmp_path)
        assert tls.der(renewed) != before and tls.shown_certificate(at) == before
        server.send(signal.SIGHUP)
        server.logged("reload: new certificates")
        until(lambda: tls.shown_certificate(at) == tls.der(renewed), "the new certificate shown", context=server.log)
        (tmp_path / "go").touch()
        assert busy.response().status == 200
        assert kept.request("GET", "/unread").text == "not read"
        # A broken one changes nothing.
        renewed.key.write_text("nonsense")
        server.send(signal.SIGHUP)
        server.logged("reload: all certificates stay as they were: https: key .*no private key")
        assert tls.shown_certificate(at) == tls.der(renewed)
        assert kept.request("GET", "/unread").text == "not read"


def test_a_router_that_died_has_the_certificates_again(serve, own):
    at = tcp()
    server = https(serve, at, own)
    os.kill(router_of(server), signal.SIGKILL)
    server.logged(r"http router started \(pid (\d+)\)", 2)
    until(lambda: _answers(at), "an answer", context=server.log)


def _answers(at):
    try:
        with TlsConnection(at) as connection:
            return connection.request("GET", "/unread").status == 200
    except (OSError, Closed):
        return False


def test_a_stop_lets_requests_finish(serve, own, record, tmp_path):
    at = tcp()
    server = https(serve, at, own)
    with TlsConnection(at) as busy, TlsConnection(at) as idle:
        assert idle.request("GET", "/unread").text == "not read"
        busy.send(head("GET", waiting(record, tmp_path / "go")))
        record.wait()
        server.send(signal.SIGTERM)
        assert idle.closed_by_server()
        (tmp_path / "go").touch()
        assert busy.response().status == 200
        assert busy.closed_by_server()
    assert server.wait_exit() == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give root up")
def test_a_key_of_roots_is_read_before_root_is_given_up(program_for_all, tmp_path_factory):
    place = other_user.place()
    servers = Servers(program_for_all, tmp_path_factory.mktemp("root"))
    try:
        own, at = tls.self_signed(place), tcp()
        own.key.chmod(0o600)
        shutil.copy(os.path.join(os.path.dirname(__file__), "apps", "probe.py"), place)
        server = https(servers, at, own, "--uid", "www-data", "--gid", "www-data", app=place / "probe.py", cwd=place)
        assert tls.shown_certificate(at) == tls.der(own)
        # The application, which is the same user, cannot read what they have in memory.
        for pid in (server.pid, router_of(server)):
            command = ["cat", f"/proc/{pid}/mem"]
            ran = subprocess.run(command, user="www-data", group="www-data", extra_groups=[], capture_output=True, text=True)
            assert "Permission denied" in ran.stderr
        before = tls.der(own)
        tls.self_signed(place).key.chmod(0o600)
        server.send(signal.SIGHUP)
        server.logged("reload: all certificates stay as they were: https: key .* cannot be read: Permission denied")
        assert tls.shown_certificate(at) == before
        assert "PRIVATE KEY" not in server.log()
    finally:
        servers.stop_all()
        shutil.rmtree(place)


def test_the_router_has_no_key_before_its_memory_is_closed_to_others(serve, own, tmp_path):
    """The application's user can kill the router, and would be in time to open what the next one inherits."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "found = []\n"
        "for fd in os.listdir('/proc/self/fd'):\n"
        "    try:\n"
        "        found.append(os.readlink(f'/proc/self/fd/{fd}'))\n"
        "    except OSError:\n"
        "        pass\n"
        f"open(f'{tmp_path}/{{os.getpid()}}', 'w').write('\\n'.join(found))\n"
    )
    at = tcp()
    server = https(serve, at, own, env={"PYTHONPATH": str(tmp_path)})
    assert _answers(at)
    # A router runs nothing that the environment brings. What is started beside it, by the same launcher, does.
    assert not (tmp_path / str(router_of(server))).exists()
    inherited = "".join(path.read_text() for path in tmp_path.iterdir() if path.name.isdigit())
    assert "socket:" in inherited and "rwsgi-tls" not in inherited
