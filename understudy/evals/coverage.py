"""The coverage rate as a pure function of stored verdicts and thresholds; the item is the unit.

An answer is covered when the means of its grades reach both thresholds; an item's value is the share of its answers
that are. The interval is Clopper and Pearson's with an effective number of items (Korn and Graubard 1998): as exact as
it gets with one answer per item, and narrower with several, as far as they differ within an item.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

from understudy.errors import DataError
from understudy.evals import exact
from understudy.evals.stats import Interval

Row = Mapping[str, Any]
Grades = Sequence[tuple[float, float]]
"""(similarity, precision) of each verdict on one answer."""
PRIOR = 0.25
"""Squared deviations that are believed before any is seen, as if an item's answers were all alike: without them a few
lucky items claim independence, and at a rate of 0.95 false promotion passes 3 %."""


def answer_covered(grades: Grades, similarity: float, precision: float) -> bool:
    """Whether the means of the grades reach both thresholds; an answer without a grade is not covered."""
    if not grades:
        return False
    # In whole numbers: a mean of 70 must not miss 70 by the last bit.
    count = len(grades)
    return (
        math.fsum(g[0] for g in grades) >= similarity * count and math.fsum(g[1] for g in grades) >= precision * count
    )


def judged_answers(rows: Iterable[Row]) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """(item, sample) -> its grades, without those of failed verdicts. Rows of one setting.

    Raises DataError VERDICTS_SETTINGS for rows of several settings, VERDICTS_TWICE for a verdict that is there twice.
    """
    answers: dict[tuple[str, int], list[tuple[float, float]]] = {}
    seen: set[tuple[str, int, int]] = set()
    settings: set[str] = set()
    for row in rows:
        settings.add(row["setting"])
        key = (row["id"], row.get("sample", 0))
        verdict = (*key, row.get("verdict", 0))
        if len(settings) > 1:
            what = f"verdicts of several settings at once: {', '.join(sorted(settings))}"
            raise DataError("VERDICTS_SETTINGS", "coverage", what, "take one setting")
        if verdict in seen:
            what = f"item {key[0]!r}, sample {key[1]} has verdict {verdict[2]} twice"
            raise DataError("VERDICTS_TWICE", "coverage", what, "score the answers again")
        seen.add(verdict)
        grades = answers.setdefault(key, [])
        if "failed" not in row:
            grades.append((row["similarity"], row["precision"]))
    return answers


def item_values(rows: Iterable[Row], similarity: float, precision: float) -> dict[str, float]:
    """Item -> share of its answers that are covered, from verdict rows of one setting."""
    return shares(judged_answers(rows), similarity, precision)


def shares(answers: Mapping[tuple[str, int], Grades], similarity: float, precision: float) -> dict[str, float]:
    """Item -> share of its answers that are covered, from the grades of each answer."""
    covered: dict[str, list[bool]] = {}
    for (item, _), grades in answers.items():
        covered.setdefault(item, []).append(answer_covered(grades, similarity, precision))
    return {item: sum(of) / len(of) for item, of in covered.items()}


def samples_of(rows: Iterable[Row]) -> int:
    """Answers of each item, the most where they differ; `rows` are of one setting."""
    return 1 + max((int(row.get("sample", 0)) for row in rows), default=0)


def rate(values: Mapping[str, float] | Sequence[float], confidence: float = 0.95, samples: int = 1) -> Interval:
    """The mean over items and its interval. `samples`: answers of each item; 1 treats an item's answers as one.

    Raises DataError STATS_EMPTY without items, RATE_RANGE for a value outside 0..1.
    """
    given = [float(v) for v in (values.values() if isinstance(values, Mapping) else values)]
    if not given:
        raise DataError("STATS_EMPTY", "interval", "no items to average", "check that the prompt set has rows")
    if odd := [v for v in given if not 0 <= v <= 1]:
        raise DataError("RATE_RANGE", "coverage", f"an item's value is {odd[0]}", "give shares from 0 to 1")
    n, mean = len(given), math.fsum(given) / len(given)
    spread = math.fsum((v - mean) ** 2 for v in given)
    low, high = ends(mean, spread, n, confidence, samples)
    return Interval(mean, min(mean, float(low[0])), max(mean, float(high[0])), n)


def ends(mean: Any, spread: Any, n: int, confidence: float, samples: int) -> tuple[Any, Any]:
    """(low, high) arrays for means over `n` items and their sums of squared deviations.

    No sample claims more than n items that are all covered (or all not) would.
    """
    import numpy as np

    effective = effective_items(mean, spread, n, confidence, samples)
    low, high = exact.clopper_pearson(mean * effective, effective, confidence)
    most = ((1 - confidence) / 2) ** (1 / n)
    return np.minimum(low, most), np.maximum(high, 1 - most)


def effective_items(mean: Any, spread: Any, n: int, confidence: float, samples: int) -> Any:
    """How many items with one answer each would say as much: from n, up to n x samples; an array.

    n p (1 - p) / sum (v - p)^2 = n / (1 + (samples - 1) ICC) / samples, with PRIOR against chance and, since the spread
    is itself estimated, the squared ratio of the normal to Student's quantile.
    """
    import numpy as np

    mean, spread = np.atleast_1d(np.asarray(mean, float)), np.atleast_1d(np.asarray(spread, float))
    if samples == 1 or n < 2:
        return np.full(mean.shape, float(n))
    most = n * mean * (1 - mean)
    ratio = np.maximum((spread + PRIOR) / (most + PRIOR), 1 / samples)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    return np.maximum(n, n / ratio * (z / exact.student(confidence, n - 1)) ** 2)
