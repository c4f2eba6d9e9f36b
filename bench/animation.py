#!/usr/bin/env python3
"""Makes docs/rtop.svg, the animation of the README: a real rtop in a real terminal, on the demo of examples/ under its load.

    bench/animation.py      needs rwsgi and rtop in PATH, tmux, and rich (pip install rich)

It takes a minute and a half: rtop runs for a while first, so that its charts have something to show. Nothing is drawn by hand:
each frame is what the terminal shows at one second, keys are pressed as a person presses them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
PICTURE = ROOT / "docs" / "rtop.svg"
STATS = "127.0.0.1:9191"
COLUMNS, ROWS = 106, 31
# Seconds that rtop runs before the first frame, and at most until a key has had its effect.
BEFORE, DEADLINE = 55, 60
# A cell in pixels, the room around the screen, the bar above it.
WIDE, HIGH, PAD, BAR = 8.4, 18, 14, 34
BACKGROUND, FRAME, DIM = "#0d1117", "#30363d", "#8b949e"
BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Style:
    """How a run of characters looks: colours as `#rrggbb`; None is what the terminal has by default."""

    front: str | None = None
    back: str | None = None
    bold: bool = False


@dataclass(frozen=True)
class Frame:
    """One second: the caption above the screen, and the runs of each row."""

    caption: str
    rows: tuple[tuple[tuple[str, Style], ...], ...]


# Keys, what has to be on the screen after them, the caption, and for how many seconds it is shown.
SCENES = [
    ((), "WID", "rtop 127.0.0.1:9191", 6),
    (("u",), "ROUTE", "u: requests by route", 4),
    (("u", "Down", "Enter"), "CORE", "enter: one worker", 3),
    (("Escape", "l"), "/slow", "l: slow requests, and where their time went", 3),
]


def svg(frames: list[Frame], columns: int, seconds: float = 1.0) -> str:
    """The frames as a film that repeats, `seconds` each; without motion, for who prefers that, the first one."""
    rows = max(len(frame.rows) for frame in frames)
    width, height = round(columns * WIDE + 2 * PAD), BAR + rows * HIGH + PAD
    styles: dict[Style, str] = {}

    def drawn(frame: Frame) -> list[str]:
        caption = f'<text class="c" x="{width / 2:g}" y="22">{escape(frame.caption)}</text>'
        lines = [_line(row, BAR + index * HIGH, styles) for index, row in enumerate(frame.rows)]
        return [caption, *lines, *[""] * (rows - len(lines))]

    films = [drawn(frame) for frame in frames]
    # What no frame changes is drawn once.
    still = [part if all(film[index] == part for film in films) else "" for index, part in enumerate(films[0])]
    total = len(frames) * seconds
    moving = [
        f'<g class="f{" first" if number == 0 else ""}" style="animation-delay:{number * seconds:g}s">\n'
        + "\n".join(part for part, same in zip(film, still) if part and part != same)
        + "\n</g>"
        for number, film in enumerate(films)
    ]
    classes = "\n".join(f".{name}{{{_css(style)}}}" for style, name in styles.items())
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>rtop shows a pool of four workers under load, then its requests by route, one worker, and slow requests</title>
<style>
path{{shape-rendering:crispEdges}}
text{{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#c9d1d9}}
.c{{font:13px system-ui,sans-serif;fill:{DIM};text-anchor:middle}}
{classes}
.f{{visibility:hidden;animation:f {total:g}s step-end infinite}}
@keyframes f{{0%{{visibility:visible}}{100 / len(frames):.4f}%{{visibility:hidden}}}}
@media (prefers-reduced-motion:reduce){{.f{{animation:none}}.first{{visibility:visible}}}}
</style>
<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8" fill="{BACKGROUND}" stroke="{FRAME}"/>
<circle cx="20" cy="17" r="5.5" fill="#ff5f57"/><circle cx="38" cy="17" r="5.5" fill="#febc2e"/>\
<circle cx="56" cy="17" r="5.5" fill="#28c840"/>
{chr(10).join(part for part in still if part)}
{chr(10).join(moving)}
</svg>
"""


def _css(style: Style) -> str:
    return (f"fill:{style.front};" if style.front else "") + ("font-weight:700" if style.bold else "")


def _line(row: tuple[tuple[str, Style], ...], top: float, styles: dict[Style, str]) -> str:
    """A row: backgrounds, then bars, then text. Each run says where it begins and how wide it is, whatever the font is."""
    backs, bars, texts, column = [], [], [], 0
    for run, style in row:
        if style.back and style.back != BACKGROUND:
            backs.append(_box(column, top, len(run), HIGH, style.back))
        for part in _parts(run):
            text, at = run[part], column + part.start
            if text[0] in BLOCKS:
                # As paths they meet without gaps.
                high = HIGH * (BLOCKS.index(text[0]) + 1) / 8
                bars.append(_box(at, top + HIGH - high, len(text), high, style.front or "#c9d1d9"))
                continue
            seen = Style(style.front, None, style.bold)
            name = f' class="{styles.setdefault(seen, f"s{len(styles)}")}"' if seen != Style() else ""
            wide = f' textLength="{len(text) * WIDE:.4g}"' if len(text) > 1 else ""
            texts.append(f'<tspan{name} x="{PAD + at * WIDE:.4g}"{wide}>{escape(text)}</tspan>')
        column += len(run)
    text = f'<text y="{top + 13.5:g}">{"".join(texts)}</text>' if texts else ""
    return "".join([*backs, *bars, text])


def _box(column: int, top: float, cells: int, high: float, colour: str) -> str:
    return f'<path fill="{colour}" d="M{PAD + column * WIDE:.4g} {top:.4g}h{cells * WIDE:.4g}v{high:.4g}h-{cells * WIDE:.4g}z"/>'


def _parts(run: str) -> list[slice]:
    """The parts of a run that are drawn: equal blocks together, and words with single spaces between them."""
    parts, start = [], 0
    while start < len(run):
        end = start + 1
        if run[start] in BLOCKS:
            while end < len(run) and run[end] == run[start]:
                end += 1
        elif run[start] == " ":
            start = end
            continue
        else:
            while end < len(run) and run[end] not in BLOCKS and run[end : end + 2].strip(" "):
                end += 1
            while run[end - 1] == " ":
                end -= 1
        parts.append(slice(start, end))
        start = end
    return parts


def runs(shown: str) -> tuple[tuple[tuple[str, Style], ...], ...]:
    """What a terminal shows, with escape sequences, as runs of one style in each row."""
    from rich.color import Color
    from rich.console import Console
    from rich.terminal_theme import SVG_EXPORT_THEME
    from rich.text import Text

    def colour(one: Color | None, front: bool) -> str | None:
        return None if one is None or one.is_default else one.get_truecolor(SVG_EXPORT_THEME, foreground=front).hex

    def look(segment) -> Style:
        style = segment.style
        if style is None:
            return Style()
        front, back = colour(style.color, True), colour(style.bgcolor, False)
        if style.reverse:
            front, back = back or BACKGROUND, front or "#c9d1d9"
        return Style(front, back, bool(style.bold))

    console = Console(width=COLUMNS, color_system="truecolor", force_terminal=True)
    rows = []
    for line in shown.splitlines():
        segments = Text.from_ansi(line, no_wrap=True).render(console)
        rows.append(tuple((segment.text, look(segment)) for segment in segments if segment.text))
    return tuple(rows)


def film() -> list[Frame]:
    """Starts the demo and rtop, and takes a frame each second."""
    sys.path[:0] = [str(ROOT / "tests")]
    sys.dont_write_bytecode = True
    from rig.terminal import Terminal
    from rig.waiting import until

    frames = []
    with tempfile.TemporaryDirectory() as directory:
        command = ["rwsgi", EXAMPLES / "demo.ini", "--control", f"{directory}/control.sock", "--slow-request", "500ms"]
        server = subprocess.Popen(command, cwd=EXAMPLES, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        load = screen = None
        try:
            address = "127.0.0.1:9090"
            ready = [sys.executable, EXAMPLES / "demo_load.py", "--ready", address]
            until(lambda: subprocess.run(ready, check=False).returncode == 0, "the demo answers", DEADLINE)
            load = subprocess.Popen([sys.executable, EXAMPLES / "demo_load.py", address, "300"])
            screen = Terminal(["rtop", STATS, "--frequency", "1"], Path(directory), columns=COLUMNS, rows=ROWS)
            time.sleep(BEFORE)
            for keys, text, caption, seconds in SCENES:
                for key in keys:
                    screen.press(key)
                    time.sleep(0.3)
                until(lambda text=text: text in screen.screen(), f"'{text}' on the screen", DEADLINE, screen.screen)
                for _ in range(seconds):
                    # Where the demo happens to be is nobody's concern.
                    frames.append(Frame(caption, runs(screen.colours().replace(str(EXAMPLES), "/srv/app"))))
                    time.sleep(1)
        finally:
            if screen:
                screen.close()
            for process in (load, server):
                if process:
                    process.terminate()
                    process.wait()
    return frames


if __name__ == "__main__":
    PICTURE.write_text(svg(film(), COLUMNS))
    print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")
