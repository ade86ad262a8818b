"""How many rows of each cell the teacher is asked for: by the seeds at first, then by what failed on dev.

Of dev, only this is read: category, group and failure of each item, and how long its question is. How the shares come
about, with an example: docs/synthesis.md.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.config import SynthesizeConfig
from understudy.core.records import Document, Example, read_examples
from understudy.data.synthesis.cells import Cell, Lengths, group_of
from understudy.data.synthesis.texts import category_of, question_of
from understudy.errors import DataError

FLOOR = 0.05
"""Share of an aimed quota that is spread evenly over the categories, so that none is forgotten."""
PRIOR_ITEMS = 4
"""A cell's failure rate is drawn towards its category's, and a category's towards the overall one, as if so many items
had been seen there. For a rate near one half, p(1 - p) / variance gives 4 when true rates differ between cells by about
a quarter (standard deviation)."""

Shares = dict[Cell, float]


@dataclass(frozen=True, slots=True)
class Item:
    """One dev item: its cell, and how far from good it was (0 the best)."""

    cell: Cell
    failure: float


@dataclass(frozen=True, slots=True)
class Dev:
    """What a round may know of dev."""

    items: list[Item]
    lengths: Lengths | None = None


@dataclass(slots=True)
class Quota:
    """Rows wanted of each cell; `table` says for each cell of dev how they came about, `notes` go into the ledger."""

    rows: dict[Cell, int]
    lengths: Lengths | None = None
    table: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        wanted = [cell.shown() | {"rows": rows} for cell, rows in self.rows.items()]
        bounds = {n: self.lengths.bounds(n) for n in ("short", "middle", "long")} if self.lengths else None
        return {"wanted": wanted, "lengths": bounds, "cells": self.table, "notes": self.notes}


def measure(
    data: Path, scores: Iterable[Mapping[str, Any]], cfg: SynthesizeConfig, metric: str, *, lower: bool = False
) -> Dev:
    """The items of `dev.jsonl` in the folder `data`, by the rows of their scores; several samples count as one item.

    `lower`: less of the metric is better. Raises DataError SYNTH_NO_METRIC when the scores do not hold the metric.
    """
    return measured(read_examples(data / "dev.jsonl"), scores, metric, cfg.cells, lower=lower)


def measured(
    examples: Iterable[Example],
    scores: Iterable[Mapping[str, Any]],
    metric: str,
    cells: Collection[str],
    *,
    lower: bool = False,
) -> Dev:
    """`measure` of examples in memory."""
    by_id = {e.id: e for e in examples}
    values, first = defaultdict[str, list[float]](list), dict[str, Mapping[str, Any]]()
    for row in scores:
        if metric in row["values"]:
            values[row["id"]].append(float(row["values"][metric]))
            first.setdefault(row["id"], row)
    if not values:
        what = f"the dev scores hold no {metric!r}"
        raise DataError("SYNTH_NO_METRIC", "synthesize", what, "score dev with it first")
    lengths = Lengths.of([question_of(e) for e in by_id.values()]) if "length" in cells else None
    failures = _failures({i: sum(v) / len(v) for i, v in values.items()}, metric, lower)
    items = []
    for i, failure in failures.items():
        group = str(first[i].get("group") or "") if "group" in cells else ""
        length = lengths.name(question_of(by_id[i])) if lengths and i in by_id else ""
        items.append(Item(Cell(category_of(dict(first[i])), group, length), failure))
    return Dev(items, lengths)


def quota(
    cfg: SynthesizeConfig, seeds: Sequence[Example], documents: Sequence[Document], dev: Dev | None = None
) -> Quota:
    """Rows wanted per cell; they sum to `cfg.rows`. Without `dev` they follow the seeds' categories.

    With it, a category's part follows its failure rate, and within it a cell's its share of the failures. A cell that
    cannot be written for gives its part to the nearest one that can: the same one about any document, and where its
    category has no seeds, the others of its length.
    """
    if not seeds:
        raise DataError("SYNTH_NO_SEEDS", "synthesize", "there is no seed pair to write from", "raise split.seed_pairs")
    counts = Counter(category_of(s.meta) for s in seeds)
    by_seeds = {Cell(category): float(count) for category, count in counts.items()}
    if dev is None or not dev.items:
        return Quota(apportion(cfg.rows, by_seeds))
    items = _pooled(dev.items, {group_of(d) for d in documents})
    table = _table(items, counts, shrink=set(cfg.cells) != {"category"})
    if sum(row.weight for row in table) <= 0:
        return Quota(apportion(cfg.rows, by_seeds))
    shares = _shares(table, set(counts))
    order = {category: i for i, category in enumerate(counts)}
    cells = sorted(shares, key=lambda c: (order[c.category], c))
    rows = apportion(cfg.rows, {cell: shares[cell] for cell in cells})
    elsewhere = {
        "moved_no_document": sum(row.share * row.moved / row.items for row in table if row.items),
        "moved_no_seed": sum(row.share for row in table if row.cell.category not in counts),
    }
    notes = {name: round(cfg.rows * share) for name, share in elsewhere.items() if round(cfg.rows * share)}
    return Quota(rows, dev.lengths, [row.to_json() for row in table], notes)


@dataclass(slots=True)
class _Row:
    """A cell of dev: its items (`moved` of them from groups without documents), and what follows from them."""

    cell: Cell
    items: int
    moved: int
    part: float
    rate: float
    share: float = 0.0

    @property
    def weight(self) -> float:
        """The cell's part of its category's failures."""
        return self.part * self.rate

    def to_json(self) -> dict[str, Any]:
        numbers = {"rate": round(self.rate, 4), "share": round(self.share, 4)}
        return {"cell": self.cell.shown(), "items": self.items, "moved": self.moved, **numbers}


def _pooled(items: Sequence[Item], groups: Collection[str]) -> list[tuple[Item, bool]]:
    """Each item, and whether it moved: of a group without documents, it counts for the cell of any document."""
    moved = [bool(i.cell.group) and i.cell.group not in groups for i in items]
    return [(Item(i.cell._replace(group=""), i.failure) if m else i, m) for i, m in zip(items, moved, strict=True)]


def _table(items: Sequence[tuple[Item, bool]], seeded: Collection[str], *, shrink: bool) -> list[_Row]:
    """A row for each cell of dev, and for each category of the seeds that dev has not."""
    overall = sum(item.failure for item, _ in items) / len(items)
    by_category, by_cell = defaultdict[str, list[float]](list), defaultdict[Cell, list[float]](list)
    moved: Counter[Cell] = Counter()
    for item, was_moved in items:
        by_category[item.cell.category].append(item.failure)
        by_cell[item.cell].append(item.failure)
        moved[item.cell] += was_moved
    for category in seeded:
        if category not in by_category:
            by_cell[Cell(category)] = []
    prior = PRIOR_ITEMS if shrink else 0
    rates = {category: _drawn(failures, overall, prior) for category, failures in by_category.items()}
    table = []
    for cell, failures in by_cell.items():
        size = len(by_category.get(cell.category, ()))
        rate = _drawn(failures, rates.get(cell.category, overall), prior)
        table.append(_Row(cell, len(failures), moved[cell], len(failures) / size if size else 1.0, rate))
    total = sum(row.weight for row in table) or 1.0
    for row in table:
        floor = FLOOR / len(seeded) * row.part if row.cell.category in seeded else 0.0
        row.share = floor + (1 - FLOOR) * row.weight / total
    return table


def _shares(table: Sequence[_Row], seeded: Collection[str]) -> Shares:
    """Shares of the cells that can be written for; a category without seeds gives its to the cells of the same length
    in the others, else to all, in proportion to their own."""
    own = {row.cell: row.share for row in table if row.cell.category in seeded}
    shares = dict(own)
    for row in table:
        if row.cell.category not in seeded:
            near = {cell: share for cell, share in own.items() if cell.length == row.cell.length} or own
            for cell, share in near.items():
                shares[cell] += row.share * share / sum(near.values())
    return shares


def _drawn(failures: Sequence[float], towards: float, prior: float) -> float:
    """The mean failure, drawn towards another as if `prior` more items had that one."""
    count = len(failures) + prior
    return (sum(failures) + prior * towards) / count if count else towards


def _failures(values: Mapping[str, float], metric: str, lower: bool) -> dict[str, float]:
    """How far from good each value is, 0 the best: the loss itself, a grade of 1-100, or a score of 0-1.

    A metric of another unit counts from its best to its worst item.
    """
    if metric == "loss":
        return {i: max(0.0, v) for i, v in values.items()}
    if metric.startswith("judge_"):
        return {i: 1.0 - v / 100.0 for i, v in values.items()}
    least, most = min(values.values()), max(values.values())
    if least < 0.0 or most > 1.0:
        values = {i: (v - least) / (most - least) if most > least else 0.0 for i, v in values.items()}
    return {i: v if lower else 1.0 - v for i, v in values.items()}


def apportion(rows: int, weights: Mapping[Cell, float]) -> dict[Cell, int]:
    """Whole rows in proportion to the weights, by largest remainder; ties go by name."""
    total = sum(weights.values())
    exact = {cell: rows * weight / total for cell, weight in weights.items()}
    whole = {cell: math.floor(share) for cell, share in exact.items()}
    by_remainder = sorted(weights, key=lambda cell: (whole[cell] - exact[cell], cell))
    for cell in by_remainder[: rows - sum(whole.values())]:
        whole[cell] += 1
    return whole
