"""A forecast in at most 80 columns: one line a group or a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from understudy.forecast.figures import Figure, Need, Origin, add
from understudy.forecast.predict import Forecast, Predicted

LEGEND = "  = counted from your rows   (none) seen in earlier steps   ~ guessed"
MARKS: dict[Origin, str] = {"counted": "=", "measured": "", "guess": "~"}
HEAD = ("rows", "calls", "tokens in", "out", "money", "time", "memory", "disk")
WIDTHS = (8, 7, 9, 8, 8, 8, 8, 7)
NAME, LONGEST = 16, 22


def lines(forecast: Forecast, *, steps: bool = False) -> Iterator[str]:
    """Head, a line for each group (or each step), the total, and what the marks mean."""
    if any(not s.done for s in forecast.steps):
        yield _line("", HEAD)
        for group, members in forecast.groups():
            if steps:
                yield from (_step(s) for s in members)
            else:
                yield _group(group, members)
        yield _line("total", _cells(forecast.total))
        yield LEGEND
        if forecast.total.calls.value:
            yield "  replies in the cache cost nothing; the figures do not count on them"
    done = sum(s.done for s in forecast.steps)
    yield f"{len(forecast.steps)} steps, {done} done, {len(forecast.steps) - done} to run"


def _group(name: str, members: Sequence[Predicted]) -> str:
    left = [s for s in members if not s.done]
    return _line(name, _cells(add(s.need for s in left))) if left else _line(name, ("done",))


def _step(step: Predicted) -> str:
    return _line(step.name, ("done",)) if step.done else _line(step.name, _cells(step.need))


def _cells(need: Need) -> tuple[str, ...]:
    return (
        _mark(need.rows, count(need.rows.value)),
        _mark(need.calls, count(need.calls.value)),
        _mark(need.prompt_tokens, count(need.prompt_tokens.value)),
        _mark(need.completion_tokens, count(need.completion_tokens.value)),
        _mark(need.money, amount(need.money.value)),
        _mark(need.seconds, duration(need.seconds.value)),
        _mark(need.memory_mb, size(need.memory_mb.value)),
        _mark(need.disk_mb, size(need.disk_mb.value)),
    )


def _mark(figure: Figure, text: str) -> str:
    return MARKS[figure.origin] + text if figure.value else "-"


def _line(name: str, cells: Sequence[str]) -> str:
    """One line; a long name takes the room that the cells behind it leave, and is cut where that is too little."""
    text, end = name if len(name) <= LONGEST else name[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}", NAME
    for cell, width in zip(cells, WIDTHS, strict=False):
        end += width
        text += " " + cell.rjust(end - len(text) - 1)
    return text.rstrip()


def count(value: float) -> str:
    """`950`, `12.3k`, `4.56M`, `120M`."""
    if value < 9_999.5:
        return f"{value:.0f}"
    if value < 999_950:
        return f"{value / 1e3:.1f}k"
    return f"{value / 1e6:.2f}M" if value < 99_995_000 else f"{value / 1e6:.0f}M"


def amount(value: float) -> str:
    return f"{value:.4f}" if value < 0.01 else f"{value:.2f}" if value < 999.995 else f"{value:.0f}"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3.1 min`, `2.5 h`, `400 h`."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 5_400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 359_000 else f"{seconds / 3600:.0f} h"


def size(megabytes: float) -> str:
    """`0.4MB`, `250MB`, `1.6GB`, `210TB`; a megabyte is 1e6 bytes."""
    if megabytes < 999.5:
        return f"{megabytes:.1f}MB" if megabytes < 9.95 else f"{megabytes:.0f}MB"
    if megabytes < 999_500:
        return f"{megabytes / 1e3:.1f}GB" if megabytes < 99_950 else f"{megabytes / 1e3:.0f}GB"
    return f"{megabytes / 1e6:.0f}TB"
