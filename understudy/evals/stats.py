"""Intervals for rates, means and paired differences; every figure that a verdict rests on comes from here.

Wilson (1927) for rates; percentile bootstrap over items (Efron 1979), 10,000 resamples, fixed seed, for the rest.
Samples without spread: a bootstrap would claim certainty, so scores in 0..1 get the exact bound of n equal draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from understudy.errors import DataError

RESAMPLES = 10_000
SEED = 20_260_000
_CHUNK = 4_000_000
"""Resampled values held at once (32 MB)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate over `n` items and its interval."""

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """Rounded to 6 digits, so that the last bits of another machine's sums do not change an artifact."""
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return {k: round(v, 6) + 0.0 for k, v in ends.items()} | {"n": self.n}


def wilson(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a rate. `successes` may be fractional (an item's share over its samples)."""
    _some(n)
    rate = successes / n
    return Interval(rate, *wilson_ends(rate, n, confidence), n)


def wilson_ends(rate: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Both ends, around `rate`; `n` may be fractional."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(0.0, rate * (1 - rate) / n + z * z / (4 * n * n)))
    return min(rate, max(0.0, centre - half)), max(rate, min(1.0, centre + half))


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Percentile bootstrap of a mean over items."""
    unit = all(0.0 <= v <= 1.0 for v in values)
    return _bootstrap(values, confidence, (0.0, 1.0) if unit else None)


def paired_difference(a: Mapping[str, float], b: Mapping[str, float], confidence: float = 0.95) -> Interval:
    """Mean of a - b over items, paired by id. Raises DataError when the two do not hold the same items."""
    if a.keys() != b.keys():
        odd = sorted(a.keys() ^ b.keys())
        raise DataError(
            "STATS_UNPAIRED", "paired difference", f"{len(odd)} items are in one side only, e.g. {odd[0]!r}",
            "score both models on the same prompt set",
        )  # fmt: skip
    unit = all(0.0 <= v <= 1.0 for side in (a, b) for v in side.values())
    return _bootstrap([a[k] - b[k] for k in sorted(a)], confidence, (-1.0, 1.0) if unit else None)


def paired_ratio(a: Mapping[str, float], b: Mapping[str, float], confidence: float = 0.95) -> Interval | None:
    """Mean of a over mean of b, of rates of the same items; None where b is nowhere above 0.

    Fieller (1954): the ratios r at which the paired values a - r b have a mean that cannot be told from 0. Raises
    DataError when the two do not hold the same items.
    """
    paired_difference(a, b)  # raises where they are not of the same items
    keys = sorted(a)
    n, over, under = len(keys), sum(a.values()), sum(b.values())
    if under <= 0:
        return None
    ratio = over / under
    if n < 2:
        return Interval(ratio, 0.0, math.inf, n)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    saa, sbb, sab = (
        sum((x[k] - sum(x.values()) / n) * (y[k] - sum(y.values()) / n) for k in keys) / (n - 1)
        for x, y in ((a, a), (b, b), (a, b))
    )
    ma, mb = over / n, under / n
    p, q, r = mb * mb - z * z * sbb / n, ma * mb - z * z * sab / n, ma * ma - z * z * saa / n
    if p <= 0:  # b cannot be told from 0: the ratio could be anything
        return Interval(ratio, 0.0, math.inf, n)
    root = math.sqrt(max(0.0, q * q - p * r))
    return Interval(ratio, min(ratio, max(0.0, (q - root) / p)), max(ratio, (q + root) / p), n)


def mean_difference(values: Sequence[float], reach: float, confidence: float = 0.95) -> Interval:
    """Percentile bootstrap of a mean of paired differences that lie in -reach..reach, one for each unit."""
    return _bootstrap(values, confidence, (-reach, reach))


def mcnemar(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Exact two-sided p of McNemar's test for two 0/1 scores of the same items."""
    wins = sum(a[k] > b[k] for k in a)
    losses = sum(a[k] < b[k] for k in a)
    n = wins + losses
    tail: float = sum(math.comb(n, i) for i in range(min(wins, losses) + 1)) / 2.0**n
    return min(1.0, 2 * tail)


def _some(n: int) -> None:
    if n == 0:
        raise DataError("STATS_EMPTY", "interval", "no items to average", "check that the prompt set has rows")


def _bootstrap(values: Sequence[float], confidence: float, bounds: tuple[float, float] | None) -> Interval:
    import numpy as np

    _some(len(values))
    x = np.asarray(values, dtype=np.float64)  # (items,) float64
    n = len(x)
    mean = float(x.mean())
    if float(np.ptp(x)) < 1e-12:
        # n equal draws leave room for a share of others of at most 1 - alpha**(1/n), each as far as the bounds allow.
        room = 1 - ((1 - confidence) / 2) ** (1 / n)
        low, high = (mean + room * (end - mean) for end in bounds) if bounds else (mean, mean)
        return Interval(mean, low, high, n)
    rng = np.random.default_rng(SEED)
    means = np.empty(RESAMPLES)
    step = max(1, _CHUNK // n)
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        picks = rng.integers(0, n, size=(rows, n), dtype=np.int32)  # (resamples, items) int32
        means[start : start + rows] = x[picks].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean, min(mean, float(low)), max(mean, float(high)), n)
