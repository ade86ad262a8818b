"""How many rows of each category the teacher is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from understudy.config import SynthesizeConfig
from understudy.data.synthesis.texts import category_of
from understudy.errors import DataError

FLOOR = 0.05
"""Share of an aimed quota that is spread evenly, so that no category is forgotten."""


def quota(
    cfg: SynthesizeConfig,
    categories: dict[str, int],
    dev: Sequence[dict[str, Any]] | None,
    metric: str,
    targeted: bool,
) -> dict[str, int]:
    """Rows wanted per category; they sum to `cfg.rows`.

    `categories`: seed pairs per category. `dev`: rows of scores.jsonl of one setting; with `targeted` the rows follow
    the failure rate per category (1 - value, or the mean loss), and 5 % are spread evenly.
    """
    if not categories:
        raise DataError("SYNTH_NO_SEEDS", "synthesize", "there is no seed pair to write from", "raise split.seed_pairs")
    weights = {name: float(count) for name, count in categories.items()}
    if not targeted or not dev:
        return _apportion(cfg.rows, weights)
    failures: dict[str, list[float]] = {}
    for row in dev:
        if metric in row["values"]:
            failures.setdefault(category_of(row), []).append(_failure(metric, float(row["values"][metric])))
    if not failures:
        raise DataError(
            "SYNTH_NO_METRIC", "synthesize", f"the dev scores hold no {metric!r}", "score dev with it first"
        )
    overall = [v for values in failures.values() for v in values]
    means = {name: sum(values) / len(values) for name, values in failures.items()}
    aimed = {name: means.get(name, sum(overall) / len(overall)) for name in categories}
    if sum(aimed.values()) <= 0:
        return _apportion(cfg.rows, weights)
    total = sum(aimed.values())
    floor = FLOOR / len(categories)
    return _apportion(cfg.rows, {name: floor + (1 - FLOOR) * weight / total for name, weight in aimed.items()})


def _failure(metric: str, value: float) -> float:
    """How far from good a dev value is, 0 the best: the loss itself, a grade of 1-100, or a score of 0-1."""
    if metric == "loss":
        return max(0.0, value)
    return 1.0 - value / 100.0 if metric.startswith("judge_") else 1.0 - value


def _apportion(rows: int, weights: dict[str, float]) -> dict[str, int]:
    """Whole rows in proportion to the weights, by largest remainder; ties go by name."""
    total = sum(weights.values())
    exact = {name: rows * weight / total for name, weight in weights.items()}
    whole = {name: math.floor(share) for name, share in exact.items()}
    by_remainder = sorted(weights, key=lambda name: (whole[name] - exact[name], name))
    for name in by_remainder[: rows - sum(whole.values())]:
        whole[name] += 1
    return whole
