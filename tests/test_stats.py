"""Intervals cover the truth as often as they say, and degenerate samples claim no more than they can."""

from __future__ import annotations

import math

import numpy as np
import pytest

from understudy.errors import DataError
from understudy.evals import stats
from understudy.evals.stats import Interval, mcnemar, mean_interval, paired_difference, wilson


def test_a_ratio_of_rates_covers_the_true_one_and_says_when_it_cannot_tell() -> None:
    import numpy as np

    rng, hits, loops = np.random.default_rng(3), 0, 1500
    for _ in range(loops):
        easy = rng.random(80)  # what is easy for one is easy for the other
        a = {str(i): float(u < 0.63) for i, u in enumerate(easy)}
        b = {str(i): float(u < 0.9 + rng.normal() * 0.05) for i, u in enumerate(easy)}
        found = stats.paired_ratio(a, b)
        assert found
        hits += found.low <= 0.7 <= found.high
    assert 0.93 <= hits / loops <= 0.985
    assert stats.paired_ratio({"a": 1.0}, {"a": 0.0}) is None
    unsure = stats.paired_ratio({"a": 1.0, "b": 0.0}, {"a": 1.0, "b": 0.0})
    assert unsure and unsure.high == float("inf")


def test_wilson_has_the_textbook_values() -> None:
    # Brown, Cai, DasGupta (2001): the closed form, worked by hand for 8 of 10 and 0 of 10.
    assert wilson(8, 10).to_json() == {"value": 0.8, "low": 0.490162, "high": 0.943318, "n": 10}
    none = wilson(0, 10)
    assert none.low == 0.0 and none.high == pytest.approx(0.277533, abs=1e-6)
    every = wilson(10, 10)
    assert every.high == 1.0 and every.low == pytest.approx(1 - 0.277533, abs=1e-6)


def test_a_higher_confidence_is_wider() -> None:
    values = [0.1, 0.4, 0.35, 0.8, 0.9, 0.2]
    for interval in (lambda c: wilson(3, 6, c), lambda c: mean_interval(values, c)):
        narrow, wide = interval(0.8), interval(0.99)
        assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


@pytest.mark.parametrize("rate", [0.5, 0.8])
def test_wilson_covers_the_true_rate(rate: float) -> None:
    n = 120
    draws = np.random.default_rng(1).binomial(n, rate, size=4000)
    inside = {k: (i := wilson(k, n)).low <= rate <= i.high for k in range(n + 1)}
    assert np.mean([inside[int(k)] for k in draws]) >= 0.93


def test_the_bootstrap_covers_the_true_mean_and_the_true_paired_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    # 1,000 resamples in the simulation for speed; the products' 10,000 only take noise out of the ends.
    monkeypatch.setattr(stats, "RESAMPLES", 1000)
    rng = np.random.default_rng(2)
    trials, n, means, differences = 500, 120, 0, 0
    for _ in range(trials):
        shared = rng.random(n)
        a = (shared + 0.5 * rng.random(n) < 0.95).astype(float)  # P = 0.70
        b = (shared + 0.5 * rng.random(n) < 0.75).astype(float)  # P = 0.50
        interval = paired_difference(dict(enumerate_ids(a)), dict(enumerate_ids(b)))
        differences += interval.low <= 0.2 <= interval.high
        skewed = rng.gamma(2.0, 1.0, n)
        interval = mean_interval(skewed.tolist())
        means += interval.low <= 2.0 <= interval.high
    assert differences / trials >= 0.93
    assert means / trials >= 0.93 - 0.01  # a skewed mean at n = 120: the percentile bootstrap gives some of it away


def enumerate_ids(values: np.ndarray) -> list[tuple[str, float]]:
    return [(f"i{k}", float(v)) for k, v in enumerate(values)]


def test_pairing_is_by_item_not_by_order() -> None:
    a = {"x": 1.0, "y": 0.0, "z": 1.0}
    b = {"z": 1.0, "y": 0.0, "x": 0.0}
    assert paired_difference(a, b).value == pytest.approx(1 / 3)
    assert paired_difference(a, dict(reversed(b.items()))) == paired_difference(a, b)


def test_equal_difficulty_narrows_a_paired_interval() -> None:
    rng = np.random.default_rng(3)
    hard = rng.random(100)
    a, b = dict(enumerate_ids(hard * 0.9 + 0.05 + 0.05 * rng.random(100))), dict(enumerate_ids(hard * 0.9 + 0.05))
    shuffled = dict(enumerate_ids(rng.permutation(hard * 0.9 + 0.05)))
    paired, apart = paired_difference(a, b), paired_difference(a, shuffled)
    assert paired.low > 0 and apart.low < 0


def test_items_of_one_side_only_are_refused() -> None:
    with pytest.raises(DataError, match="STATS_UNPAIRED"):
        paired_difference({"x": 1.0}, {"y": 1.0})


@pytest.mark.parametrize("empty", [lambda: wilson(0, 0), lambda: mean_interval([]), lambda: paired_difference({}, {})])
def test_no_items_is_an_error(empty: object) -> None:
    with pytest.raises(DataError, match="STATS_EMPTY"):
        empty()  # type: ignore[operator]


def test_one_item_proves_nothing() -> None:
    assert mean_interval([0.7]).low < 0.1 and mean_interval([0.7]).high > 0.99
    difference = paired_difference({"x": 1.0}, {"x": 0.0})
    assert difference.value == 1.0 and difference.low < 0
    assert mean_interval([7.0]) == Interval(7.0, 7.0, 7.0, 1)


def test_differences_without_spread_keep_room_for_what_was_not_drawn() -> None:
    def ahead(n: int) -> Interval:
        return paired_difference({str(i): 1.0 for i in range(n)}, {str(i): 0.0 for i in range(n)})

    assert ahead(3).low < 0 < ahead(60).low < 1.0
    same = {str(i): 1.0 for i in range(60)}
    equal = paired_difference(same, same)
    assert equal.value == 0 and equal.low < 0 < equal.high and equal.high < 0.1


def test_intervals_are_the_same_in_every_run() -> None:
    values = np.random.default_rng(4).random(50).tolist()
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values).to_json()["n"] == 50


def test_large_samples_do_not_need_large_memory() -> None:
    interval = mean_interval(np.random.default_rng(5).random(5_000).tolist(), 0.9)
    assert interval.low == pytest.approx(interval.value - 1.645 * 0.2887 / math.sqrt(5_000), abs=6e-4)


def test_mcnemar_has_the_binomial_values() -> None:
    a = {str(i): float(i < 9) for i in range(20)}
    b = {str(i): float(9 <= i < 10) for i in range(20)}
    assert mcnemar(a, b) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(a, a) == 1.0
