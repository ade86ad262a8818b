"""The report's section on decoding: every setting of the grid on dev, by metric and by category, with its texts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

Row = dict[str, Any]


class Page(Protocol):
    """What the section needs of the report: its data, the order of metrics, how a metric, cell or score is written."""

    data: Any

    def ordered(self, metrics: Collection[str]) -> list[str]: ...

    def describe(self, metric: str) -> Any: ...

    def cell(self, metric: str, found: Row | None) -> Row | None: ...

    def chips(self, given: Row) -> list[Row]: ...


def section(page: Page, rows: Sequence[Row], texts: Sequence[Row]) -> Row | None:
    """What the template prints; None when no grid was tried.

    `rows`: {setting, chosen, seconds_per_answer, dev: {metric: interval}, by_category: {category: {metric: interval}}}.
    `texts`: {category, question, answers: {setting: {text, values}}}, one per dev request.
    """
    if not rows:
        return None
    metrics = page.ordered({m for r in rows for m in r["dev"]})
    categories = sorted({category for r in rows for category in r["by_category"]})
    return {
        "metrics": [page.describe(m) for m in metrics],
        "rows": [{**r, "cells": [page.cell(m, r["dev"].get(m)) for m in metrics]} for r in rows],
        "settings": [r["setting"] for r in rows],
        "chosen": next((r["setting"] for r in rows if r["chosen"]), ""),
        "categories": [_by_category(page, category, rows) for category in categories],
        "texts": [_text(page, t, rows) for t in texts],
    }


def _by_category(page: Page, category: str, rows: Sequence[Row]) -> Row:
    """The gate's metric in one category under each setting."""
    metric = page.data.metric
    found: list[Mapping[str, Any]] = [r["by_category"].get(category, {}).get(metric) for r in rows]
    return {"category": category, "cells": [page.cell(metric, dict(f)) if f else None for f in found]}


def _text(page: Page, text: Row, rows: Sequence[Row]) -> Row:
    given = [(r["setting"], r["chosen"], text["answers"].get(r["setting"])) for r in rows]
    answers = [
        {"setting": setting, "chosen": chosen, "text": answer["text"], "scores": page.chips(answer)}
        for setting, chosen, answer in given
        if answer
    ]
    return {"question": text["question"], "category": text["category"], "answers": answers}
