"""Permutation tests, their correction and agreement: against lists of all cases, published values and sums by hand."""

from __future__ import annotations

import itertools
import random

import pytest

from understudy.evals import permutation, stats
from understudy.evals.agreement import agreement, spearman, weighted_kappa


def all_flips(differences: list[float]) -> float:
    observed = abs(sum(differences))
    patterns = list(itertools.product((1, -1), repeat=len(differences)))
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in patterns]
    return sum(s >= observed - 1e-9 for s in sums) / len(patterns)


@pytest.mark.parametrize(
    "differences", [[1.0, 1.0, 1.0, 1.0, 1.0], [0.5, -0.25, 1.0, 0.75], [2.0, -2.0, 1.0], [0.3, 0.1, -0.2, 0.0, 0.4]]
)
def test_sign_flip_equals_the_list_of_all_patterns(differences: list[float]) -> None:
    assert permutation.sign_flip(differences) == pytest.approx(all_flips(differences), abs=1e-12)


def test_sign_flip_of_fishers_darwin_data_gives_his_p() -> None:
    """Fisher 1935, section 21: of 32,768 patterns of 15 differences 1,726 are as extreme; p = 0.0527."""
    darwin = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert permutation.sign_flip([float(d) for d in darwin], resamples=200_000) == pytest.approx(
        1726 / 32768, abs=0.002
    )


def test_sampled_p_is_never_zero_and_equals_the_exact_one_within_its_error() -> None:
    rng = random.Random(1)
    many = [rng.gauss(0.3, 1) for _ in range(16)]
    assert permutation.sign_flip(many) == pytest.approx(all_flips(many), abs=0.01)
    assert permutation.sign_flip([1.0] * 40) == 1 / 20_001


def test_no_difference_at_all_is_no_evidence() -> None:
    assert permutation.sign_flip([0.0] * 30) == permutation.sign_flip([]) == 1.0


def test_false_alarms_of_one_test_stay_at_alpha() -> None:
    """500 samples without a difference, of coarse scores with many ties: 5 % of p-values under 0.05, less for ties."""
    rng = random.Random(2)
    ps = [permutation.sign_flip([float(rng.randint(-2, 2)) for _ in range(12)]) for _ in range(500)]
    assert 0.02 <= sum(p < 0.05 for p in ps) / 500 <= 0.07


def test_holm_steps_down_as_in_the_textbook() -> None:
    assert permutation.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert permutation.holm([]) == [] and permutation.holm([0.9, 0.8]) == [1.0, 1.0]


def test_a_design_with_too_few_units_can_flag_nothing() -> None:
    assert permutation.least_p(4) == permutation.sign_flip([1.0] * 4) == 2 / 16
    assert not permutation.detectable(units=8, tests=9, alpha=0.05)
    assert permutation.detectable(units=9, tests=9, alpha=0.05)


def test_the_label_that_stands_out_is_found_and_no_other() -> None:
    rng = random.Random(3)
    values = {
        b: [(f"e{i}", rng.gauss(0, 0.5) + (1.5 if i == 4 else 0)) for i in range(12) for _ in range(2)] for b in "xyz"
    }
    found = permutation.labels(values)
    assert found["e4"][0] > 1 and [name for name, (_, _, p) in found.items() if p < 0.05] == ["e4"]


def test_exchangeable_labels_are_flagged_in_alpha_of_the_cases() -> None:
    alarms = 0
    for seed in range(100):
        rng = random.Random(seed)
        values = {b: [(f"e{i}", rng.gauss(0, 1)) for i in range(6) for _ in range(2)] for b in "xy"}
        alarms += any(p < 0.05 for _, _, p in permutation.labels(values, resamples=200).values())
    assert alarms <= 11  # 5 % of 100, and three standard deviations


def test_spearman_and_kappa_equal_sums_by_hand() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 40, 30]) == pytest.approx(0.8)
    assert spearman([1, 2, 2, 3], [1, 2, 2, 3]) == pytest.approx(1.0)
    assert spearman([1, 1, 1], [1, 2, 3]) is None
    # Observed mean squared distance (0+1+0+1)/4 = 0.5; expected over all pairs of margins {1,2,3,4} x {1,3,3,3}: 2.
    assert weighted_kappa([1, 2, 3, 4], [1, 3, 3, 3]) == pytest.approx(1 - 0.5 / 2.0)
    assert weighted_kappa([3, 3], [3, 3]) is None


def test_agreement_compares_the_raters_mean_with_the_machine_and_raters_with_each_other() -> None:
    machine = {f"a{i}": float(1 + i % 5) for i in range(30)}
    good = dict(machine)
    found = agreement({"ann": good, "bob": {a: 6 - v for a, v in machine.items()}}, machine, 0.95)
    assert found["answers"] == 30 and found["pairs"][0]["weighted_kappa"]["value"] == pytest.approx(-1.0)
    alone = agreement({"ann": good}, machine, 0.95)["machine"]
    assert alone["spearman"]["value"] == alone["weighted_kappa"]["value"] == pytest.approx(1.0)


def test_equal_differences_leave_room_for_others() -> None:
    found = stats.mean_difference([0.0] * 20, reach=4.0)
    assert found.value == 0 and -1 < found.low < 0 < found.high < 1
