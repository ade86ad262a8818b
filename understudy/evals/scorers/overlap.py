"""Overlap scorers: BLEU and chrF through sacrebleu (sentence level, 0..1), ROUGE-1, -2 and -L of our own.

ROUGE follows Lin (2004) in the form of the `rouge-score` package without stemming; that package costs 3 s of import.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from understudy.core.records import Example
from understudy.errors import extra
from understudy.evals.scorers.base import Card, Score, TextScorer, best, references

_NOT_WORD = re.compile(r"[^a-z0-9]+")
_NOT_LETTER = re.compile(r"[\W_]+")


def rouge_tokens(text: str) -> list[str]:
    """`rouge-score`'s tokens (a-z and 0-9); for a text of other scripts, where those are none, all letters count."""
    lower = text.lower()
    return _NOT_WORD.sub(" ", lower).split() or _NOT_LETTER.sub(" ", lower).split()


def rouge_n(reference: str, answer: str, n: int) -> float:
    """F1 of shared n-grams."""
    wanted, given = (_ngrams(rouge_tokens(t), n) for t in (reference, answer))
    return _f1(sum((wanted & given).values()), sum(wanted.values()), sum(given.values()))


def rouge_l(reference: str, answer: str) -> float:
    """F1 of the longest common subsequence."""
    wanted, given = rouge_tokens(reference), rouge_tokens(answer)
    row = [0] * (len(given) + 1)
    for word in wanted:
        diagonal = 0
        for j, other in enumerate(given, 1):
            diagonal, row[j] = row[j], diagonal + 1 if word == other else max(row[j], row[j - 1])
    return _f1(row[-1], len(wanted), len(given))


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _f1(same: int, wanted: int, given: int) -> float:
    return 2 * same / (wanted + given) if same else 0.0


def _bleu(example: Example, answer: str) -> Score:
    with extra("local"):
        from sacrebleu import sentence_bleu
    return Score(
        sentence_bleu(answer, references(example)).score / 100, f"against {len(references(example))} references"
    )


def _chrf(example: Example, answer: str) -> Score:
    with extra("local"):
        from sacrebleu import sentence_chrf
    return Score(
        sentence_chrf(answer, references(example)).score / 100, f"against {len(references(example))} references"
    )


def _rouge_card(what: str) -> Card:
    return Card(
        f"{what} with the nearest reference (F1, no stemming).",
        "Equal to rouge-score 0.1.2 on 300 random English pairs (tests/test_scorers.py).",
        "Counts words, not truth: a negated or misattributed fact keeps nearly all of its score.",
    )


_SACREBLEU = "sacrebleu's own sentence level scores (tests/test_scorers.py)."
BLEU = TextScorer(
    "bleu",
    "mean",
    Card(
        "Sentence BLEU-4 with exponential smoothing, 0..1, averaged over items (not corpus BLEU).",
        _SACREBLEU,
        "Near 0 for answers of under four words, even right ones; tokenises for European languages.",
    ),
    _bleu,
)
CHRF = TextScorer(
    "chrf",
    "mean",
    Card("Character 6-gram F2, 0..1.", _SACREBLEU, "Rewards near misses in names and numbers."),
    _chrf,
)
ROUGE1 = TextScorer(
    "rouge1", "mean", _rouge_card("Shared words"), lambda e, a: best(e, a, lambda r, t: rouge_n(r, t, 1))
)
ROUGE2 = TextScorer(
    "rouge2", "mean", _rouge_card("Shared word pairs"), lambda e, a: best(e, a, lambda r, t: rouge_n(r, t, 2))
)
ROUGEL = TextScorer("rougeL", "mean", _rouge_card("Longest common subsequence"), lambda e, a: best(e, a, rouge_l))
