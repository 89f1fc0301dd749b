"""A plot of what something costs against how large it is, both on logarithmic scales, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 420, 260, 64, 30, 16, 44


@dataclass(frozen=True)
class Panel:
    """One plot: points (x, y), and what is promised, (x, y) too."""

    title: str
    x_label: str
    points: Sequence[tuple[float, float]]
    promise: tuple[float, float]


def render_plot(panels: Sequence[Panel]) -> str:
    """Return the SVG of panels side by side."""
    body = "".join(f'<g transform="translate({number * WIDTH} 0)">\n{_render_panel(one)}</g>\n' for number, one in enumerate(panels))
    size = f'width="{WIDTH * len(panels)}" height="{HEIGHT}" viewBox="0 0 {WIDTH * len(panels)} {HEIGHT}"'
    style = 'font-family="sans-serif" font-size="11" fill="#222"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n<rect width="100%" height="100%" fill="#fff"/>\n{body}</svg>\n'


def _render_panel(panel: Panel) -> str:
    every = [*panel.points, panel.promise]
    x, y = (_Scale([point[axis] for point in every], *ends) for axis, ends in enumerate(((LEFT, WIDTH - RIGHT), (HEIGHT - BOTTOM, TOP))))
    lines = [_text((LEFT + WIDTH - RIGHT) / 2, 16, panel.title), _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, panel.x_label)]
    for tick in x.ticks:
        lines += [_line(x(tick), TOP, x(tick), HEIGHT - BOTTOM), _text(x(tick), HEIGHT - BOTTOM + 15, f"{tick:,g}")]
    for tick in y.ticks:
        lines += [_line(LEFT, y(tick), WIDTH - RIGHT, y(tick)), _text(LEFT - 6, y(tick) + 4, f"{tick:,g}", "end")]
    way = " ".join(f"{x(one):.1f},{y(cost):.1f}" for one, cost in panel.points)
    lines.append(f'<polyline points="{way}" fill="none" stroke="#06c" stroke-width="2"/>')
    lines += [f'<circle cx="{x(one):.1f}" cy="{y(cost):.1f}" r="3" fill="#06c"/>' for one, cost in panel.points]
    at, most = x(panel.promise[0]), y(panel.promise[1])
    lines.append(f'<path d="M{at - 24:.1f} {most:.1f}h48" stroke="#c00" stroke-width="2"/>')
    lines.append(_text(at - 28, most + 4, "promise", "end"))
    return "\n".join(lines) + "\n"


class _Scale:
    """Places values of several decades between two ends, evenly by their logarithm."""

    def __init__(self, values: Sequence[float], begin: float, end: float) -> None:
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        self.ticks = [10.0**power for power in range(low, high + 1)]
        self.low, self.width, self.begin, self.end = low, high - low, begin, end

    def __call__(self, value: float) -> float:
        return self.begin + (self.end - self.begin) * (math.log10(value) - self.low) / self.width


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="#ddd"/>'
