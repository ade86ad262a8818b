"""The interval study measures what it says: rivals are the published ones, and worlds are as they are stated."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import intervals, rivals
from benchmarks.intervals import OURS, Cell, World, misses, study
from understudy.evals.calibration import Pair, corrected


@pytest.mark.parametrize(
    ("positive", "n", "right", "n_right", "wrong", "n_wrong", "low", "high", "digits"),
    [
        (4060 / 11284, 11284, 178, 179, 358, 359, 0.349, 0.372, 3),
        (51 / 2971, 2971, 32, 33, 20, 20, 0.0, 0.053, 3),
        (0.06, 11862, 8, 10, 12, 12, 0.0, 0.147, 3),
        (259 / 509, 509, 84, 127, 96, 109, 0.58, 0.87, 2),
        (51 / 509, 509, 23, 41, 187, 195, 0.037, 0.195, 3),
    ],
)
def test_lang_and_reiczigels_examples_come_out(
    positive: float, n: int, right: int, n_right: int, wrong: int, n_wrong: int, low: float, high: float, digits: int
) -> None:
    # The five intervals printed in Lang and Reiczigel 2014, with the shares as printed.
    ends = rivals.lang_reiczigel(*(np.array([float(x)]) for x in (positive, n, right, n_right, wrong, n_wrong)))
    assert [round(float(np.clip(e[0], 0, 1)), digits) for e in ends] == [low, high]


def test_wilsons_interval_is_the_one_of_the_product() -> None:
    from understudy.evals.stats import wilson

    low, high = rivals.wilson(np.array([0.8]), np.array([10.0]))
    assert (float(low[0]), float(high[0])) == (pytest.approx(wilson(8, 10).low), pytest.approx(wilson(8, 10).high))


def test_ppi_without_information_is_the_mean_of_the_labels_and_with_full_information_that_of_the_verdicts() -> None:
    rng = np.random.default_rng(0)
    labels, noise, rest = (rng.random((1, m)) < 0.7 for m in (4_000, 4_000, 40_000))
    low, high = (float(e[0]) for e in rivals.prediction_powered(labels * 1.0, noise * 1.0, rest * 1.0))
    mean = labels.mean()
    assert (low + high) / 2 == pytest.approx(mean, abs=0.002)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(mean * (1 - mean) / 4_000), rel=0.02)
    low, high = (float(e[0]) for e in rivals.prediction_powered(labels * 1.0, labels * 1.0, rest * 1.0))
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.21 / 44_000), rel=0.05)
    low, high = (float(e[0]) for e in rivals.prediction_powered(labels * 1.0, labels * 1.0, rest[:, :4_000] * 1.0))
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.21 / 8_000), rel=0.05)


def test_the_study_corrects_as_the_product_does() -> None:
    cell = Cell(0.8, 90, "0.9 / 0.9", design="separate", labels=100)
    world = World(cell, 3, [2])
    labels, (_, hits, false) = world.slice(), world.answers(world.items())
    low, high, usable = intervals.interval(hits + false, cell, labels, 0.95)
    for i in range(3):
        values = {f"h{k}": float(v) for k, v in enumerate(hits[i] + false[i])}
        right, good, clean, bad = (int(column[i]) for column in labels)
        cells = [(1.0, True)] * right + [(0.0, True)] * (good - right) + [(0.0, False)] * clean
        cells += [(1.0, False)] * (bad - clean)
        found = corrected(values, [Pair(f"l{k}", *c) for k, c in enumerate(cells)], "separate")
        assert usable[i] and (found.low, found.high) == (pytest.approx(low[i]), pytest.approx(high[i]))


def test_the_worlds_have_the_stated_rate_correlation_and_judge() -> None:
    cell = Cell(0.8, 300, "0.8 / 0.95", samples=4)
    world = World(cell, 2_000, [1])
    good, hits, false = world.answers(world.items())
    assert good.mean() / 4 == pytest.approx(0.8, abs=0.003)
    # Beta-binomial: the variance of a sum of K answers is K p (1 - p) (1 + (K - 1) ICC).
    assert good.var() == pytest.approx(4 * 0.16 * (1 + 3 * intervals.ALIKE), rel=0.02)
    assert hits.sum() / good.sum() == pytest.approx(0.8, abs=0.003)
    assert false.sum() / (4 - good).sum() == pytest.approx(0.05, abs=0.003)


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1) as own:
        yield own


def test_two_cells_of_the_study_hold(pool: ProcessPoolExecutor) -> None:
    grid = intervals.grid()
    chosen = [c for c in grid if (c.rate, c.n, c.samples) == (0.8, 90, 4) and c.judge in ("perfect", "0.9 / 0.9")]
    results = study(chosen, 3_000, pool)
    assert misses(results) == []
    # The guards themselves: the same judge at its word covers little, and a plain delta method promotes too much.
    assert results[1]["methods"]["judge at its word"]["coverage"] < 0.6
    for r in results:
        assert r["dev"]["coverage"] >= 0.93 and r["methods"][OURS]["promoted"] <= 0.03


def test_what_misses_is_named(pool: ProcessPoolExecutor) -> None:
    (result,) = study([replace(intervals.grid()[0], n=30)], 500, pool)
    assert misses([result]) == []
    worse = {**result["methods"][OURS], "coverage": 0.91}
    promoted = {**result["promoted"], "low": 0.03}
    dev = {**result["dev"], "coverage": 0.9}
    broken = {**result, "methods": {OURS: worse}, "promoted": promoted, "ratio": 1.4, "dev": dev}
    assert len(misses([broken])) == 4


def test_early_stopping_saves_verdicts_far_from_the_bar_and_none_of_the_stated_error(pool: ProcessPoolExecutor) -> None:
    far, at = study([Cell(rate, 90, "perfect", bar=0.8, rounds=1) for rate in (0.5, 0.8)], 2_000, pool)
    assert far["dev"]["judged"] < 0.6 < 0.95 < at["dev"]["judged"]
    assert at["dev"]["cleared"] <= 0.03


def test_the_loop_ends_with_the_first_round_that_clears(pool: ProcessPoolExecutor) -> None:
    far, at = study([Cell(rate, 90, "perfect", bar=0.7, rounds=3) for rate in (0.99, 0.75)], 500, pool)
    assert far["dev"]["cleared"] == 1.0
    assert 0.1 < at["dev"]["cleared"] < 0.6  # a round that said no at a look stays at no
