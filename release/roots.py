"""Fresh Debian systems as directories, and commands in copies of them that are gone afterwards. Root only."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
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

# Where the kernel says what it runs the programs of other processors with.
BINFMT = Path("/proc/sys/fs/binfmt_misc")
# As Debian names a processor that is emulated, as qemu does, and the one of its models that is like those of the large clouds.
EMULATED = {"arm64": ("aarch64", "neoverse-n1")}
# What a system needs to run in an emulated machine.
KERNEL = ("linux-image-cloud-arm64", "iproute2")
# The first process of such a machine. It has no network, and its console is the terminal of what it runs.
FIRST_PROCESS = """#!/bin/sh
mount -t proc proc /proc
mount -t tmpfs tmpfs /tmp
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
echo 127.0.0.1 localhost >/etc/hosts
/sbin/ip link set lo up
exec <>/dev/ttyAMA0 >&0 2>&1
stty -onlcr rows 50 cols 180
cd /src
setsid -c -w env -i {environment} sh -c 'set -eu; eval "$1"' sh {script}
echo $? >/status
sync
echo o >/proc/sysrq-trigger
sleep 60
"""


class Unable(Exception):
    """What stands in the way, in one line."""


def emulation_lacks(arch: str) -> str | None:
    """What this machine lacks to run systems of this processor; None when it can."""
    name = EMULATED[arch][0]
    handler = BINFMT / f"qemu-{name}"
    # With F the kernel has opened the emulator already, for it is not in the system that is run.
    flags = re.search(r"^flags: .*F", handler.read_text(), re.MULTILINE) if handler.exists() else None
    if not flags or not handler.read_text().startswith("enabled"):
        return f"qemu's binfmt handler for {name} (Debian's packages qemu-user-static and binfmt-support)"
    if shutil.which(f"qemu-system-{name}") is None:
        return f"qemu-system-{name} (Debian's package qemu-system-arm)"
    return None


def make(suite: str, directory: Path, log: Path, arch: str | None = None) -> Path:
    """The minimal system of this release, made when it is not there: what `debootstrap --variant=minbase` installs, no more."""
    root = directory / (f"{suite}-{arch}" if arch else suite)
    if root.is_dir():
        return root
    if os.geteuid() != 0:
        raise Unable("only root can make a root file system")
    if shutil.which("debootstrap") is None:
        raise Unable("debootstrap is not installed: apt-get install debootstrap")
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{root.name}.new.lock").open("w") as lock:
        # Another run may be making it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return root if root.is_dir() else _make(suite, root, log, arch)


def _make(suite: str, root: Path, log: Path, arch: str | None) -> Path:
    new = root.with_name(f"{root.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    script = [] if (SCRIPTS / suite).exists() else [SCRIPTS / "sid"]
    options = [f"--arch={arch}"] if arch else []
    with log.open("ab") as output:
        done = subprocess.run(
            # It would go on without the keyring, from a mirror that anybody on the way can answer for.
            ["debootstrap", "--force-check-gpg", "--variant=minbase", *options, suite, new, MIRROR, *script],
            stdout=output, stderr=output, timeout=1800,
        )  # fmt: skip
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
        steps = ["mount -t proc proc proc", "mount --rbind /dev dev", "mount --rbind /sys sys"]
        for mount in self.mounts:
            steps += [f"mkdir -p .{mount}", f"mount --bind -o ro {mount} .{mount}"]
        # A directory in root's home is for everybody here.
        steps += ["chmod 755 root"]
        if CA_BUNDLE.exists():
            # Not where Debian's package would write its own.
            steps += [f"cp {CA_BUNDLE} ./var/lib/trusted.crt"]
            environment.setdefault("PIP_CERT", "/var/lib/trusted.crt")
        archives = self.cache / "archives" / self.root.name
        steps += [
            f"mkdir -p {archives}/partial {self.cache}/pip var/cache/apt/archives var/cache/pip",
            f"mount --bind {archives} var/cache/apt/archives",
            f"mount --bind {self.cache}/pip var/cache/pip",
        ]
        steps += ["cp /etc/resolv.conf etc/resolv.conf", 'exec chroot . /bin/sh -c \'set -eu; cd /src; eval "$1"\' sh "$1"']
        return self._within(steps, self._environment(environment), script)

    def booted(self, arch: str, script: str, **environment: str) -> list[str]:
        """The same in an emulated machine, with the kernel of the copy, for what needs one: qemu-user refuses some system calls,
        PR_SET_CHILD_SUBREAPER among them. Nothing of what the lines change is kept."""
        name, model = EMULATED[arch]
        disk, values = self.changes / "disk", self._environment(environment)
        words = " ".join(shlex.quote(f"{name}={value}") for name, value in values.items())
        # Its clock counts instructions, one each nanosecond, and leaps when nothing is to be done: however slow or busy this machine
        # is, what waits in there has its time. Both processors run by turns.
        steps = [
            'printf %s "$1" >first-process',
            "chmod 755 first-process",
            f"mke2fs -q -F -t ext4 -d . {disk} 4G",
            f"qemu-system-{name} -M virt -cpu {model} -smp 2 -m 2G -icount shift=0,sleep=off -rtc clock=vm -nic none -no-reboot"
            ' -display none -monitor none -serial stdio -kernel vmlinuz -initrd initrd.img -append "root=/dev/vda rw quiet'
            f' console=ttyAMA0 init=/first-process" -drive file={disk},format=raw,if=virtio,cache=unsafe',
            f"status=$(debugfs -R 'cat /status' {disk} 2>/dev/null)",
            f"rm {disk}",
            "exit ${status:-1}",
        ]
        return self._within(steps, {"PATH": SYSTEM_PATH}, FIRST_PROCESS.format(environment=words, script=shlex.quote(script)))

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        values = {"HOME": "/root", "PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8", "TERM": "xterm-256color", "PIP_CACHE_DIR": "/var/cache/pip"}
        return values | {name: os.environ[name] for name in KEPT if name in os.environ} | more

    def _within(self, steps: list[str], values: dict[str, str], argument: str) -> list[str]:
        """The command line that runs `steps` where the copy is the current directory."""
        at = self.changes / "mounted"
        overlay = f"lowerdir={self.root},upperdir={self.changes}/upper,workdir={self.changes}/work"
        steps = ["set -eu", f"mount -t overlay overlay -o {overlay} {at}", f"cd {at}", "mkdir -p src", *steps]
        return [
            "unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private",
            "env", "-i", *(f"{name}={value}" for name, value in values.items()), "sh", "-c", "\n".join(steps), "sh", argument,
        ]  # fmt: skip

    def run(self, script: str, log: Path, deadline: float, booted: str | None = None, **environment: str) -> int:
        """Runs these lines of sh and returns the status; 124 when they took longer than `deadline` seconds. `booted` names the
        processor of a machine to run them in."""
        command = self.booted(booted, script, **environment) if booted else self.command(script, **environment)
        with log.open("ab") as output:
            output.write(f"\n$ {script}\n".encode())
            output.flush()
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
            try:
                return process.wait(deadline)
            except subprocess.TimeoutExpired:
                return 124
            finally:
                process.kill()
                process.wait()
