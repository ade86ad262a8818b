"""Permutation tests and the correction for many of them; exact where the permutations can be listed.

Sign flips for paired differences (Fisher 1935), the largest deviation over permuted labels for groups (Westfall and
Young 1993). A sampled p is (b + 1) / (m + 1), never zero (Phipson and Smyth 2010). Fixed seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

EXACT_UP_TO = 14
"""2**14 sign patterns are listed; more differences than that are sampled."""
RESAMPLES = 20_000
SEED = 20_260_001
_TIE = 1e-9
"""Sums of the same numbers in another order differ in the last bits; they count as equal."""


def sign_flip(differences: Sequence[float], resamples: int = RESAMPLES) -> float:
    """Two-sided p of a mean of zero, when each difference is as likely as its negative.

    Zero differences carry no sign and drop out; without any other p is 1. Exact up to 14 differences.
    """
    import numpy as np

    x = np.asarray([d for d in differences if d != 0.0], dtype=np.float64)  # (units,)
    n = len(x)
    if n == 0:
        return 1.0
    observed = abs(float(x.sum())) - _TIE
    if n <= EXACT_UP_TO:
        patterns = (np.arange(2**n)[:, None] >> np.arange(n)) & 1  # (2**n, units)
        sums = (1 - 2 * patterns) @ x
        return float((np.abs(sums) >= observed).mean())
    rng = np.random.default_rng(SEED)
    extreme, step = 0, max(1, 4_000_000 // n)
    for start in range(0, resamples, step):
        signs = rng.integers(0, 2, size=(min(step, resamples - start), n), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ x) >= observed).sum())
    return (extreme + 1) / (resamples + 1)


def least_p(units: int, resamples: int = RESAMPLES) -> float:
    """The smallest p that a sign-flip test of so many units can give."""
    return 1.0 if units == 0 else 2.0 ** (1 - units) if units <= EXACT_UP_TO else 1 / (resamples + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p-values in the given order: the chance of any false rejection stays at alpha under any dependence."""
    order = sorted(range(len(ps)), key=lambda i: (ps[i], i))
    adjusted, highest = [1.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = highest
    return adjusted


def labels(
    values: Mapping[str, Sequence[tuple[str, float]]], resamples: int = 2_000
) -> dict[str, tuple[float, float, float]]:
    """Who stands out, when labels are exchangeable within a stratum: label -> (mean, p, corrected p).

    `values`: stratum -> (label, value) pairs. The corrected p compares each label's standardised deviation with the
    largest one of every permutation, so it holds for all labels at once.
    """
    import numpy as np

    names = sorted({label for of in values.values() for label, _ in of})
    at = {name: i for i, name in enumerate(names)}
    strata = [(np.array([at[k] for k, _ in of]), np.array([v for _, v in of])) for of in values.values() if of]
    if not names:
        return {}
    counts: Any = sum(np.bincount(k, minlength=len(names)) for k, _ in strata)  # (labels,)

    centred = [(k, v - v.mean()) for k, v in strata]

    def deviations(permute: Any) -> Any:
        total: Any = sum(np.bincount(k, weights=permute(v), minlength=len(names)) for k, v in centred)
        return np.abs(total) / np.sqrt(counts)

    means: Any = sum(np.bincount(k, weights=v, minlength=len(names)) for k, v in strata) / counts
    observed = deviations(lambda v: v) - _TIE
    rng = np.random.default_rng(SEED)
    single, largest = np.zeros(len(names)), np.zeros(len(names))
    for _ in range(resamples):
        drawn = deviations(rng.permutation)
        single += drawn >= observed
        largest += drawn.max() >= observed
    return {
        name: (float(means[i]), float(single[i] + 1) / (resamples + 1), float(largest[i] + 1) / (resamples + 1))
        for name, i in at.items()
    }


def detectable(units: int, tests: int, alpha: float) -> bool:
    """Whether the design can flag anything at all: the least p, corrected for all tests, lies under alpha."""
    return tests > 0 and least_p(units) * tests < alpha
