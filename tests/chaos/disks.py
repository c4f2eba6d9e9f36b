"""Small disks for a server: a tmpfs each, in a mount namespace that ends with it, so that nothing is left mounted."""

from __future__ import annotations

import errno
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Bytes. The spooler's and the temporary files' are filled in moments; all are enough for what a run needs.
SIZES = {"temp": 16 << 20, "log": 16 << 20, "spool": 2 << 20}


def can_mount() -> bool:
    """Whether this user can have a mount namespace, and a tmpfs in it."""
    command = ["unshare", "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "chaos", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def mounts(place: Path) -> str:
    """The lines of a shell that mount them under `place`."""
    return "\n".join(f"mount -t tmpfs -o size={size},mode=700 chaos '{place / name}'" for name, size in SIZES.items())


@dataclass
class Disk:
    """A directory of the server's. It is held open: it can be looked at when the server and its namespace are gone."""

    directory: int
    small: bool

    @classmethod
    def of(cls, pid: int, path: Path, small: bool) -> Disk:
        """The directory that the process sees under this path."""
        root = f"/proc/{pid}/root" if small else ""
        return cls(os.open(f"{root}{path}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), small)

    def names(self) -> list[str]:
        """What is in it, and in its directories."""
        found = []
        for name in os.listdir(self.directory):
            try:
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.directory)
            except NotADirectoryError:
                found.append(name)
                continue
            except FileNotFoundError:
                continue
            try:
                found += [f"{name}/{each}" for each in os.listdir(inner)]
            finally:
                os.close(inner)
        return sorted(found)

    def used(self) -> int:
        """Bytes in use, those of files that have no name included; of a small disk alone."""
        if not self.small:
            return 0
        state = os.fstatvfs(self.directory)
        return (state.f_blocks - state.f_bfree) * state.f_frsize

    def fill(self) -> None:
        """Leaves no byte free."""
        file = os.open("fill", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self.directory)
        size = 1 << 16
        try:
            while size:
                try:
                    os.write(file, b"f" * size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 16
        finally:
            os.close(file)

    def free(self) -> None:
        """Takes back what `fill` took."""
        os.unlink("fill", dir_fd=self.directory)

    def read(self, name: str) -> str:
        """A file's text; empty when there is none."""
        try:
            with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.directory), errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def close(self) -> None:
        """Lets go of it."""
        os.close(self.directory)
