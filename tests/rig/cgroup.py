"""Control groups for a server under test: a directory that it takes for its own, and real ones where they can be made."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = "RWSGI_CGROUP_ROOT"


class FakeGroup:
    """A directory with files as the kernel's of version 2. `serve(…, env=group.env)` starts a server in it."""

    def __init__(self, directory: Path, **files: str) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.write(**{"memory_current": "104857600", "memory_max": "max", "cpu_max": "max 100000", **files})

    @property
    def env(self) -> dict[str, str]:
        """What names it to the server."""
        return {ROOT: str(self.directory)}

    def write(self, **files: str) -> None:
        """Replaces files: `memory_max="1073741824"`, `memory_events="oom_kill 1"`."""
        for name, text in files.items():
            fresh = self.directory / ".new"
            fresh.write_text(text + "\n")
            fresh.replace(self.directory / name.replace("_", ".", 1))


def real_memory_group(name: str) -> tuple[Path | None, str]:
    """A new memory group of this machine, of version 1 or 2, within this process's own, or why there can be none."""
    if os.getuid() != 0:
        return None, "only root can make control groups"
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for base in ("/sys/fs/cgroup/memory",) if controllers == "memory" else ("/sys/fs/cgroup",) if not controllers else ():
            parent = Path(base + path)
            group = parent / name
            try:
                group.mkdir()
            except OSError:
                continue
            if any((group / file).exists() for file in ("memory.max", "memory.limit_in_bytes")):
                return group, ""
            group.rmdir()
    return None, "no hierarchy of control groups here lets a memory group be made"
