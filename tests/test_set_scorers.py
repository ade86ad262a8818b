"""Diversity and distinct-n over sets of answers: sums by hand, no pair with itself, no drift with the set's size."""

from __future__ import annotations

import random
from pathlib import Path
from statistics import stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.config import ScoreConfig
from understudy.core.records import Example, read_jsonl, write_jsonl
from understudy.errors import ConfigError
from understudy.evals import scorers
from understudy.evals.score import interval, load_summary, load_values, score
from understudy.evals.scorers.variety import distinct, diversity

VOCABULARY = [
    f"{a}{b}k" for a in ("mor", "tal", "vin", "sor", "lub") for b in ("a", "e", "i", "o", "u", "an", "en", "in")
]


def items(*answers: str) -> list[tuple[Example, str]]:
    return [(Example(f"e{i}", [{"role": "user", "content": f"Say {i}"}], {}), a) for i, a in enumerate(answers)]


def mean(scored: list[scorers.Score | None]) -> float:
    values = [s.value for s in scored if s]
    return sum(values) / len(values)


def test_diversity_of_equal_and_of_disjoint_answers() -> None:
    assert [s.value for s in diversity(items("big dog", "big dog", "big dog")) if s] == pytest.approx(
        [0, 0, 0], abs=1e-12
    )
    assert [s.value for s in diversity(items("big dog", "small cat")) if s] == [1, 1]


def test_diversity_by_hand_compares_each_with_the_others_only() -> None:
    # cosine(dog cat, dog) = 1/sqrt(2), cosine(dog cat, fish) = 0, cosine(dog, fish) = 0
    found = [s.value for s in diversity(items("dog cat", "dog", "fish")) if s]
    assert found == pytest.approx([1 - 0.70711 / 2, 1 - 0.70711 / 2, 1], abs=1e-4)


def test_an_empty_answer_is_not_diverse_and_does_not_make_the_others_so() -> None:
    with_empty = diversity(items("dog cat", "dog", ""))
    assert with_empty[2] and with_empty[2].value == 0
    assert [s.value for s in with_empty[:2] if s] == [s.value for s in diversity(items("dog cat", "dog")) if s]


def test_one_answer_has_no_diversity() -> None:
    assert diversity(items("dog")) == [None] and diversity(items("dog", "")) == [None, None]


def test_diversity_does_not_drift_with_the_number_of_answers() -> None:
    """Pairs of an answer with itself would take 1/n off: a tenth for ten answers, a hundredth for a hundred."""
    draw = random.Random(0)
    texts = [" ".join(draw.choices(VOCABULARY, k=12)) for _ in range(2000)]
    small = [mean(diversity(items(*texts[i : i + 10]))) for i in range(0, 2000, 10)]
    assert sum(small) / len(small) == pytest.approx(mean(diversity(items(*texts))), abs=0.005)


def test_the_interval_of_diversity_is_as_wide_as_it_varies() -> None:
    """Items share pairs: without the stretch by the statistic's degree the interval would be half as wide."""
    draw = random.Random(1)

    def one_set() -> dict[str, float]:
        texts = (" ".join(draw.choices(VOCABULARY[: draw.choice([4, 40])], k=8)) for _ in range(100))
        return {str(i): s.value for i, s in enumerate(diversity(items(*texts))) if s}

    drawn = [interval("diversity", one_set(), 0.95) for _ in range(60)]
    varies = stdev(d.value for d in drawn)
    claimed = sum(d.high - d.low for d in drawn) / len(drawn) / 3.92
    assert 0.75 < claimed / varies < 1.25, (claimed, varies)


def test_distinct_is_the_textbooks_quotient() -> None:
    answers = ["the cat the dog", "the cat", "a bird sings"]
    words = [a.split() for a in answers]
    one = [w for found in words for w in found]
    two = [pair for found in words for pair in zip(found, found[1:], strict=False)]
    assert mean(distinct(items(*answers), 1)) == pytest.approx(len(set(one)) / len(one))
    assert mean(distinct(items(*answers), 2)) == pytest.approx(len(set(two)) / len(two))
    assert distinct(items("one", "two"), 2) == [None, None]


@given(st.lists(st.lists(st.sampled_from(VOCABULARY[:6]), max_size=6), min_size=2, max_size=8), st.randoms())
def test_the_order_of_answers_does_not_matter(words: list[list[str]], draw: random.Random) -> None:
    answers = [" ".join(w) for w in words]
    order = list(range(len(answers)))
    draw.shuffle(order)
    for function in (diversity, lambda given: distinct(given, 1)):
        plain, mixed = function(items(*answers)), function(items(*(answers[i] for i in order)))
        for place, i in enumerate(order):
            one, other = plain[i], mixed[place]
            assert (one is None) == (other is None)
            assert one is None or other is None or one.value == pytest.approx(other.value)


@given(st.lists(st.sampled_from(VOCABULARY), min_size=3, max_size=12, unique=True))
def test_a_copy_lowers_diversity_and_distinct(words: list[str]) -> None:
    answers = [" ".join(words[i : i + 3]) for i in range(0, len(words) - 2, 3)] + ["plain words"]
    for function in (diversity, lambda given: distinct(given, 1)):
        if len(answers) > 1:
            assert mean(function(items(*answers, answers[0]))) < mean(function(items(*answers)))


def test_settings_are_compared_within_themselves_and_a_grid_without_references_is_scored(tmp_path: Path) -> None:
    prompts = [Example(f"e{i}", [{"role": "user", "content": f"Horoscope {i}"}], {"category": "Leo"}) for i in range(3)]
    rows = [{"id": e.id, "setting": "greedy", "sample": 0, "text": "Удачный день."} for e in prompts]
    rows += [
        {"id": e.id, "setting": "t=1", "sample": k, "text": f"{VOCABULARY[3 * i + k]} {VOCABULARY[20 + 3 * i + k]}."}
        for i, e in enumerate(prompts)
        for k in range(2)
    ]
    write_jsonl(tmp_path / "answers.jsonl", rows)
    names = ["exact", "acceptability", "diversity", "distinct1", "not_negative", "length", "refusal", "faithfulness"]
    ledger = score(ScoreConfig(scorers=names), tmp_path, prompts, tmp_path)
    assert ledger.balanced and ledger.notes == {"not_scored:exact": 9, "not_scored:faithfulness": 9}
    summary = load_summary(tmp_path)
    assert summary["greedy"]["diversity"]["value"] == 0 and summary["t=1"]["diversity"]["value"] == 1
    assert summary["greedy"]["distinct1"]["value"] == pytest.approx(2 / 6)
    assert summary["t=1"]["distinct1"]["value"] == 1 and summary["t=1"]["diversity"]["n"] == 3
    assert summary["greedy"]["not_negative"]["value"] == 1 and "exact" not in summary["greedy"]
    reasons = next(read_jsonl(tmp_path / "scores.jsonl"))["reasons"]
    assert reasons["exact"] == "not scored: the example has no reference"
    assert set(load_values(tmp_path, "t=1", "length").values()) == {2.0}


def test_a_set_scorer_is_not_handed_out_for_single_answers() -> None:
    with pytest.raises(ConfigError, match="SCORER_SET"):
        scorers.get("diversity")
    assert scorers.about("diversity").card.weak
