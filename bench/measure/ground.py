"""What a run stands on: packages, the virtual environment, the programs under test, and what the machine is."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Callable

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = {"wrk": "wrk", "ab": "apache2-utils", "nginx": "nginx-light", "cc": "gcc"}


# What loads the servers: how it tells its version.
LOADERS = {
    "wrk": (["wrk", "-v"], r"wrk (?:debian/)?(\S+)"),
    "ab": (["ab", "-V"], r"Version (\S+)"),
    "nginx": (["nginx", "-v"], r"nginx/(\S+)"),
}


class Missing(Exception):
    """Something that a run cannot do without, and how to get it."""


def find(program: str) -> str | None:
    """A program of the system; nginx is where only root looks."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def install_packages(programs: list[str], say: Callable[[str], None]) -> None:
    """Debian's packages, by what is missing."""
    wanted = [PACKAGES[program] for program in programs if not find(program)]
    if "cc" in programs and not Path("/usr/include/ev.h").exists():
        wanted.append("libev-dev")
    if not wanted:
        return
    if os.getuid() != 0 or not shutil.which("apt-get"):
        raise Missing(f"these are missing, install them first: apt-get install {' '.join(wanted)}")
    say(f"installing {' '.join(wanted)}")
    # A package must not start a service of its own here.
    env = {**os.environ, "RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=env)
    subprocess.run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", *wanted], check=True, env=env)


def make_venv(venv: Path, python: str, say: Callable[[str], None]) -> list[str]:
    """The virtual environment with everybody in it, made anew when its list changes; gives who could not be installed."""
    listed = (ROOT / "bench" / "requirements.txt").read_text()
    version = subprocess.run([python, "-VV"], check=True, capture_output=True, text=True).stdout
    made = venv / "made-from"
    left_out = venv / "left-out"
    if not made.exists() or made.read_text() != version + listed:
        say(f"making {venv.relative_to(ROOT)}")
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([python, "-m", "venv", str(venv)], check=True)
        # The commands that a pip of before 2025 writes import `re`, which starts take 5 ms for.
        pip(venv, "--upgrade", "pip")
        failed = []
        for line in listed.splitlines():
            if line and not line.startswith("#"):
                done = pip(venv, line)
                if done.returncode:
                    say(f"cannot be installed, left out: {line}\n{done.stderr[-800:]}")
                    failed.append(line)
        left_out.write_text("\n".join(failed))
        made.write_text(version + listed)
    return left_out.read_text().split()


def pip(venv: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Installs with pip, quietly."""
    command = [str(venv / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=ROOT)


def install_rwsgi(venv: Path, say: Callable[[str], None]) -> Path:
    """Builds rwsgi as a release and installs it the way users do."""
    say("building rwsgi (release)")
    done = pip(venv, "--no-deps", "--force-reinstall", "./server")
    if done.returncode:
        raise Missing(f"rwsgi cannot be built:\n{done.stderr[-3000:]}")
    return venv / "bin" / "rwsgi"


def build_floor() -> Path:
    """The floor, optimized; it is built in seconds."""
    command = ["cargo", "build", "--release", "--quiet", "-p", "rwsgi-bench-floor"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise Missing(f"bench/floor cannot be built:\n{done.stderr[-3000:]}")
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return (ROOT / target / "release" / "rwsgi-bench-floor").resolve()


def versions(venv: Path) -> dict[str, str]:
    """Every package of the environment that matters, with its version."""
    wanted = ["uWSGI", "gunicorn", "granian", "bjoern", "fastwsgi", "waitress", "Flask", "Django"]
    site = next((venv / "lib").glob("python3*/site-packages"))
    found = {str(d.metadata["Name"]).lower(): d.version for d in metadata.distributions(path=[str(site)])}
    return {name: found[name.lower()] for name in wanted if name.lower() in found}


def header(venv: Path, rwsgi: Path, installed: dict[str, str], given: bool) -> dict[str, str]:
    """The machine and all versions; neither its name nor where anything lies on it. `given`: rwsgi was not built here,
    so that the tree tells nothing of it."""
    cpu = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / 1024**2  # type: ignore[index]
    return {
        "measured": datetime.date.today().isoformat(),
        "machine": f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GB of memory",
        "kernel": f"{platform.system()} {platform.release()}, TCP {congestion.read_text().strip()}",
        "Python": _told([str(venv / "bin/python"), "-V"]).removeprefix("Python "),
        "rwsgi": f"{_told([str(rwsgi), '--version']).split()[-1]}, {'built before' if given else _revision()}",
        "others": ", ".join(f"{name} {version}" for name, version in installed.items()),
        "load": ", ".join(f"{name} {version}" for name, (command, pattern) in LOADERS.items() if (version := _word(command, pattern))),
    }  # fmt: skip


def _told(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip()


def _word(command: list[str], pattern: str) -> str:
    program = find(command[0])
    found = re.search(pattern, _told([program, *command[1:]])) if program else None
    return found[1] if found else ""


def _revision() -> str:
    """The commit, and whether anything in the tree differs from it."""
    described = _told(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=9"])
    return f"commit {described}" if re.fullmatch(r"[\w.-]+", described) else "outside a repository"


if sys.version_info < (3, 9):
    raise SystemExit("bench/run needs Python 3.9 or later")
