"""Bars as SVG: some forty lines instead of a library. Pure.

Runs as: `python -m benchmarks.publish`.
Reads from strangers: nothing; names are escaped all the same.
No script, no font and no style sheet from elsewhere: the picture is shown wherever an image may be.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.table import number

WIDTH, LEFT, BAR, GAP, TOP = 720, 300, 18, 8, 34
_XMLNS, _FONT = "http://www.w3.org/2000/svg", 'font-family="sans-serif" font-size="13"'
_OURS, _PEER, _WHISKER = "#1f6feb", "#8c959f", "#24292f"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar; `low` and `high` hold the middle half of what it is the median of."""

    name: str
    value: float
    low: float
    high: float
    ours: bool


def bars(title: str, unit: str, values: Sequence[Bar]) -> str:
    """The picture. Its scale begins at nothing: a bar twice as long is twice as much."""
    height = TOP + len(values) * (BAR + GAP) + GAP
    most = max((max(bar.value, bar.high) for bar in values), default=0.0) or 1.0
    scale = (WIDTH - LEFT - 90) / most
    head = f"{html.escape(title)} ({html.escape(unit)})"
    lines = [
        f'<svg xmlns="{_XMLNS}" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{head}" {_FONT}>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="20" font-weight="bold" fill="{_WHISKER}">{head}</text>',
    ]
    for index, bar in enumerate(values):
        y = TOP + index * (BAR + GAP)
        colour = _OURS if bar.ours else _PEER
        middle, end = y + BAR / 2, LEFT + max(bar.value, bar.high) * scale
        lines += [
            f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end" fill="{_WHISKER}">{html.escape(bar.name)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{bar.value * scale:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<path d="M{LEFT + bar.low * scale:.1f} {middle}H{LEFT + bar.high * scale:.1f}" stroke="{_WHISKER}"/>',
            f'<text x="{end + 6:.1f}" y="{y + 14}" fill="{_WHISKER}">{number(bar.value)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
