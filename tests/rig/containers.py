"""Images and containers by podman, where no registry of images can be reached: what a Dockerfile starts from is made of the
system's own packages."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ("podman", "runc", "mmdebstrap", "nsenter", "curl")
# What the base image has beside the essential packages: the Python that `python:…-slim` would bring.
PACKAGES = "passwd,python3,python3-venv"
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


class Missing(Exception):
    """Something of this machine that images cannot be built without."""


class Refused(Exception):
    """What root may not do here, as in a container without rights."""


def _run(*command: object, **options) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def debian_mirror() -> tuple[str, str]:
    """Where this machine gets Debian's packages from, and the release that it has."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    codename = release.get("VERSION_CODENAME", "").strip('"')
    parts = "$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)"
    targets = _run("apt-get", "indextargets", "--format", parts, "Created-By: Packages")
    for line in targets.splitlines():
        origin, name, component, mirror = line.split(" ", 3)
        if (origin, name, component) == ("Debian", codename, "main"):
            return mirror, codename
    raise Missing("this is no Debian: there is nothing to make a base image of")


class Podman:
    """podman with a store of its own under target/, which the next run of the tests finds."""

    def __init__(self, store: Path) -> None:
        if os.geteuid() != 0:
            raise Missing("only root can make a root file system")
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        if missing:
            raise Missing(f"not installed: {', '.join(missing)}")
        self._store = store
        store.mkdir(parents=True, exist_ok=True)

    def clean(self) -> None:
        """Removes the containers and the mounts that a run has left which was killed."""
        self("rm", "--all", "--force", "--time", "0", timeout=60)
        self("image", "unmount", "--all", "--force", timeout=60)

    def command(self, *arguments: object) -> list[str]:
        """The command line."""
        own = ("--root", self._store / "root", "--runroot", self._store / "run")
        # No systemd, and no cgroups of version 2 alone, which crun wants.
        how = ("--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none")
        return [str(part) for part in ("podman", *own, *how, *arguments)]

    def __call__(self, *arguments: object, **options) -> str:
        """Runs it and returns what it prints."""
        return _run(*self.command(*arguments), **options)

    def base(self, name: str, variant: str = "essential", packages: str = PACKAGES, deadline: float = 400) -> None:
        """Makes the image that a Dockerfile's FROM names, when it is not there yet: these packages of the system's, and what
        they need."""
        if self.has(name):
            return
        mirror, codename = debian_mirror()
        tar = self._store / f"{codename}.tar"
        # apt's own user cannot write everywhere; documentation and translations are most of the files.
        leaner = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale")]
        _run(
            "mmdebstrap", "--quiet", f"--variant={variant}", f"--include={packages}", '--aptopt=APT::Sandbox::User "root"',
            "--dpkgopt=force-unsafe-io", *leaner, codename, tar, mirror, timeout=deadline,
        )  # fmt: skip
        self("import", "--quiet", tar, name)
        tar.unlink()

    def try_out(self, image: str) -> None:
        """Raises `Refused` where a container that does nothing cannot be run."""
        plain = self.command("run", "--rm", "--network", "none", *limits(), image, "true")
        done = subprocess.run(plain, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise Refused(f"containers cannot be run here: {done.stderr.strip()}")

    def has(self, name: str) -> bool:
        """Whether the store has this image."""
        return bool(json.loads(self("images", "--format", "json", "--filter", f"reference={name}") or "[]"))

    def build(self, context: Path, file: Path, tag: str, *options: str, deadline: float = 280, **build_args: str) -> None:
        """Builds a Dockerfile as `docker build` does, with the network and the certificates that this machine has."""
        wanted = [f"--build-arg={name}={value}" for name, value in build_args.items()]
        trust = [f"--volume={CA_BUNDLE}:{CA_BUNDLE}:ro"] if os.path.exists(CA_BUNDLE) else []
        self(
            "build", "--quiet", "--isolation", "chroot", "--network", "host", "--format", "docker", "--pull=never",
            *trust, *wanted, *options, "--file", file, "--tag", tag, context, timeout=deadline,
        )  # fmt: skip

    def image(self, tag: str) -> dict:
        """What the image says of itself."""
        return json.loads(self("image", "inspect", tag))[0]


def limits() -> list[str]:
    """Options of `podman run`, which would raise limits where it may not."""
    options = []
    for name, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        hard = resource.getrlimit(number)[1]
        limit = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
        options.append(f"--ulimit={name}={limit}:{limit}")
    return options


class Container:
    """A container in a network of its own, so that the ports are those of the image."""

    def __init__(self, podman: Podman, image: str, *options: str, arguments: tuple[str, ...] = ()) -> None:
        self._podman = podman
        # By its mark tests/run finds what is left behind.
        mark = "--env=TESTS_RUN"
        self.id = podman("run", "--detach", "--network", "none", mark, *limits(), *options, image, *arguments).strip()
        self.pid = int(podman("inspect", "--format", "{{.State.Pid}}", self.id))

    def get(self, port: int, path: str, *curl: str) -> tuple[int, str]:
        """The status and the body of a response; status 0 when nobody answers."""
        command = ["nsenter", f"--net=/proc/{self.pid}/ns/net", "curl", "-s", "-m", "10", "-w", "\n%{http_code}", *curl]
        done = subprocess.run([*command, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True)
        body, _, status = done.stdout.rpartition("\n")
        return int(status or 0), body

    def run(self, *command: str) -> subprocess.CompletedProcess:
        """Runs a program in there, as the container's user."""
        return subprocess.run(self._podman.command("exec", self.id, *command), capture_output=True, text=True, timeout=60)

    @property
    def log(self) -> str:
        """What the server has written."""
        done = subprocess.run(self._podman.command("logs", self.id), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.stdout

    @property
    def state(self) -> dict:
        return json.loads(self._podman("inspect", self.id))[0]["State"]

    def remove(self) -> None:
        self._podman("rm", "--force", "--time", "0", self.id)
