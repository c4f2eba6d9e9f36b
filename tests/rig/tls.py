"""Certificates made by openssl, and an HTTP client that speaks TLS."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rig.addresses import connect
from rig.http import Connection

OPENSSL = shutil.which("openssl") or "/usr/bin/openssl"


@dataclass(frozen=True)
class Certificate:
    """A certificate, and its key, as files."""

    cert: Path
    key: Path

    @property
    def pem(self) -> str:
        """The certificate."""
        return self.cert.read_text()


def openssl(*arguments: object, **options: object) -> bytes:
    """Runs openssl, which must succeed."""
    ran = subprocess.run([OPENSSL, *map(str, arguments)], capture_output=True, timeout=60, **options)
    assert ran.returncode == 0, f"openssl {arguments}: {ran.stderr.decode()}"
    return ran.stdout


def key(path: Path, kind: str = "ec") -> Path:
    """A new private key: `ec` or `rsa`."""
    how = {
        "ec": ("EC", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        "rsa": ("RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
    }[kind]
    openssl("genpkey", "-quiet", "-algorithm", *how, "-out", path)
    return path


def self_signed(directory: Path, name: str = "localhost", kind: str = "ec") -> Certificate:
    """A certificate for a host (and this machine's address) that signs itself."""
    made = Certificate(directory / f"{name}.crt", key(directory / f"{name}.key", kind))
    names = f"subjectAltName=DNS:{name},IP:127.0.0.1"
    openssl("req", "-x509", "-new", "-key", made.key, "-out", made.cert, "-days", 30, "-subj", f"/CN={name}", "-addext", names)
    return made


def of_version_1(directory: Path, key: Path, days: int = 365) -> Path:
    """A certificate as uWSGI's documentation has people make it; with days below 0 it has expired."""
    request, made = directory / "foobar.csr", directory / "foobar.crt"
    openssl("req", "-new", "-key", key, "-out", request, "-subj", "/CN=localhost")
    openssl("x509", "-req", "-days", days, "-in", request, "-signkey", key, "-out", made)
    return made


def signed(directory: Path, name: str, authority: Certificate, subject: str) -> Certificate:
    """A client's certificate, which the authority has signed."""
    made = Certificate(directory / f"{name}.crt", key(directory / f"{name}.key"))
    request, extensions = directory / f"{name}.csr", directory / f"{name}.ext"
    openssl("req", "-new", "-key", made.key, "-out", request, "-subj", subject)
    extensions.write_text("basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n")
    openssl(
        "x509", "-req", "-in", request, "-CA", authority.cert, "-CAkey", authority.key, "-set_serial", 7, "-days", 30,
        "-extfile", extensions, "-out", made.cert,
    )  # fmt: skip
    return made


def client(trusted: Certificate | None = None, shown: Certificate | None = None) -> ssl.SSLContext:
    """What a client is made with: whom it trusts (anybody, without one), and what it shows."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(trusted.cert) if trusted else None)
    if trusted is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if shown is not None:
        context.load_cert_chain(shown.cert, shown.key)
    return context


class TlsConnection(Connection):
    """One connection to a server that speaks HTTP/1.1 over TLS."""

    def __init__(
        self, address: str, context: ssl.SSLContext | None = None, host: str = "localhost", first: bytes = b"", timeout: float = 30.0
    ) -> None:
        super().__init__(address, timeout)
        self.socket.sendall(first)
        plain = self.socket
        try:
            self.socket = (context or client()).wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise

    @property
    def tls(self) -> ssl.SSLSocket:
        """Its socket."""
        assert isinstance(self.socket, ssl.SSLSocket)
        return self.socket


def shown_certificate(address: str, host: str = "localhost") -> bytes:
    """The certificate that a server shows to who asks for that host, as DER."""
    with TlsConnection(address, host=host) as connection:
        return connection.tls.getpeercert(binary_form=True) or b""


def der(certificate: Certificate) -> bytes:
    """The same certificate, from its file."""
    return ssl.PEM_cert_to_DER_cert(certificate.pem)


class Piecemeal:
    """A TLS client whose encrypted bytes the test has in its hands."""

    def __init__(self, address: str, context: ssl.SSLContext | None = None) -> None:
        self.socket: socket.socket = connect(address)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = (context or client()).wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def pull(self) -> None:
        """Takes what the server sends next."""
        data = self.socket.recv(65536)
        if not data:
            self.incoming.write_eof()
        self.incoming.write(data)

    def encrypted(self, data: bytes) -> bytes:
        """What is to be sent for this."""
        self.tls.write(data)
        return self.outgoing.read()

    def shake_hands(self, send=None) -> None:
        """The handshake; `send` says how its bytes go."""
        send = send or self.socket.sendall
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                send(self.outgoing.read())
                self.pull()
            else:
                send(self.outgoing.read())
                return

    def read(self) -> bytes:
        """The next of what the server says."""
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                self.pull()


def https(serve, at, own, *arguments, more="", app="probe.py", **options):
    """A server with TLS."""
    return serve("--https", f"{at},{own.cert},{own.key}{more}", "--wsgi-file", app, *arguments, listens=[at], **options)


def waiting(record, go):
    """The target of a request that is answered when the test makes the file `go`."""
    return f"/slow?go={go}&record={record.path}"


def router_of(server):
    """The process id of the http router."""
    return int(server.logged(r"http router started \(pid (\d+)\)")[-1][1])
