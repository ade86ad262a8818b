"""Markdown tables of benchmark results, put between markers into the pages that show them.

A page marks the place with `<!-- table: NAME -->` and `<!-- end table -->`; a page without the marker is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.project import ROOT

PAGES = (
    "README.md",
    "docs/benchmarks.md",
    "docs/statistics.md",
    "docs/bias.md",
    "docs/scorers.md",
    "docs/drift.md",
    "docs/engines.md",
    "docs/near-duplicates.md",
    "docs/leaks-and-ledger.md",
    "docs/synthesis.md",
    "docs/web-source.md",
    "examples/horoscope/README.md",
)
MISSING = "-"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar in a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def replace(text: str, name: str, content: str) -> str:
    """`text` with what stands between NAME's markers replaced by `content`."""
    pattern = re.compile(rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- end table -->)", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text)


def update(name: str, content: str) -> list[str]:
    """Put the table NAME into every page that marks a place for it; returns the pages that hold it."""
    holders = []
    for page in PAGES:
        path = ROOT / page
        if not path.exists():
            continue
        before = path.read_text(encoding="utf-8")
        if f"<!-- table: {name} -->" not in before:
            continue
        holders.append(page)
        after = replace(before, name, content)
        if after != before:
            path.write_text(after, encoding="utf-8")
    return holders


def interval(measured: dict[str, Any] | None, percent: bool = False) -> str:
    """`0.61 [0.52, 0.70]`, or `61 % [52, 70]`; a dash when it was not measured."""
    if measured is None:
        return MISSING
    value, low, high = (measured[k] * (100 if percent else 1) for k in ("value", "low", "high"))
    return f"{value:.0f} % [{low:.0f}, {high:.0f}]" if percent else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"
