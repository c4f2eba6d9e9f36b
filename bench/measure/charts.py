"""Bars as SVG, written by hand: one chart for each work. It knows nothing of servers but their names and figures."""

from __future__ import annotations

from xml.sax.saxutils import escape

from measure.results import Middle

WIDTH, LEFT, RIGHT, BAR, GAP, TOP = 760, 190, 120, 20, 8, 52
# Readable on white and on black: ours, theirs, the floor.
OURS, THEIRS, FLOOR = "#2f81f7", "#8b949e", "#b8a04a"


def bars(title: str, unit: str, values: dict[str, Middle]) -> str:
    """Horizontal bars, each with its median as a number and its rounds as a thin line from least to most."""
    height = TOP + len(values) * (BAR + GAP) + 12
    most = max((value.high for value in values.values()), default=0) or 1
    scale = (WIDTH - LEFT - RIGHT) / most
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="13">',
        f"<title>{escape(title)}: {escape(unit)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="22" font-weight="600" fill="#1f2328">{escape(title)}</text>',
        f'<text x="12" y="40" fill="#59636e">{escape(unit)}</text>',
    ]
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
