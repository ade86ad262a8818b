"""Pictures for mail: intervals as PNG strips, one a table row, all on one scale.

Mail clients show neither SVG nor data addresses; text stays in the table, so that no font is needed here.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from understudy.errors import extra

WIDTH, HEIGHT, SHARP = 260, 22, 4
"""Size on the page in pixels, and how many times larger it is drawn before it is scaled down."""
INK, GRID, FLAG = "#1d4f91", "#c9ced6", "#a2312a"


def intervals(found: Sequence[Mapping[str, Any]], *, zero: bool = False) -> list[bytes]:
    """A strip for each {value, low, high, flagged?}: a line from low to high and a point at value, on a common scale.

    `zero` adds a mark at 0 and keeps it on the scale; a flagged one is a square in another colour.
    """
    if not found:
        return []
    low = min([f["low"] for f in found] + ([0.0] if zero else []))
    high = max([f["high"] for f in found] + ([0.0] if zero else []))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return [_strip(f, low, high, zero) for f in found]


def _strip(found: Mapping[str, Any], low: float, high: float, zero: bool) -> bytes:
    with extra("notify"):
        from PIL import Image, ImageDraw
    width, height = WIDTH * SHARP, HEIGHT * SHARP
    margin = 6 * SHARP
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    middle = height // 2

    def at(value: float) -> float:
        return margin + (value - low) / (high - low) * (width - 2 * margin)

    draw.line([(margin, middle), (width - margin, middle)], fill=GRID, width=SHARP)
    if zero:
        draw.line([(at(0.0), 0), (at(0.0), height)], fill=GRID, width=2 * SHARP)
    ink = FLAG if found.get("flagged") else INK
    draw.line([(at(found["low"]), middle), (at(found["high"]), middle)], fill=ink, width=3 * SHARP)
    x, radius = at(found["value"]), 5 * SHARP
    box = [x - radius, middle - radius, x + radius, middle + radius]
    draw.rectangle(box, fill=ink) if found.get("flagged") else draw.ellipse(box, fill=ink)
    out = io.BytesIO()
    image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).save(out, "PNG", optimize=True)
    return out.getvalue()
