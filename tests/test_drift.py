"""Drift of queries: nearest distances that mean something, and a check that keeps its stated false-alarm rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from understudy.core.records import Example
from understudy.errors import DataError
from understudy.evals.stats import wilson
from understudy.monitor.drift import Index, check, query_of, reference, savage

SUBJECTS = ["parcel", "invoice", "ticket", "licence", "account", "garden", "engine", "harbour", "teacher", "kitchen"]
ASKS = ["Where is the {} of {}?", "When does the {} of {} end?", "Who signed the {} of {}?", "How much is {} for {}?"]
NAMES = ["Ann", "Boris", "Chloé", "Dmitri", "Eve", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kira", "Лев"]


def prompts(n: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [str(rng.choice(ASKS)).format(rng.choice(SUBJECTS), rng.choice(NAMES)) + f" Case {i}" for i in range(n)]


def examples(questions: Sequence[str], group: str = "") -> list[Example]:
    """One example per question; with `group`, four share one."""
    return [
        Example(f"{group}{i}", [{"role": "user", "content": q}], {"group": f"{group}{i // 4}"} if group else {})
        for i, q in enumerate(questions)
    ]


def test_distance_is_zero_to_itself_small_to_a_neighbour_and_one_to_a_stranger() -> None:
    index = Index(prompts(60))
    same, near = prompts(60)[7], prompts(60)[7].replace("Case", "case no.")
    far, strange = "Bake the cake at 200 degrees", "квазар излучает"
    assert index.distance(same) == pytest.approx(0.0, abs=1e-6)
    assert 0 < index.distance(near) < index.distance(far) < 1
    assert index.distance(strange) == index.distance("") == index.distance("?!") == 1.0
    assert index.distance(same.upper()) == pytest.approx(0.0, abs=1e-6)


def test_distance_is_to_the_nearest_and_equals_one_minus_the_cosine() -> None:
    # Two prompts without a common feature: by hand, the vectors are units, and each feature of "ab" has weight 1/sqrt2.
    index = Index(["ab", "cd"])
    idf, unseen = 1 + math.log(3 / 2), 1 + math.log(3)
    # "ab x" has "=ab" and " ab " as the first prompt has, and "=x" and " x " unseen.
    cosine = 2 * idf * (1 / math.sqrt(2)) / math.sqrt(2 * idf**2 + 2 * unseen**2)
    assert index.distance("ab x") == pytest.approx(1 - cosine, abs=1e-6)


def test_the_question_is_compared_and_not_its_context() -> None:
    assert query_of("A long text.\n\nQuestion: What is it?") == "What is it?"
    assert query_of("What is it?") == "What is it?"


def test_savage_scores_are_exponential_order_statistics_and_ties_share() -> None:
    assert savage(np.array([3.0, 1.0, 2.0])) == pytest.approx([1 / 3 + 1 / 2 + 1, 1 / 3, 1 / 3 + 1 / 2])
    assert savage(np.array([1.0, 1.0])) == pytest.approx([1.0, 1.0])


def test_without_unseen_prompts_whole_groups_leave_the_index() -> None:
    train = examples(prompts(200), "g")
    built = reference(train, {"coverage dev": examples(prompts(5, 1))})
    assert built.index.size + len(built.calibration) == 200 and len(built.calibration) in range(40, 61)
    assert "taken out" in built.source
    preferred = reference(train, {"coverage dev": examples(prompts(30, 1)), "validation": examples(prompts(90, 2))})
    assert (preferred.source, len(preferred.calibration), preferred.index.size) == ("coverage dev", 30, 200)
    assert preferred.id != built.id
    assert reference(list(reversed(train)), {"coverage dev": []}).id == built.id, "the order of rows says nothing"


def test_too_few_prompts_are_refused_with_their_counts() -> None:
    with pytest.raises(DataError, match="DRIFT_FEW"):
        reference(examples(prompts(30)), {"validation": examples(prompts(3))})


def test_false_alarms_stay_at_the_stated_rate_with_ties_and_small_samples() -> None:
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(120):
        drawn = np.round(rng.beta(2, 5, 90), 2)  # ties, as rounded distances have
        alarms += check(drawn[:60].tolist(), drawn[60:].tolist(), 0.05).alarm
    assert wilson(alarms, 120, 0.999).low <= 0.05, f"{alarms} of 120"


def test_a_new_topic_in_a_quarter_of_the_queries_is_found_and_nearer_ones_never_alarm() -> None:
    rng = np.random.default_rng(3)
    usual, calibration = rng.beta(2, 5, 75).tolist(), rng.beta(2, 5, 60).tolist()
    changed = check(usual + [0.95] * 25, calibration, 0.01)
    assert changed.alarm and changed.far["value"] > 0.2
    nearer = check([0.0] * 100, calibration, 0.01)
    assert not nearer.alarm and nearer.p_value > 0.9


def test_the_same_check_gives_the_same_p_value() -> None:
    first = check([0.1, 0.5, 0.9] * 20, [0.2, 0.4] * 20, 0.01)
    assert first == check([0.1, 0.5, 0.9] * 20, [0.2, 0.4] * 20, 0.01)
