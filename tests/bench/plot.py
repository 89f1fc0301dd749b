"""A plot as SVG text, by the standard library: what is measured against one size, each quantity in a panel of its own
from zero."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, TOP, GAP = 640, 180, 60, 40, 50
_STYLE = "text { font: 12px sans-serif; fill: #222 } path { fill: none; stroke: #999 } .line { stroke: #1f5fa8; stroke-width: 2 }"


def render_plot(title: str, size: str, quantities: tuple[str, ...], rows: Sequence[tuple[float, ...]]) -> str:
    """Return panels one below the other; a row is (size, a value of each quantity), rows in the order of size."""
    total = TOP + len(quantities) * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + LEFT + 40} {total}" role="img">',
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{LEFT}" y="20">{escape(title)}</text>',
    ]
    for index, quantity in enumerate(quantities):
        points = [(row[0], row[index + 1]) for row in rows]
        parts += _panel(f"{quantity} against {size}", points, TOP + index * (HEIGHT + GAP))
    return "\n".join([*parts, "</svg>", ""])


def _panel(caption: str, points: Sequence[tuple[float, float]], top: int) -> list[str]:
    widest, highest = max(x for x, _y in points), 1.1 * max(y for _x, y in points)
    bottom = top + HEIGHT
    placed = [(LEFT + WIDTH * x / widest, bottom - HEIGHT * y / highest) for x, y in points]
    parts = [
        f'<path d="M{LEFT} {top}V{bottom}H{LEFT + WIDTH}"/>',
        f'<text x="{LEFT + 8}" y="{top + 10}">{escape(caption)}</text>',
    ]
    parts.append(f'<path class="line" d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in placed)}"/>')
    for part in range(5):
        x, y = LEFT + WIDTH * part / 4, bottom - HEIGHT * part / 4.4
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{widest * part / 4:,.0f}</text>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{highest * part / 4.4:.1f}</text>')
    return parts
