"""Intervals that the study of `benchmarks.intervals` sets ours against, each as published, over arrays of samples.

All take means over items and return (low, high) arrays at 95 %; they may leave 0..1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.evals import exact
from understudy.evals.calibration import Three, rogan_gladen

Z = 1.959963984540054
Ends = tuple[Any, Any]
DRAWS = 400


def design_items(mean: Any, spread: Any, n: int, samples: int) -> Any:
    """Items with the variance that was seen, from n to n x samples, as Korn and Graubard (1998) take it."""
    most = n * mean * (1 - mean)
    seen = np.where(spread > 0, spread, most / samples)
    return np.clip(np.where(most > 0, n * most / np.where(seen > 0, seen, 1), n), n, n * samples)


def wilson(mean: Any, n: Any) -> Ends:
    centre, scale = mean + Z * Z / (2 * n), 1 + Z * Z / n
    half = Z * np.sqrt(np.maximum(mean * (1 - mean) / n + Z * Z / (4 * n * n), 0))
    return (centre - half) / scale, (centre + half) / scale


def clopper_pearson(mean: Any, n: Any) -> Ends:
    return exact.clopper_pearson(mean * n, n)


def jeffreys(mean: Any, n: Any) -> Ends:
    return exact.jeffreys(mean * n, n)


def bootstrap(levels: Any, n: int, rng: Any) -> Ends:
    """Percentile bootstrap over items; `levels` (trials, k + 1) counts the items with 0..k covered answers."""
    k = levels.shape[1] - 1
    drawn = rng.multinomial(n, (levels / n)[:, None, :], size=(len(levels), DRAWS))
    means = drawn @ np.arange(k + 1) / (n * k)
    low, high = np.quantile(means, [0.025, 0.975], axis=1)
    return low, high


def wald(mean: Any, n: Any, hits: Any, good: Any, clean: Any, bad: Any) -> Ends:
    """Rogan and Gladen (1978): the delta method with the shares as they are."""
    right, wrong = hits / np.maximum(good, 1), clean / np.maximum(bad, 1)
    power = _power(right, wrong)
    rate = (mean + wrong - 1) / power
    noise = rate**2 * right * (1 - right) / np.maximum(good, 1) + (1 - rate) ** 2 * wrong * (1 - wrong) / np.maximum(
        bad, 1
    )
    half = Z * np.sqrt(mean * (1 - mean) / n + noise) / np.abs(power)
    return rate - half, rate + half


def lang_reiczigel(mean: Any, n: Any, hits: Any, good: Any, clean: Any, bad: Any) -> Ends:
    """Lang and Reiczigel (2014), with (1 - rate)^2 in equation 4, whose printed sign is a slip."""
    right, wrong, more = (hits + 1) / (good + 2), (clean + 1) / (bad + 2), n + Z * Z
    moved = (n * mean + Z * Z / 2) / more
    power = _power(right, wrong)
    rate = (moved + wrong - 1) / power
    one, other = right * (1 - right) / (good + 2), wrong * (1 - wrong) / (bad + 2)
    shift = 2 * Z * Z * (rate * one - (1 - rate) * other)
    half = Z * np.sqrt(moved * (1 - moved) / more + rate**2 * one + (1 - rate) ** 2 * other) / np.abs(power)
    return rate + shift - half, rate + shift + half


def mover_wilson(mean: Any, n: Any, hits: Any, good: Any, clean: Any, bad: Any) -> Ends:
    """Our construction with Wilson's interval for all three parts."""

    def three(part: Any, whole: Any) -> Three:
        whole = np.maximum(whole, 1e-3)
        return part / whole, *wilson(part / whole, whole)

    _, low, high, _ = rogan_gladen((mean, *wilson(mean, n)), three(hits, good), three(clean, bad))
    return low, high


def posterior(mean: Any, n: Any, hits: Any, good: Any, clean: Any, bad: Any, *, rng: Any) -> Ends:
    """Draws from Jeffreys' posteriors of all three, as Gelman and Carpenter (2020) do with other priors."""
    judged, right, wrong = (_draws(rng, a, b) for a, b in ((mean * n, n), (hits, good), (clean, bad)))
    rates = np.clip((judged + wrong - 1) / _power(right, wrong), 0, 1)
    low, high = np.quantile(rates, [0.025, 0.975], axis=1)
    return low, high


def prediction_powered(labels: Any, judged: Any, rest: Any) -> Ends:
    """PPI++ (Angelopoulos et al. 2023) of a mean, tuned: labels and verdicts (trials, m), verdicts of the rest."""
    m, others = labels.shape[1], rest.shape[1]
    y, f = labels - labels.mean(axis=1, keepdims=True), judged - judged.mean(axis=1, keepdims=True)
    spread = (f**2).sum(axis=1)
    weight = np.where(spread > 0, (y * f).sum(axis=1) / np.where(spread > 0, spread, 1), 0) / (1 + m / others)
    rate = labels.mean(axis=1) + weight * (rest.mean(axis=1) - judged.mean(axis=1))
    residual = ((y - weight[:, None] * f) ** 2).sum(axis=1) / (m - 1)
    half = Z * np.sqrt(residual / m + weight**2 * rest.var(axis=1, ddof=1) / others)
    return rate - half, rate + half


def double_posterior(judged: Any, n: Any, yes: Ends, no: Ends, rng: Any) -> Ends:
    """Jeffreys' posteriors of the judge's rate and of both predictive values; `yes`, `no` are (part, whole)."""
    share, a, b = (_draws(rng, x, w) for x, w in ((judged * n, n), yes, no))
    low, high = np.quantile(share * a + (1 - share) * b, [0.025, 0.975], axis=1)
    return low, high


def _draws(rng: Any, part: Any, whole: Any) -> Any:
    part, whole = np.broadcast_arrays(part, whole)
    return rng.beta(part[:, None] + 0.5, np.maximum(whole - part, 0)[:, None] + 0.5, (len(part), DRAWS))


def _power(right: Any, wrong: Any) -> Any:
    power = right + wrong - 1
    return np.where(np.abs(power) < 1e-6, 1e-6, power)
