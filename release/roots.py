"""Fresh Debian systems as directories, and commands in copies of them that are gone afterwards. Root only."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
# debootstrap has a script for each release that it knew when it was made; those of later ones are sid's.
SCRIPTS = Path("/usr/share/debootstrap/scripts")
# apt's own user cannot write everywhere. A mirror that is a copy of one day has lists that have expired.
APT = 'APT::Sandbox::User "root";\nAcquire::Check-Valid-Until "false";\nDpkg::Options { "--force-unsafe-io"; };\n'
# What this machine needs to reach an index, which a new system does not know.
KEPT = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_DEFAULT_TIMEOUT", "http_proxy", "https_proxy", "no_proxy")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Unable(Exception):
    """What stands in the way, in one line."""


def make(suite: str, directory: Path, log: Path) -> Path:
    """The minimal system of this release, made when it is not there: what `debootstrap --variant=minbase` installs, no more."""
    root = directory / suite
    if root.is_dir():
        return root
    if os.geteuid() != 0:
        raise Unable("only root can make a root file system")
    if shutil.which("debootstrap") is None:
        raise Unable("debootstrap is not installed: apt-get install debootstrap")
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{suite}.new.lock").open("w") as lock:
        # Another run may be making it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return root if root.is_dir() else _make(suite, root, log)


def _make(suite: str, root: Path, log: Path) -> Path:
    new = root.with_name(f"{suite}.new")
    shutil.rmtree(new, ignore_errors=True)
    script = [] if (SCRIPTS / suite).exists() else [SCRIPTS / "sid"]
    with log.open("ab") as output:
        done = subprocess.run(
            # It would go on without the keyring, from a mirror that anybody on the way can answer for.
            ["debootstrap", "--force-check-gpg", "--variant=minbase", suite, new, MIRROR, *script], stdout=output, stderr=output, timeout=900
        )
    if done.returncode != 0:
        raise Unable(f"debootstrap {suite} failed: {log} has what it said")
    (new / "etc/apt/apt.conf.d/99check").write_text(APT)
    shutil.rmtree(new / "var/cache/apt/archives", ignore_errors=True)
    new.rename(root)
    return root


@dataclass
class Copy:
    """A system that starts as `root` is and keeps its changes in `changes`. Every command has its own mounts and processes, which
    end with it."""

    root: Path
    changes: Path
    # Where downloads of apt and pip are kept for the next one.
    cache: Path
    # Directories of this machine that it can read, at the same path.
    mounts: list[Path] = field(default_factory=list)

    def create(self) -> None:
        """Starts anew."""
        self.remove()
        for name in ("upper", "work", "mounted"):
            (self.changes / name).mkdir(parents=True)

    def remove(self) -> None:
        shutil.rmtree(self.changes, ignore_errors=True)

    def path(self, inside: str) -> Path:
        """Where a file is that was made in the copy, or is to be made."""
        return self.changes / "upper" / inside.lstrip("/")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While apt runs in a copy of this system, no other copy's apt does: they keep what they download in one place."""
        self.cache.mkdir(parents=True, exist_ok=True)
        with (self.cache / f"{self.root.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def command(self, script: str, **environment: str) -> list[str]:
        """The command line that runs these lines of sh in the copy, in /src."""
        at = self.changes / "mounted"
        steps = [
            "set -eu",
            f"mount -t overlay overlay -o lowerdir={self.root},upperdir={self.changes}/upper,workdir={self.changes}/work {at}",
            f"cd {at}",
            "mkdir -p src",
            "mount -t proc proc proc",
            "mount --rbind /dev dev",
            "mount --rbind /sys sys",
        ]
        for mount in self.mounts:
            steps += [f"mkdir -p .{mount}", f"mount --bind -o ro {mount} .{mount}"]
        # A directory in root's home is for everybody here.
        steps += ["chmod 755 root"]
        trust = {}
        if CA_BUNDLE.exists():
            # Not where Debian's package would write its own.
            steps += [f"cp {CA_BUNDLE} ./var/lib/trusted.crt"]
            trust = {"PIP_CERT": "/var/lib/trusted.crt"}
        archives = self.cache / "archives" / self.root.name
        steps += [
            f"mkdir -p {archives}/partial {self.cache}/pip var/cache/apt/archives var/cache/pip",
            f"mount --bind {archives} var/cache/apt/archives",
            f"mount --bind {self.cache}/pip var/cache/pip",
        ]
        values = {"HOME": "/root", "PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8", "TERM": "xterm-256color", "PIP_CACHE_DIR": "/var/cache/pip"}
        steps += ["cp /etc/resolv.conf etc/resolv.conf", 'exec chroot . /bin/sh -c \'set -eu; cd /src; eval "$1"\' sh "$1"']
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        values |= {**kept, **trust, **environment}
        return [
            "unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private",
            "env", "-i", *(f"{name}={value}" for name, value in values.items()), "sh", "-c", "\n".join(steps), "sh", script,
        ]  # fmt: skip

    def run(self, script: str, log: Path, deadline: float, **environment: str) -> int:
        """Runs these lines of sh and returns the status; 124 when they took longer than `deadline` seconds."""
        with log.open("ab") as output:
            output.write(f"\n$ {script}\n".encode())
            output.flush()
            process = subprocess.Popen(
                self.command(script, **environment), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
            try:
                return process.wait(deadline)
            except subprocess.TimeoutExpired:
                return 124
            finally:
                process.kill()
                process.wait()
