"""People's labels say how the judge errs; the corrected rate finds the truth and refuses what labels cannot tell."""

from __future__ import annotations

import pytest

from understudy.errors import DataError
from understudy.evals import calibration, coverage
from understudy.evals.calibration import Pair, corrected, table


def pairs(both: int, judge_only: int, person_only: int, neither: int, prefix: str = "l") -> list[Pair]:
    cells = [(1.0, True)] * both + [(1.0, False)] * judge_only + [(0.0, True)] * person_only + [(0.0, False)] * neither
    return [Pair(f"{prefix}{i}", judge, person) for i, (judge, person) in enumerate(cells)]


def judged(yes: int, n: int) -> dict[str, float]:
    return {f"h{i}": float(i < yes) for i in range(n)}


def test_sensitivity_and_specificity_are_shares_of_what_people_say() -> None:
    of = table(pairs(72, 6, 8, 14))
    found = calibration.sensitivity(of), calibration.specificity(of)
    assert [(f.value, f.n) for f in found] == [(0.9, 80), (0.7, 20)]
    # Jeffreys at 72 of 80, from the quantiles of Beta(72.5, 8.5).
    assert (found[0].low, found[0].high) == (pytest.approx(0.8198, abs=1e-3), pytest.approx(0.9518, abs=1e-3))


def test_several_labelled_answers_of_an_item_count_as_one_item() -> None:
    many = [Pair("a", 1.0, True)] * 30 + [Pair("b", 0.0, True), Pair("c", 0.0, False)]
    of = table(many)
    assert of.items == 3 and calibration.sensitivity(of).value == pytest.approx(0.5)


def test_kappa_has_the_textbook_value() -> None:
    # Two readers of 50 proposals: 20 yes-yes, 15 no-no, 5 and 10 apart; observed 0.7, expected 0.5, so 0.4.
    found = calibration.kappa(pairs(20, 5, 10, 15))
    assert found is not None and found.value == pytest.approx(0.4)
    # The asymptotic interval (Fleiss, Cohen, Everitt 1969) is 0.4 +- 1.96 * 0.127.
    assert (found.low, found.high) == (pytest.approx(0.15, abs=0.04), pytest.approx(0.65, abs=0.04))


def test_answers_that_are_copies_of_one_another_make_agreement_no_surer() -> None:
    once = pairs(20, 5, 10, 15)
    found, copied = calibration.kappa(once), calibration.kappa([p for p in once for _ in range(5)])
    assert found is not None and copied == found


def test_full_agreement_of_few_answers_leaves_room_for_what_was_not_drawn() -> None:
    few, many = calibration.kappa(pairs(5, 0, 0, 5)), calibration.kappa(pairs(150, 0, 0, 150))
    assert few is not None and many is not None
    assert few.value == many.value == 1.0
    assert few.low < 0.5 < 0.97 < many.low < 1.0
    assert calibration.kappa(pairs(7, 0, 0, 0)) is None


def test_grades_are_compared_by_rank_where_people_gave_them() -> None:
    given = [Pair(str(i), 1.0, True, (float(i), 50.0), (i**2 / 10, None)) for i in range(12)]
    found = calibration.spearman(given, 0)
    assert found is not None and found.value == pytest.approx(1.0)
    assert calibration.spearman(given, 1) is None


def test_a_report_says_none_for_what_labels_of_one_kind_cannot_tell() -> None:
    found = calibration.report(pairs(30, 0, 5, 0))
    assert found["specificity"] is None and found["sensitivity"]["n"] == 35


# Correcting


def test_the_corrected_rate_is_rogan_and_gladens() -> None:
    # Judged 0.6, sensitivity 0.9, specificity 0.8: (0.6 + 0.8 - 1) / (0.9 + 0.8 - 1) = 4 / 7.
    found = corrected(judged(180, 300), pairs(90, 20, 10, 80), "separate")
    assert found.value == pytest.approx(4 / 7) and found.low < 4 / 7 < found.high


@pytest.mark.parametrize(
    ("positive", "n", "right", "n_right", "wrong", "n_wrong", "low", "high"),
    [
        (4060, 11284, 178, 179, 358, 359, 0.349, 0.372),
        (259, 509, 84, 127, 96, 109, 0.58, 0.87),
        (51, 509, 23, 41, 187, 195, 0.037, 0.195),
    ],
)
def test_intervals_lie_near_those_of_lang_and_reiczigels_examples(
    positive: int, n: int, right: int, n_right: int, wrong: int, n_wrong: int, low: float, high: float
) -> None:
    # Lang and Reiczigel 2014, examples 1 and 4. Another construction for the same three samples.
    found = corrected(judged(positive, n), pairs(right, n_wrong - wrong, n_right - right, wrong), "separate")
    assert (found.low, found.high) == (pytest.approx(low, abs=0.03), pytest.approx(high, abs=0.03))


def test_labels_on_the_judged_answers_give_the_double_sampling_estimate() -> None:
    values = judged(200, 300)
    sample = [Pair(f"h{i}", 1.0, i % 10 != 0) for i in range(100)] + [
        Pair(f"h{i}", 0.0, i % 5 == 0) for i in range(200, 250)
    ]
    # Tenenbein 1970: 2/3 * 0.9 + 1/3 * 0.2.
    found = corrected(values, sample, "same")
    assert found.value == pytest.approx(2 / 3 * 0.9 + 1 / 3 * 0.2)
    alone = coverage.rate({p.item: float(p.person) for p in sample})
    assert found.high - found.low < alone.high - alone.low


def test_labels_on_every_item_do_not_hide_that_the_items_are_a_sample() -> None:
    # A judge that people agree with on all 200 items: what is left is the chance of these items.
    values = judged(150, 200)
    found, plain = corrected(values, [Pair(k, v, v == 1.0) for k, v in values.items()], "same"), coverage.rate(values)
    assert found.value == plain.value and found.low < plain.low + 1e-9 and found.high > plain.high - 1e-9


def test_a_judge_that_is_always_right_costs_a_little_width_and_moves_nothing() -> None:
    plain = coverage.rate(judged(240, 300))
    found = corrected(judged(240, 300), pairs(200, 0, 0, 50), "separate")
    assert found.value == plain.value and found.low < plain.low < plain.high < found.high


def test_a_judge_no_better_than_guessing_is_refused() -> None:
    for cells in ((50, 50, 50, 50), (40, 60, 60, 40), (4, 1, 1, 2)):
        with pytest.raises(DataError, match="JUDGE_UNINFORMATIVE"):
            corrected(judged(20, 30), pairs(*cells), "separate")


def test_labels_of_one_kind_only_are_refused_for_other_answers() -> None:
    with pytest.raises(DataError, match="LABELS_ONE_SIDED"):
        corrected(judged(20, 30), pairs(40, 0, 3, 0), "separate")
    with pytest.raises(DataError, match="LABELS_EMPTY"):
        corrected(judged(20, 30), [], "separate")


def test_labels_that_do_not_fit_the_design_are_refused() -> None:
    inside, outside = pairs(5, 1, 1, 5, "h"), pairs(50, 1, 1, 50)
    with pytest.raises(DataError, match="LABELS_DESIGN"):
        corrected(judged(20, 30), outside, "same")
    with pytest.raises(DataError, match="LABELS_DESIGN"):
        corrected(judged(20, 30), inside, "separate")
    with pytest.raises(DataError, match="LABELS_DESIGN"):
        corrected(judged(20, 30), inside + outside, "same")


def test_labels_of_one_verdict_only_leave_the_other_open() -> None:
    sample = [Pair(f"h{i}", 1.0, True) for i in range(60)]
    found = corrected(judged(200, 300), sample, "same")
    # Nobody looked at the third that the judge refused: it may be all bad or all good.
    assert found.low < 0.67 and found.high > 0.95


# Two judges


def test_two_judges_are_compared_on_the_same_answers() -> None:
    strict = {(f"h{i // 2}", i % 2): i < 150 for i in range(200)}
    mild = {k: i < 190 for i, k in enumerate(strict)}
    found = calibration.compare(strict, mild, bar=0.8, samples=2)
    assert found["difference"]["value"] == pytest.approx(-0.2) and found["difference"]["high"] < 0
    assert found["clears"] == [False, True] and found["flips"]
    # Observed 0.8, expected 0.75 * 0.95 + 0.25 * 0.05 = 0.725.
    assert found["kappa"]["value"] == pytest.approx(1 - 0.2 / 0.275, abs=1e-6)
    assert not calibration.compare(mild, mild, bar=0.8)["flips"]
    with pytest.raises(DataError, match="STATS_UNPAIRED"):
        calibration.compare(strict, {("h0", 0): True}, bar=0.8)
