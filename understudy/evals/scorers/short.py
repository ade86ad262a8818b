"""Scorers for short answers: SQuAD's exact match and F1, and GSM8K's final number."""

from __future__ import annotations

import re
import string
from collections import Counter
from decimal import Decimal, InvalidOperation

from understudy.core.records import Example
from understudy.evals.scorers.base import Card, Score, TextScorer, best

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+]?\.\d+")
_MARKED = re.compile(r"####\s*(.*)")


def squad_normal(text: str) -> str:
    """SQuAD v1.1's normal form: lower case, no ASCII punctuation, no English articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def token_f1(reference: str, answer: str) -> float:
    """F1 over the bags of normalised words; two empty texts agree."""
    wanted, given = squad_normal(reference).split(), squad_normal(answer).split()
    if not wanted or not given:
        return float(wanted == given)
    same = sum((Counter(wanted) & Counter(given)).values())
    return 2 * same / (len(wanted) + len(given))


def final_number(text: str) -> Decimal | None:
    """The first number after the last `####`, or the last number; thousands commas and trailing zeros are dropped."""
    marked = _MARKED.findall(text)
    found = _NUMBER.findall(marked[-1]) if marked else _NUMBER.findall(text)
    if not found:
        return None
    try:
        return Decimal((found[0] if marked else found[-1]).replace(",", "")).normalize()
    except InvalidOperation:
        return None


def _number(example: Example, answer: str) -> Score:
    given = final_number(answer)
    score = best(example, answer, lambda reference, _: float(given is not None and given == final_number(reference)))
    return Score(score.value, f"final number {given if given is not None else 'absent'}, {score.reason}")


EXACT = TextScorer(
    "exact",
    "rate",
    Card(
        "Share of answers equal to a reference after SQuAD's normalisation.",
        "Cases of SQuAD v1.1's evaluation script, written out in tests/test_scorers.py.",
        "A right answer in other words scores 0; articles and punctuation of other languages are not folded.",
    ),
    lambda e, a: best(e, a, lambda reference, answer: float(squad_normal(reference) == squad_normal(answer))),
)
F1 = TextScorer(
    "f1",
    "mean",
    Card(
        "Word overlap with the nearest reference (SQuAD F1).",
        "Cases of SQuAD v1.1's evaluation script, written out in tests/test_scorers.py.",
        "Ignores word order and negation; one wrong number in a long answer costs little.",
    ),
    lambda e, a: best(e, a, token_f1),
)
NUMBER = TextScorer(
    "number",
    "rate",
    Card(
        "Share of answers whose final number equals the reference's (GSM8K: after ####, else the last number).",
        "GSM8K's answer format and hand-written cases in tests/test_scorers.py.",
        "The last number of an unmarked answer may be a unit, a date or a page; fractions and words are not read.",
    ),
    _number,
)
