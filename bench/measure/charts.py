"""Bars and lines as SVG, written by hand: one chart for each work. It knows nothing of servers but their names and figures."""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

from measure.results import Middle

WIDTH, LEFT, RIGHT, BAR, GAP, TOP = 760, 190, 120, 20, 8, 52
# Readable on white and on black: ours, theirs, the floor.
OURS, THEIRS, FLOOR = "#2f81f7", "#8b949e", "#b8a04a"


def head(title: str, unit: str, height: float) -> list[str]:
    """What every chart begins with."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="13">',
        f"<title>{escape(title)}: {escape(unit)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="22" font-weight="600" fill="#1f2328">{escape(title)}</text>',
        f'<text x="12" y="40" fill="#59636e">{escape(unit)}</text>',
    ]


def bars(title: str, unit: str, values: dict[str, Middle]) -> str:
    """Horizontal bars, each with its median as a number and its rounds as a thin line from least to most."""
    height = TOP + len(values) * (BAR + GAP) + 12
    most = max((value.high for value in values.values()), default=0) or 1
    scale = (WIDTH - LEFT - RIGHT) / most
    parts = head(title, unit, height)
    for index, (name, value) in enumerate(values.items()):
        y = TOP + index * (BAR + GAP)
        middle = y + BAR / 2
        colour = OURS if name.startswith("rwsgi") else FLOOR if name == "floor" else THEIRS
        end = LEFT + value.high * scale
        parts += [
            f'<text x="{LEFT - 8}" y="{middle + 4.5}" text-anchor="end" fill="#1f2328">{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{max(value.median * scale, 1):.1f}" height="{BAR}" fill="{colour}"/>',
            f'<path d="M{LEFT + value.low * scale:.1f} {middle}H{end:.1f}" stroke="#1f2328" stroke-width="1.5"/>',
            f'<text x="{end + 8:.1f}" y="{middle + 4.5}" fill="#1f2328">{number(value.median)}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def number(value: float) -> str:
    """Three digits that say something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


# Told apart by those who see no red or no green too (Okabe and Ito).
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#1f2328", "#6a3d9a", "#b8a04a", "#7b4b2a"]
HIGH, BOTTOM = 260, 30


def lines(title: str, unit: str, values: dict[str, list[tuple[int, Middle]]]) -> str:
    """Lines over sizes, both axes logarithmic, so that a power of the size is a straight line; grey is a slope of 1."""
    places = [point for points in values.values() for point in points]
    least, most = min(size for size, _ in places), max(size for size, _ in places)
    low = min(1.0, *(middle.low for _, middle in places))
    high = max(most / least, *(middle.high for _, middle in places))
    height = TOP + HIGH + BOTTOM + len(values) * 20

    def x(size: float) -> float:
        return 60 + math.log(size / least) / math.log(most / least) * (WIDTH - 120)

    def y(value: float) -> float:
        return TOP + HIGH - math.log(max(value, low) / low) / math.log(high / low) * HIGH

    parts = [
        *head(title, unit, height),
        f'<path d="M{x(least):.1f} {y(1):.1f}L{x(most):.1f} {y(most / least):.1f}" stroke="{THEIRS}" stroke-width="4" opacity="0.4"/>',
    ]
    for size in sorted({size for size, _ in places}):
        parts.append(f'<text x="{x(size):.1f}" y="{TOP + HIGH + 18}" text-anchor="middle" fill="#59636e">{size:,}</text>')
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        if low <= 10.0**power <= high:
            parts.append(f'<text x="52" y="{y(10.0**power) + 4:.1f}" text-anchor="end" fill="#59636e">{10.0**power:g}</text>')
    for index, (name, points) in enumerate(values.items()):
        colour, row = COLOURS[index % len(COLOURS)], TOP + HIGH + BOTTOM + index * 20
        through = "L".join(f"{x(size):.1f} {y(middle.median):.1f}" for size, middle in points)
        parts.append(f'<path d="M{through}" stroke="{colour}" stroke-width="2" fill="none"/>')
        parts += [f'<path d="M{x(size):.1f} {y(middle.low):.1f}V{y(middle.high):.1f}" stroke="{colour}"/>' for size, middle in points]
        parts += [f'<rect x="60" y="{row}" width="12" height="12" fill="{colour}"/>', f'<text x="80" y="{row + 11}" fill="#1f2328">{escape(name)}</text>']
    return "\n".join([*parts, "</svg>", ""])
