"""Wheels made from what is installed here, so that `pip install` in a page needs no network and gets what is under test."""

from __future__ import annotations

import importlib.metadata
import re
import zipfile
from pathlib import Path

# What pages install; what these need comes with them.
WANTED = ("rwsgi", "rwsgi-top", "flask", "django", "bottle", "gunicorn", "uwsgi", "supervisor")


def normal(name: str) -> str:
    """A project's name as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def make(directory: Path) -> Path:
    """Puts a wheel of each wanted project that is installed, and of what it needs, into `directory`."""
    directory.mkdir()
    waiting, seen = list(WANTED), set()
    while waiting:
        name = normal(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            # Optional, or for other systems.
            continue
        pack(found, directory)
        waiting += [re.match(r"[\w.-]+", need)[0] for need in found.requires or [] if "extra ==" not in need]
    return directory


def pack(found: importlib.metadata.Distribution, directory: Path) -> None:
    """One wheel. What pip made at the installation is left out, for pip makes it again."""
    made = {f"bin/{point.name}" for point in found.entry_points if point.group in ("console_scripts", "gui_scripts")}
    name = f"{re.sub('[-.]+', '_', found.metadata['Name'])}-{found.version}"
    tags = re.findall(r"^Tag: (\S+)$", found.read_text("WHEEL"), flags=re.M)
    tag = next(tag for tag in tags if not tag.startswith("py2"))
    record = []
    with zipfile.ZipFile(directory / f"{name}-{tag}.whl", "w", zipfile.ZIP_STORED) as wheel:
        for file in found.files or []:
            at = str(file)
            if "__pycache__" in at or Path(at).name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
                continue
            if at.startswith("../"):
                program = "/".join(Path(at).parts[-2:])
                if program in made or not program.startswith("bin/"):
                    continue
                at = f"{name}.data/scripts/{Path(at).name}"
            elif ".dist-info/" in at:
                at = f"{name}.dist-info/{at.split('.dist-info/', 1)[1]}"
            wheel.write(file.locate(), at)
            record.append(f"{at},,")
        wheel.writestr(f"{name}.dist-info/RECORD", "\n".join([*record, f"{name}.dist-info/RECORD,,", ""]))
