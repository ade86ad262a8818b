"""Figures of the report as inline SVG, drawn for one reader with a phone and another with paper.

Positions along x are percentages and sizes are pixels, without a viewBox: a figure follows the page's width while its
text, strokes and points keep their size. Colours are CSS classes of the report, so that dark mode needs no redrawing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear scale with round ticks. `decimals` is how ticks are written; `factor` multiplies what they show."""

    low: float
    high: float
    ticks: tuple[float, ...]
    factor: float = 1.0
    decimals: int = 0

    def at(self, value: float) -> float:
        """Share of the axis, 0 to 1; values outside land on its ends."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def label(self, value: float, *, signed: bool = False) -> str:
        text = f"{value * self.factor:{'+' if signed else ''}.{self.decimals}f}"
        zero = f"{0:.{self.decimals}f}"
        return zero if text.strip("+-") == zero else text.replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True, slots=True)
class Point:
    """One estimate of a series at position `slot` (0, 1, ...)."""

    slot: int
    value: float
    low: float
    high: float
    text: str


@dataclass(frozen=True, slots=True)
class Series:
    """Points drawn with one mark; `css` is `s1` (filled circle, joined) or `s2` (hollow diamond)."""

    name: str
    css: str
    points: Sequence[Point] = field(default_factory=tuple)


def axis(low: float, high: float, *, factor: float = 1.0, around: float | None = None, count: int = 5) -> Axis:
    """An axis that holds [low, high] (and `around`) with about `count` ticks at 1, 2, 2.5 or 5 times a power of ten."""
    if around is not None:
        low, high = min(low, around), max(high, around)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(i * step, 12) for i in range(first, last + 1))
    shown = step * factor
    decimals = max(0, -math.floor(math.log10(shown) + 1e-9))
    if abs(round(shown, decimals) - shown) > 1e-9:
        decimals += 1
    return Axis(ticks[0], ticks[-1], ticks, factor, decimals)


def whisker(
    scale: Axis,
    value: float,
    low: float,
    high: float,
    label: str,
    *,
    css: str = "",
    bar: float | None = None,
) -> Markup:
    """A point with its interval on a shared scale; `bar` is a dashed threshold. One row, 26 px high."""
    x, a, b = (_percent(scale.at(v)) for v in (value, low, high))
    parts = _grid(scale, 0, 26)
    if bar is not None:
        at = _percent(scale.at(bar))
        parts.append(f'<line class="bar" x1="{at}" x2="{at}" y1="0" y2="26"/>')
    parts += [f'<line class="whisker" x1="{a}" x2="{b}" y1="13" y2="13"/>']
    parts += [f'<line class="whisker" x1="{end}" x2="{end}" y1="9" y2="17"/>' for end in (a, b)]
    parts.append(f'<circle class="dot" cx="{x}" cy="13" r="5"/>')
    return _svg(parts, 26, label, f"row {css}")


def effect(scale: Axis, ends: tuple[float, float, float], label: str, limit: float, *, flag: bool) -> Markup:
    """(low, value, high) of a difference, with dashed lines at -limit and limit; a flag is a diamond."""
    a, x, b = (_percent(scale.at(v)) for v in ends)
    parts = _grid(scale, 0, 26)
    for at in (_percent(scale.at(-limit)), _percent(scale.at(limit))):
        parts.append(f'<line class="bar" x1="{at}" x2="{at}" y1="0" y2="26"/>')
    parts.append(f'<line class="whisker" x1="{a}" x2="{b}" y1="13" y2="13"/>')
    parts += [f'<line class="whisker" x1="{end}" x2="{end}" y1="9" y2="17"/>' for end in (a, b)]
    diamond = f'<svg x="{x}" y="13" overflow="visible"><path class="dot" d="M0-7 7 0 0 7-7 0Z"/></svg>'
    parts.append(diamond if flag else f'<circle class="dot" cx="{x}" cy="13" r="5"/>')
    return _svg(parts, 26, label, "row flag" if flag else "row calm")


def scale_row(scale: Axis, *, signed: bool = False, bar: float | None = None, bar_text: str = "") -> Markup:
    """The tick labels under a stack of whiskers; decoration for the eye, since every row says its numbers."""
    parts = []
    for tick in scale.ticks:
        at = scale.at(tick)
        anchor = "start" if at < 0.02 else "end" if at > 0.98 else "middle"
        text = escape(scale.label(tick, signed=signed))
        parts.append(f'<text class="tick" x="{_percent(at)}" y="12" text-anchor="{anchor}">{text}</text>')
    if bar is not None and bar_text:
        at = scale.at(bar)
        anchor = "start" if at < 0.2 else "end" if at > 0.8 else "middle"
        parts.append(
            f'<text class="tick bar-text" x="{_percent(at)}" y="27" text-anchor="{anchor}">{escape(bar_text)}</text>'
        )
    return _svg(parts, 31 if bar_text else 16, "", "row")


def rounds(
    scale: Axis,
    slots: Sequence[tuple[str, str]],
    series: Sequence[Series],
    label: str,
    levels: Mapping[str, float] | None = None,
) -> Markup:
    """Estimates over rounds with interval bars. `slots` are the two lines under a position, `levels` dashed lines."""
    # Room above for the value over a bar that ends at the top.
    top, height = 26, 216
    bottom = top + height

    def y(value: float) -> str:
        return f"{bottom - height * scale.at(value):.1f}"

    parts = []
    for tick in scale.ticks:
        parts.append(f'<line class="grid" x1="44" x2="100%" y1="{y(tick)}" y2="{y(tick)}"/>')
        text = escape(scale.label(tick))
        parts.append(f'<text class="tick" x="36" y="{float(y(tick)) + 4:.1f}" text-anchor="end">{text}</text>')
    for i, (first, second) in enumerate(slots):
        x = _percent(_slot(i, len(slots)))
        parts.append(f'<text class="slot" x="{x}" y="{bottom + 20}" text-anchor="middle">{escape(first)}</text>')
        parts.append(f'<text class="tick" x="{x}" y="{bottom + 37}" text-anchor="middle">{escape(second)}</text>')
    for name, value in (levels or {}).items():
        parts.append(f'<line class="bar" x1="44" x2="100%" y1="{y(value)}" y2="{y(value)}"/>')
        at = float(y(value)) - 5
        parts.append(f'<text class="tick bar-text" x="100%" y="{at:.1f}" text-anchor="end">{escape(name)}</text>')
    for one in series:
        parts += _series(one, len(slots), y)
    return _svg(parts, bottom + 44, label, "rounds")


def _series(series: Series, slots: int, y: object) -> list[str]:
    assert callable(y)
    parts = []
    if series.css == "s1":
        for a, b in zip(series.points, series.points[1:], strict=False):
            xs = f'x1="{_percent(_slot(a.slot, slots))}" x2="{_percent(_slot(b.slot, slots))}"'
            parts.append(f'<line class="join s1" {xs} y1="{y(a.value)}" y2="{y(b.value)}"/>')
    for p in series.points:
        at, low, high = float(y(p.value)), float(y(p.low)), float(y(p.high))
        # Nested so that a shape in pixels can stand at a percentage.
        mark = '<circle class="dot" r="5.5"/>' if series.css == "s1" else '<path class="dot" d="M0-7 7 0 0 7-7 0Z"/>'
        caps = "".join(f'<line class="whisker" x1="-5" x2="5" y1="{end}" y2="{end}"/>' for end in (low, high))
        parts.append(
            f'<svg class="{series.css}" x="{_percent(_slot(p.slot, slots))}" y="0" overflow="visible">'
            f'<line class="whisker" x1="0" x2="0" y1="{low}" y2="{high}"/>{caps}'
            f'<g transform="translate(0 {at})">{mark}</g>'
            f'<text class="value" x="0" y="{high - 8:.1f}" text-anchor="middle">{escape(p.text)}</text></svg>'
        )
    return parts


def share(part: float, whole: float, label: str, css: str = "") -> Markup:
    """A bar of `part` in `whole`, 14 px high."""
    width = _percent(0.0 if whole <= 0 else min(1.0, part / whole))
    return _svg([f'<rect class="share" x="0" y="3" width="{width}" height="8" rx="1"/>'], 14, label, f"row {css}")


def _grid(scale: Axis, top: int, bottom: int) -> list[str]:
    lines = []
    for tick in scale.ticks:
        css = "grid zero" if tick == 0 and scale.low < 0 else "grid"
        at = _percent(scale.at(tick))
        lines.append(f'<line class="{css}" x1="{at}" x2="{at}" y1="{top}" y2="{bottom}"/>')
    return lines


def _slot(index: int, count: int) -> float:
    """Centre of a slot, right of the tick labels."""
    return 0.09 + 0.88 * (index + 0.5) / count


def _percent(share: float) -> str:
    return f"{share * 100:.2f}%"


def _svg(parts: Sequence[str], height: int, label: str, css: str) -> Markup:
    role = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    title = f"<title>{escape(label)}</title>" if label else ""
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{escape(css.strip())}" width="100%" height="{height}" {role}>'
        f"{title}{''.join(parts)}</svg>"
    )
