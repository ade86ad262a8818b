"""Requests without a reference answer, from a template: prompts(cfg) -> dev.jsonl or held.jsonl.

Every combination of the placeholders' values is one request. Dated requests ask about different days in dev and held;
others are divided in two by the hash of the request.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import product
from pathlib import Path
from typing import Any, Literal

from understudy.config import PromptsStep
from understudy.core.records import Example, Ledger, digest, write_jsonl
from understudy.errors import DataError

Split = Literal["dev", "held"]


def prompts(cfg: PromptsStep, split: Split, out: Path) -> Ledger:
    """Write `<split>.jsonl`. Raises DataError SPLIT_EMPTY when there are too few requests to divide."""
    rows = list(requests(cfg, split))
    if not rows:
        raise DataError("SPLIT_EMPTY", "prompts", f"no request is left for {split}", "give more values, or use {date}")
    count = write_jsonl(out / f"{split}.jsonl", rows)
    return Ledger(rows_in=count, rows_out=count)


def requests(cfg: PromptsStep, split: Split) -> Iterator[Example]:
    """The requests of one split, in the order of days and values."""
    combinations = [dict(zip(cfg.values, chosen, strict=True)) for chosen in product(*cfg.values.values())]
    if cfg.dated:
        for day in days(cfg, split):
            for values in combinations:
                yield _request(cfg, {**values, "date": day.strftime(cfg.date_format)})
        return
    order = sorted(combinations, key=lambda values: digest([cfg.template, values], 16))
    half = len(order) // 2
    for values in order[:half] if split == "dev" else order[half:]:
        yield _request(cfg, values)


def days(cfg: PromptsStep, split: Split) -> list[date]:
    """dev: `as_of` and the days before it, oldest first; held: the days after it."""
    assert cfg.as_of is not None, "dated requests are bound to a day"
    today = date.fromisoformat(cfg.as_of)
    if split == "dev":
        return [today - timedelta(n) for n in reversed(range(cfg.dev_days))]
    return [today + timedelta(n) for n in range(1, cfg.held_days + 1)]


def _request(cfg: PromptsStep, values: dict[str, str]) -> Example:
    text = cfg.template.format_map(values)
    meta: dict[str, Any] = {"values": values}
    if cfg.category:
        meta["category"] = values[cfg.category]
    if cfg.min_answer_chars or cfg.max_answer_chars:
        meta["answer_chars"] = [cfg.min_answer_chars, cfg.max_answer_chars]
    return Example(digest(text, 16), [{"role": "user", "content": text}], meta)
