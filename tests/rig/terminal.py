"""A real terminal: tmux on a server of its own, read as a person reads it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import uuid
from pathlib import Path

from rig import processes
from rig.server import environment
from rig.waiting import until

# What a shell prints when the program is gone: its exit status, and whether the terminal still echoes and breaks lines.
_AFTER = "status=$?; echo; echo left with $status; stty -a | tr ';' '\\n' | grep -ow -- '-\\?echo\\|-\\?icanon' | tr '\\n' ' '; cat"


class Terminal:
    """A program in a terminal of `columns` x `rows`."""

    def __init__(self, command: list[str], directory: Path, columns: int = 200, rows: int = 40, env=None) -> None:
        self.mark = uuid.uuid4().hex
        self._socket = str(directory / f"tmux-{self.mark[:8]}")
        environ = environment(self.mark, {"TERM": "xterm-256color", **(env or {})})
        environ.pop("TMUX", None)
        self._environ = environ
        line = f"{shlex.join(command)}; {_AFTER}"
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), "sh", "-c", line)

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, *arguments], capture_output=True, text=True, env=self._environ, timeout=30
        )
        assert done.returncode == 0, f"tmux {arguments}: {done.stderr}"
        return done.stdout

    def screen(self) -> str:
        """What the terminal shows."""
        return self._tmux("capture-pane", "-p")

    def colours(self) -> str:
        """What the terminal shows, with its colours as escape sequences."""
        return self._tmux("capture-pane", "-p", "-e")

    def press(self, *keys: str) -> None:
        """Presses keys, by tmux's names."""
        self._tmux("send-keys", *keys)

    def resize(self, columns: int, rows: int) -> None:
        """Changes the size of the terminal."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def wait(self, *texts: str) -> str:
        """Waits until all the texts are on the screen at once, and returns it."""

        return self.wait_for(lambda screen: all(text in screen for text in texts), f"{texts} on the screen")

    def wait_for(self, condition, what: str) -> str:
        """Waits until `condition` holds for the screen, and returns the screen."""

        def shown() -> str | None:
            screen = self.screen()
            return screen if condition(screen) else None

        return until(shown, what, context=self.screen) or ""

    def wait_left(self, status: int = 0) -> None:
        """Waits until the program has ended with `status`, and checks that the terminal is as it was before."""
        screen = self.wait_for(lambda screen: re.search(r"left with \d+\n", screen), "the program's end")
        assert f"left with {status}\n" in screen, screen
        self.wait_for(lambda screen: "icanon" in screen, "the terminal's settings")
        settings = self.screen().split("left with ")[1].split()[1:]
        assert settings[:2] == ["icanon", "echo"] or settings[:2] == ["echo", "icanon"], settings
        # 0: neither the alternate screen nor the mouse is on, and the cursor shows.
        modes = self._tmux("display-message", "-p", "#{alternate_on} #{mouse_any_flag} #{cursor_flag}").split()
        assert modes == ["0", "0", "1"], f"alternate screen, mouse, cursor: {modes}"

    def pid_of(self, name: str) -> int:
        """The process of a program that runs in it."""

        def look() -> int | None:
            found = [p.pid for p in processes.marked(self.mark) if os.path.basename(p.command.split(" ")[0]) == name]
            return found[0] if found else None

        return until(look, f"{name} runs")

    def close(self) -> None:
        """Ends it with everything in it."""
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], capture_output=True, env=self._environ, timeout=30)
        for process in processes.marked(self.mark):
            processes.kill(process.pid, 1)
        try:
            until(lambda: not processes.marked(self.mark), "the terminal's processes are gone")
        finally:
            # To a server that is the order to reload.
            for process in processes.marked(self.mark):
                processes.kill(process.pid)


def table(screen: str) -> list[dict[str, str]]:
    """The rows under the line of column titles that begins with WID; none on a screen that is half drawn."""
    lines = screen.splitlines()
    start = next((index for index, line in enumerate(lines) if line.split()[:1] == ["WID"]), None)
    if start is None:
        return []
    # An arrow marks the column that the rows are sorted by.
    titles = lines[start].replace("▼", "").replace("▲", "").split()
    rows = []
    for line in lines[start + 1 :]:
        # A mark before the number says that something about the worker needs attention.
        cells = line.replace("!", " ", 1).split()
        # Below the table are other things; what is in the last column may have spaces.
        if len(cells) < 15 or not cells[0].isdigit():
            break
        rows.append(dict(zip(titles, cells)))
    return rows
