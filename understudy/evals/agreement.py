"""How far raters agree on a five-point scale: rank correlation and weighted kappa, each with a bootstrap interval.

Spearman's rho with mean ranks for ties; Cohen's kappa with quadratic weights (Cohen 1968). The interval draws the
rated answers, so it says how the figure would move with other answers, not with other raters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

from understudy.evals.stats import SEED, Interval

RESAMPLES = 2_000


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Rank correlation; None where one side has no spread."""
    import numpy as np

    x, y = _ranks(np.asarray(a, dtype=float)), _ranks(np.asarray(b, dtype=float))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def weighted_kappa(a: Sequence[float], b: Sequence[float]) -> float | None:
    """1 - observed / expected squared distance; levels may be fractional (a mean). None without any spread."""
    import numpy as np

    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    expected = float(((x[:, None] - y[None, :]) ** 2).mean())
    return None if expected == 0 else 1.0 - float(((x - y) ** 2).mean()) / expected


def interval(
    a: Sequence[float],
    b: Sequence[float],
    measure: Callable[[Any, Any], float | None],
    confidence: float = 0.95,
    items: Sequence[str] | None = None,
) -> Interval | None:
    """The measure and its percentile bootstrap over answers, or over `items` with all their answers; `n` counts those.

    None where the measure is not defined.
    """
    import numpy as np

    value = measure(a, b)
    if value is None:
        return None
    x, y, rng = np.asarray(a, dtype=float), np.asarray(b, dtype=float), np.random.default_rng(SEED)
    drawn, places = [], _places(items if items is not None else range(len(x)))
    for _ in range(RESAMPLES):
        pick = np.concatenate([places[i] for i in rng.integers(0, len(places), size=len(places))])
        found = measure(x[pick], y[pick])
        if found is not None:
            drawn.append(found)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2]) if drawn else (value, value)
    return Interval(value, min(value, float(low)), max(value, float(high)), len(places))


def agreement(
    people: Mapping[str, Mapping[str, float]], machine: Mapping[str, float], confidence: float
) -> dict[str, Any]:
    """`people`: rater -> answer -> score. The mean of the raters against the machine, and each pair of raters."""
    rated = sorted({answer for of in people.values() for answer in of} & machine.keys())
    means = [_mean([of[i] for of in people.values() if i in of]) for i in rated]
    graded = [machine[i] for i in rated]
    found: dict[str, Any] = {"answers": len(rated), "raters": len(people), "machine": {}, "pairs": []}
    if len(rated) >= 3:
        for name, measure in (("spearman", spearman), ("weighted_kappa", weighted_kappa)):
            value = interval(means, graded, measure, confidence)
            found["machine"][name] = value.to_json() if value else None
        found["machine"]["mean_difference"] = round(_mean(graded) - _mean(means), 6)
    for one, other in combinations(sorted(people), 2):
        shared = sorted(people[one].keys() & people[other].keys())
        if len(shared) >= 3:
            value = interval(
                [people[one][i] for i in shared], [people[other][i] for i in shared], weighted_kappa, confidence
            )
            found["pairs"].append({"raters": [one, other], "weighted_kappa": value.to_json() if value else None})
    return found


def _places(items: Sequence[Any]) -> list[Any]:
    """Item by item, the indices of its answers."""
    import numpy as np

    found: dict[Any, list[int]] = {}
    for place, item in enumerate(items):
        found.setdefault(item, []).append(place)
    return [np.array(of) for of in found.values()]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _ranks(x: Any) -> Any:
    import numpy as np

    order = np.argsort(x, kind="stable")
    ranks = np.empty(len(x))
    ranks[order] = np.arange(1, len(x) + 1)
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.bincount(inverse, weights=ranks) / counts)[inverse]
