"""Exact intervals of a proportion, from quantiles of the beta distribution; counts may be fractional, and arrays.

Clopper and Pearson (1934): each end errs in at most (1 - confidence) / 2 of samples, whatever the size and the rate.
Jeffreys (Brown, Cai, DasGupta 2001): narrower, near the nominal rate on average. No scipy: numpy is enough.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

_LEAST = 1e-16
_STEPS = 2_000
"""More than the continued fraction needs for a million draws."""


def clopper_pearson(successes: Any, n: Any, confidence: float = 0.95) -> tuple[Any, Any]:
    """(low, high) arrays for `successes` of `n`; both may be fractional, and arrays of one shape."""
    return _ends(successes, n, confidence, 0.0)


def jeffreys(successes: Any, n: Any, confidence: float = 0.95) -> tuple[Any, Any]:
    """(low, high) arrays; 0 where nothing succeeded and 1 where everything did, as Brown et al. modify it."""
    return _ends(successes, n, confidence, 0.5)


def beta_quantile(p: float, a: Any, b: Any) -> Any:
    """The x with I_x(a, b) = p, to 1e-12; `a` and `b` above zero, arrays of one shape."""
    import numpy as np

    a, b = np.broadcast_arrays(np.atleast_1d(np.asarray(a, float)), np.atleast_1d(np.asarray(b, float)))
    pairs, back = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1, return_inverse=True)
    return _quantile(p, pairs[0], pairs[1])[back.reshape(a.shape)]


def student(confidence: float, df: float) -> float:
    """The two-sided quantile of Student's t: |T| stays below it with probability `confidence`."""
    x = float(beta_quantile(1 - confidence, df / 2, 0.5)[0])
    return math.sqrt(df * (1 - x) / x)


def _ends(successes: Any, n: Any, confidence: float, prior: float) -> tuple[Any, Any]:
    import numpy as np

    x, n = np.broadcast_arrays(np.atleast_1d(np.asarray(successes, float)), np.atleast_1d(np.asarray(n, float)))
    # A share that came out of a division may miss 0 or n by the last bit.
    x = np.where(x < 1e-9, 0.0, np.where(n - x < 1e-9, n, x))
    tail, rest = (1 - confidence) / 2, n - x
    low, high = np.zeros(x.shape), np.ones(x.shape)
    some, lacking = x > 0, rest > 0
    own, other = (prior, 1 - prior) if prior else (0.0, 1.0)
    low[some] = beta_quantile(tail, x[some] + own, rest[some] + other)
    high[lacking] = beta_quantile(1 - tail, x[lacking] + other, rest[lacking] + own)
    return low, high


def _quantile(p: float, a: Any, b: Any) -> Any:
    """Newton's method, kept inside a bracket that bisection narrows."""
    import numpy as np

    front = np.array([math.lgamma(s) for s in (a + b).tolist()])
    front -= np.array([math.lgamma(s) for s in a.tolist()]) + np.array([math.lgamma(s) for s in b.tolist()])
    mean = a / (a + b)
    start = mean + NormalDist().inv_cdf(p) * np.sqrt(mean * (1 - mean) / (a + b + 1))
    found = np.where((start > 0) & (start < 1), start, mean).clip(_LEAST, 1 - _LEAST)
    low, high, left = np.zeros(a.shape), np.ones(a.shape), np.arange(len(a))
    for _ in range(200):
        x, c, d = found[left], a[left], b[left]
        log_density = front[left] + c * np.log(x) + d * np.log1p(-x)
        error = _distribution(x, c, d, log_density) - p
        low[left], high[left] = np.where(error < 0, x, low[left]), np.where(error < 0, high[left], x)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            new = x - error * x * (1 - x) / np.exp(log_density)
        inside = (new > low[left]) & (new < high[left])
        found[left] = np.where(inside, new, (low[left] + high[left]) / 2).clip(_LEAST, 1 - _LEAST)
        left = left[np.abs(found[left] - x) > 1e-12]
        if not len(left):
            break
    return found


def _distribution(x: Any, a: Any, b: Any, log_density: Any) -> Any:
    """I_x(a, b); the continued fraction is taken on the side of the mean where it converges fast."""
    import numpy as np

    turned = x > (a + 1) / (a + b + 2)
    own, other, at = np.where(turned, b, a), np.where(turned, a, b), np.where(turned, 1 - x, x)
    part = np.exp(log_density) * _fraction(at, own, other) / own
    return np.where(turned, 1 - part, part)


def _fraction(x: Any, a: Any, b: Any) -> Any:
    """The continued fraction of the incomplete beta function (DLMF 8.17.22) by Lentz's method."""
    import numpy as np

    tiny = 1e-300
    d = 1 - (a + b) * x / (a + 1)
    d = 1 / np.where(np.abs(d) < tiny, tiny, d)
    c, value = np.ones(x.shape), d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d, c = 1 + term * d, 1 + term / c
            d, c = 1 / np.where(np.abs(d) < tiny, tiny, d), np.where(np.abs(c) < tiny, tiny, c)
            value = value * d * c
        if (np.abs(d * c - 1) < 1e-15).all():
            break
    return value
