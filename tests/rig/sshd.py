"""A real OpenSSH server on loopback, with keys and configuration of its own, and the client's configuration for it."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from pathlib import Path

from rig.addresses import free_port, listening
from rig.waiting import until

PROGRAM = shutil.which("sshd") or "/usr/sbin/sshd"


class Sshd:
    """A running `sshd`; `config` is for `ssh -F`, and calls it `machine`."""

    def __init__(self, directory: Path) -> None:
        assert os.access(PROGRAM, os.X_OK), f"{PROGRAM} is not there: tests/run installs openssh-server"
        directory.chmod(0o700)
        self.directory = directory
        self.port = free_port()
        for name in ("host", "client", "stranger"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(directory / name)]
            subprocess.run(command, check=True, timeout=60)
        shutil.copy(directory / "client.pub", directory / "authorized_keys")
        if os.getuid() == 0:
            # Where it locks up the part that speaks with strangers.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        server = directory / "sshd_config"
        server.write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {directory}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
            f"AuthorizedKeysFile {directory}/authorized_keys\nPasswordAuthentication no\nPermitRootLogin yes\nLogLevel VERBOSE\n"
            "MaxStartups 100\n"
        )
        self.config = self.client("client")
        self.log_path = directory / "sshd.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "-D", "-e", "-f", str(server)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            until(lambda: listening(f"127.0.0.1:{self.port}"), "sshd listens", context=self.log)
        except AssertionError:
            self.stop()
            raise

    def client(self, key: str) -> Path:
        """The client's configuration with this key."""
        config = self.directory / f"ssh_config_{key}"
        (self.directory / "known_hosts").write_text(
            f"[127.0.0.1]:{self.port} {(self.directory / 'host.pub').read_text()}"
        )
        config.write_text(
            f"Host machine\n HostName 127.0.0.1\n Port {self.port}\n User {getpass.getuser()}\n"
            f" IdentityFile {self.directory}/{key}\n IdentitiesOnly yes\n UserKnownHostsFile {self.directory}/known_hosts\n"
        )
        return config

    def log(self) -> str:
        """Everything that it logged."""
        return self.log_path.read_text(errors="replace")

    def logins(self) -> int:
        """Connections that were let in."""
        return self.log().count("Accepted publickey")

    def stop(self) -> None:
        """Stops it."""
        self.process.terminate()
        self.process.wait(30)
