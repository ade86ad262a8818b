"""Coverage is a function of stored verdicts, and its interval claims no more than its items allow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from understudy.errors import DataError
from understudy.evals import coverage, exact, looks
from understudy.evals.coverage import answer_covered, item_values, rate
from understudy.evals.stats import Interval


def row(
    item: str, sample: int, verdict: int, grades: tuple[int, int] | None, setting: str = "greedy"
) -> dict[str, Any]:
    given: dict[str, Any] = {"id": item, "setting": setting, "sample": sample, "verdict": verdict}
    return given | (
        {"failed": "JSON"} if grades is None else dict(zip(("similarity", "precision"), grades, strict=True))
    )


# Verdicts


def test_the_means_of_both_grades_must_reach_their_thresholds() -> None:
    assert answer_covered([(60, 90), (80, 90)], 70, 90)
    assert not answer_covered([(60, 90), (79, 90)], 70, 90)
    assert not answer_covered([(90, 60), (90, 79)], 70, 70)
    # Three times 0.1 is more than 0.3 in floats; a mean must not miss a threshold that it equals.
    assert answer_covered([(70.1, 70.1)] * 3, 70.1, 70.1)


def test_an_item_is_worth_the_share_of_its_answers_that_are_covered() -> None:
    rows = [
        row("a", 0, 0, (90, 90)), row("a", 0, 1, (60, 80)),  # means 75 and 85
        row("a", 1, 0, (90, 90)), row("a", 1, 1, (20, 80)),  # 55
        row("b", 0, 0, (70, 70)), row("b", 1, 0, (71, 99)),
    ]  # fmt: skip
    assert item_values(rows, 70, 70) == {"a": 0.5, "b": 1.0}
    assert item_values(rows, 56, 70) == {"a": 0.5, "b": 1.0}
    assert item_values(rows, 55, 70) == {"a": 1.0, "b": 1.0}


def test_a_failed_verdict_is_left_out_and_an_answer_without_any_verdict_is_not_covered() -> None:
    rows = [row("a", 0, 0, None), row("a", 0, 1, (80, 80)), row("b", 0, 0, None), row("b", 0, 1, None)]
    assert item_values(rows, 70, 70) == {"a": 1.0, "b": 0.0}


def test_verdicts_of_several_settings_or_twice_are_refused() -> None:
    with pytest.raises(DataError, match="VERDICTS_SETTINGS"):
        item_values([row("a", 0, 0, (80, 80)), row("a", 0, 0, (80, 80), "t=1")], 70, 70)
    with pytest.raises(DataError, match="VERDICTS_TWICE"):
        item_values([row("a", 0, 0, (80, 80)), row("a", 0, 0, (10, 80))], 70, 70)


# Exact quantiles


def test_clopper_pearson_and_jeffreys_have_the_published_values() -> None:
    # Agresti and Coull 1998: 0 of 10 and the closed forms for none and all.
    low, high = exact.clopper_pearson([0, 10, 5], [10, 10, 10])
    assert low[0] == 0 and high[0] == pytest.approx(1 - 0.025 ** (1 / 10), abs=1e-10)
    assert high[1] == 1 and low[1] == pytest.approx(0.025 ** (1 / 10), abs=1e-10)
    assert (low[2], high[2]) == (pytest.approx(0.187086, abs=1e-6), pytest.approx(0.812914, abs=1e-6))
    # Brown, Cai, DasGupta 2001, table 5, Jeffreys at n = 7: the interval of 2 is 0.065 to 0.648.
    low, high = exact.jeffreys([2, 0], [7, 7])
    assert (round(float(low[0]), 3), round(float(high[0]), 3)) == (0.065, 0.648)
    assert low[1] == 0


def test_clopper_pearson_inverts_the_binomial_tails() -> None:
    from math import comb

    n, x = 43, 31
    low, high = (float(end[0]) for end in exact.clopper_pearson(x, n, 0.9))

    def at_least(k: int, p: float) -> float:
        return sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))

    assert at_least(x, low) == pytest.approx(0.05, abs=1e-9)
    assert 1 - at_least(x + 1, high) == pytest.approx(0.05, abs=1e-9)


@pytest.mark.parametrize(("df", "t"), [(1, 12.7062), (4, 2.7764), (29, 2.0452), (120, 1.9799)])
def test_students_quantiles_are_those_of_the_tables(df: int, t: float) -> None:
    assert exact.student(0.95, df) == pytest.approx(t, abs=1e-4)


def test_quantiles_of_extreme_shapes_end_inside_and_in_order() -> None:
    a, b = np.meshgrid([0.05, 0.5, 3.0, 400.0, 50_000.0], [0.05, 0.5, 3.0, 400.0, 50_000.0])
    found = [exact.beta_quantile(p, a, b) for p in (1e-6, 0.025, 0.5, 0.975, 1 - 1e-6)]
    assert all(np.isfinite(f).all() for f in found)
    assert all((f <= g).all() for f, g in zip(found, found[1:], strict=False))


# The rate


def test_with_one_answer_per_item_the_interval_is_exact_for_any_bar() -> None:
    # The chance of a lower end at or above the true rate, summed over all outcomes: never above the stated 2.5 %.
    from math import comb

    for n in (5, 20, 37, 120):
        ends = [rate([1.0] * k + [0.0] * (n - k)) for k in range(n + 1)]
        for true in (0.03, 0.2, 0.5, 0.8, 0.95, 0.99):
            chance = [comb(n, k) * true**k * (1 - true) ** (n - k) for k in range(n + 1)]
            assert sum(c for c, e in zip(chance, ends, strict=True) if e.low >= true) <= 0.025 + 1e-12
            assert sum(c for c, e in zip(chance, ends, strict=True) if e.high <= true) <= 0.025 + 1e-12


shares = st.lists(st.integers(0, 4).map(lambda k: k / 4), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(shares)
@example([1.0] * 300 + [0.75])
@example([0.75])
def test_no_sample_claims_more_than_a_perfect_one(values: list[float]) -> None:
    found, perfect = rate(values, samples=4), rate([1.0] * len(values), samples=4)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low <= perfect.low + 1e-12
    assert found.high >= 1 - perfect.low - 1e-12


@settings(max_examples=60, deadline=None, derandomize=True)
@given(shares)
def test_counting_answers_as_one_is_never_narrower_and_covered_mirrors_not_covered(values: list[float]) -> None:
    several, one = rate(values, samples=4), rate(values)
    assert one.low <= several.low + 1e-9 and several.high <= one.high + 1e-9
    mirrored = rate([1 - v for v in values], samples=4)
    assert (mirrored.low, mirrored.high) == (pytest.approx(1 - several.high), pytest.approx(1 - several.low))


def test_samples_that_differ_within_an_item_narrow_the_interval_up_to_their_number() -> None:
    mixed, alike = [0.25, 0.75] * 50, [0.0, 1.0] * 50
    independent = rate([1.0] * 200 + [0.0] * 200)
    several = rate(mixed, samples=4)
    assert several.high - several.low < 0.75 * (rate(mixed).high - rate(mixed).low)
    assert several.low < independent.low
    assert rate(alike, samples=4) == rate(alike)


def test_one_item_two_items_and_items_all_alike_prove_little() -> None:
    assert rate([1.0], samples=4).low == pytest.approx(0.025)
    assert rate([0.5, 0.5], samples=4).low < 0.1
    assert rate([0.5] * 30, samples=4).low < 0.41  # 120 independent answers would end at 0.41


def test_values_outside_the_unit_range_and_no_values_are_refused() -> None:
    with pytest.raises(DataError, match="RATE_RANGE"):
        rate([0.2, 1.5])
    with pytest.raises(DataError, match="RATE_RANGE"):
        rate([float("nan")])
    with pytest.raises(DataError, match="STATS_EMPTY"):
        rate({})


def test_the_order_of_items_does_not_change_the_interval() -> None:
    values = {str(i): (i % 5) / 4 for i in range(41)}
    assert rate(values, samples=4) == rate(dict(reversed(values.items())), samples=4)


# Looks


def test_the_boundary_has_the_published_values(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looks.boundary([1.0], 0.025) == [pytest.approx(1.95996, abs=1e-4)]
    # Jennison and Turnbull 2000, power family with rho = 2 ends near 2.06 and 2.09 for three and four looks.
    assert looks.boundary([1 / 3, 2 / 3, 1], 0.025)[-1] == pytest.approx(2.06, abs=0.005)
    # The first look spends its share alone: 1/9 of the error.
    assert looks.boundary([1 / 3, 2 / 3, 1], 0.025)[0] == pytest.approx(2.7729, abs=1e-3)


@pytest.mark.parametrize("planned", [[30, 60, 90], [7, 50, 51, 90]])
def test_a_fair_process_crosses_the_boundary_as_often_as_allowed(planned: list[int]) -> None:
    shares = [n / planned[-1] for n in planned]
    z = np.array(looks.boundary(shares, 0.025))
    steps = np.random.default_rng(1).normal(size=(400_000, len(z))) * np.sqrt(np.diff([0.0, *shares]))
    crossed = (steps.cumsum(axis=1) / np.sqrt(shares) > z).any(axis=1).mean()
    assert crossed == pytest.approx(0.025, abs=0.001)


def test_looks_are_planned_in_even_parts_and_fewer_of_them_for_few_items() -> None:
    assert looks.plan(90) == [30, 60, 90]
    assert looks.plan(100) == [34, 67, 100]
    assert looks.plan(25) == [13, 25]
    assert looks.plan(9) == [9]


def test_earlier_looks_ask_for_more_and_one_look_asks_for_what_was_stated() -> None:
    first, second, last = looks.confidences([30, 60, 90], 0.95)
    assert first > second > last > 0.95
    assert looks.confidences([90], 0.9) == [pytest.approx(0.9, abs=1e-4)]


def test_a_look_clears_or_cannot_or_goes_on() -> None:
    assert looks.outcome(Interval(0.9, 0.8, 0.95, 30), 0.8) == "clears"
    assert looks.outcome(Interval(0.5, 0.3, 0.79, 30), 0.8) == "cannot"
    assert looks.outcome(Interval(0.5, 0.3, 0.8, 30), 0.8) is None
    assert looks.outcome(Interval(0.9, 0.79, 0.95, 30), 0.8) is None


def test_stopping_at_looks_keeps_the_stated_error_for_a_rate_at_the_bar() -> None:
    planned, bar, trials = looks.plan(90), 0.8, 20_000
    level = dict(zip(planned, looks.confidences(planned), strict=True))
    clears = {
        (n, k): coverage.rate([1.0] * k + [0.0] * (n - k), level[n]).low >= bar for n in planned for k in range(n + 1)
    }
    draws = (np.random.default_rng(2).random((trials, 90)) < bar).cumsum(axis=1)
    ever = np.zeros(trials, bool)
    for n in planned:
        ever |= np.array([clears[n, int(k)] for k in draws[:, n - 1]])
    assert 0.005 < ever.mean() <= 0.025
