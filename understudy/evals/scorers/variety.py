"""What is seen only beside other answers: diversity and distinct-n of all answers of one setting. And plain length.

A set scorer gives each answer a value against the others, so that the mean over answers is the figure of the set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import sqrt

from understudy.core.records import Example
from understudy.evals.scorers.base import Card, Score, SetScorer, TextScorer
from understudy.evals.scorers.language import WORD, content, folded

Items = Sequence[tuple[Example, str]]


def diversity(items: Items) -> list[Score | None]:
    """1 - mean cosine similarity to every other answer (never to itself), over counts of content stems.

    An empty answer scores 0 and is no neighbour of the others. None for all when fewer than two answers have words.
    """
    vectors = [_unit(Counter(content(answer))) for _, answer in items]
    total: dict[str, float] = {}
    for vector in vectors:
        for stem, weight in vector.items():
            total[stem] = total.get(stem, 0.0) + weight
    others = sum(map(bool, vectors)) - 1
    if others < 1:
        return [None] * len(items)
    scores: list[Score | None] = []
    for vector in vectors:
        if not vector:
            scores.append(Score(0.0, "no words"))
            continue
        own = sum(weight * weight for weight in vector.values())
        similarity = (sum(weight * total[stem] for stem, weight in vector.items()) - own) / others
        scores.append(Score(min(1.0, max(0.0, 1 - similarity)), f"against {others} other answers"))
    return scores


def distinct(items: Items, n: int) -> list[Score | None]:
    """An answer's part of distinct-n (Li et al., 2016): its n-grams, each as 1 / (times it comes in the set).

    Scaled so that the mean over answers is exactly (different n-grams) / (all n-grams) of the set; an answer that is
    longer than the mean may score above 1. None for all when no answer has n words.
    """
    grams = [_ngrams(answer, n) for _, answer in items]
    counts = Counter(gram for found in grams for gram in found)
    total = counts.total()
    if not total:
        return [None] * len(items)
    scale = len(items) / total
    scores: list[Score | None] = []
    for found in grams:
        alone = sum(counts[gram] == 1 for gram in found)
        scores.append(Score(scale * sum(1 / counts[gram] for gram in found), f"{alone} of {len(found)} only here"))
    return scores


def _unit(counts: Counter[str]) -> dict[str, float]:
    norm = sqrt(sum(c * c for c in counts.values()))
    return {stem: count / norm for stem, count in counts.items()} if norm else {}


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    words = [folded(w) for w in WORD.findall(text)]
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _length(example: Example, answer: str) -> Score:
    count = len(WORD.findall(answer))
    return Score(float(count), f"{count} words, {len(answer)} characters")


def _within_length(example: Example, answer: str) -> Score:
    low, high = example.meta["answer_chars"]
    count = len(answer)
    fits = low <= count and (high is None or count <= high)
    return Score(float(fits), f"{count} characters; wanted are {low} to {high if high is not None else 'any'}")


def _distinct_card(n: int) -> Card:
    return Card(
        f"distinct-{n}: different runs of {n} word{'s' if n > 1 else ''} among all answers of the setting, per run.",
        "Counted by hand; the mean over answers equals the textbook's quotient (tests/test_set_scorers.py).",
        "Falls with the number and length of answers: compare only like sets. The interval resamples answers as if "
        "they were independent and leaves the counts as they are: approximate.",
    )


DIVERSITY = SetScorer(
    "diversity",
    "mean",
    Card(
        "1 - mean similarity of an answer to every other answer of the setting (cosine of content stems, no pair with "
        "itself): 0 when all say the same, 1 when none share a content word.",
        "Sums by hand, identical and disjoint sets, no drift with the number of answers (tests/test_set_scorers.py).",
        "Words, not meaning: a paraphrase is diverse. Word salad is diverse: read it beside acceptability. The items "
        "depend on each other: the interval stretches them by 2, the degree of the statistic (jackknife), and stays "
        "approximate.",
    ),
    diversity,
    spread=2.0,
)
DISTINCT1 = SetScorer("distinct1", "mean", _distinct_card(1), lambda items: distinct(items, 1))
DISTINCT2 = SetScorer("distinct2", "mean", _distinct_card(2), lambda items: distinct(items, 2))
LENGTH = TextScorer(
    "length",
    "mean",
    Card(
        "Words of the answer.",
        "Counted by hand (tests/test_soft_scorers.py).",
        "Neither long nor short is better; `higher` says only how a difference is signed. Numbers are no words.",
    ),
    _length,
    needs=(),
    unit="words",
)
WITHIN_LENGTH = TextScorer(
    "within_length",
    "rate",
    Card(
        "Share of answers whose characters are within the bounds that the request states (prompts.min_answer_chars, "
        "prompts.max_answer_chars).",
        "Counted by hand (tests/test_soft_scorers.py).",
        "Says nothing of what stands in the answer: read it beside acceptability.",
    ),
    _within_length,
    needs=("answer_chars",),
)
