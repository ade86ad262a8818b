"""Sentiment in five levels from a word list of our own, in English and Russian.

A word or stem weighs -2 to 2; a word of degree before it strengthens or weakens it, a negation before it turns it, and
what follows a "but" counts more than what stands before it. The lists are `lexicon/sentiment-*.txt`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from understudy.core.records import Example
from understudy.evals.scorers.base import Card, Score, TextScorer
from understudy.evals.scorers.language import WORD, folded, is_russian

LEXICONS = {"en": "sentiment-en.txt", "ru": "sentiment-ru.txt"}
LEVELS = ("very negative", "negative", "neutral", "positive", "very positive")
WEIGHTS = ("2", "1", "0", "-1", "-2")
STRONG, WEAK = 1.5, 0.5
NEGATED_GOOD, NEGATED_BAD = -0.8, 0.5
"""What a negated word is worth, however strong it was: "not excellent" is no more than mildly bad."""
BEFORE_TURN, AFTER_TURN = 0.5, 1.5
REACH = 3
"""Words over which a negation or a word of degree reaches forward, within a clause."""
LENGTH = 50
"""Words of text that weigh as one neutral hit, so that one kind word does not colour a page."""
BOUNDS = (-1.3, -0.35, 0.35, 1.3)
_CLAUSE = re.compile(r"[.!?…;:,()\n—–]+")
_SENTENCE = re.compile(r"[.!?…\n]+")


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Weights of words and of stems (the longest wins), and the words that change a weight."""

    weights: dict[str, int]
    stems: dict[str, int]
    roles: dict[str, frozenset[str]]

    def weight(self, word: str) -> int:
        if word in self.weights:
            return self.weights[word]
        return next((self.stems[word[:n]] for n in range(len(word), 1, -1) if word[:n] in self.stems), 0)


def level(text: str) -> int:
    """1 (very negative), 2, 3 (neutral or mixed), 4 or 5 (very positive)."""
    value = polarity(text)
    return 1 + sum(value > bound if bound < 0 else value >= bound for bound in BOUNDS)


def polarity(text: str) -> float:
    """Mean weight of the words that carry any, about -2 to 2; 0 without such words."""
    return _mean([value for _, value in hits(text)], len(WORD.findall(text)))


@lru_cache(maxsize=1024)
def hits(text: str) -> tuple[tuple[str, float], ...]:
    """(word, weight after degree, negation and turn) of every word that carries sentiment, in order."""
    found: list[tuple[str, float]] = []
    for sentence in _SENTENCE.split(text):
        clauses = [[folded(w) for w in WORD.findall(clause)] for clause in _CLAUSE.split(sentence)]
        parts = list(_turns([clause for clause in clauses if clause]))
        turned = len({after for after, _ in parts}) > 1
        for after, words in parts:
            factor = (AFTER_TURN if after else BEFORE_TURN) if turned else 1.0
            found += [(word, weight * factor) for word, weight in _clause(words)]
    return tuple(found)


@cache
def lexicon(language: str) -> Lexicon:
    """The list of `en` or `ru`."""
    sections: dict[str, set[str]] = {}
    name = ""
    for line in (Path(__file__).parent / "lexicon" / LEXICONS[language]).read_text("utf-8").splitlines():
        if line.startswith("["):
            name = line.strip("[]")
        else:
            sections.setdefault(name, set()).update(line.split())
    entries = [(word, int(weight)) for weight in WEIGHTS for word in sections[weight]]
    return Lexicon(
        {word: weight for word, weight in entries if not word.endswith("*")},
        {word[:-1]: weight for word, weight in entries if word.endswith("*")},
        {role: frozenset(words) for role, words in sections.items() if role not in WEIGHTS},
    )


def _turns(clauses: list[list[str]]) -> Iterator[tuple[bool, list[str]]]:
    """The clauses of a sentence, cut at a "but"; True for what follows it."""
    after = False
    for words in clauses:
        start = 0
        for i, word in enumerate(words):
            if _is(word, "turn") and (i or after is False):
                yield after, words[start:i]
                after, start = True, i + 1
        yield after, words[start:]


def _clause(words: list[str]) -> Iterator[tuple[str, float]]:
    """Weighted words of one clause. A negation is used up by the first word that it turns, or by
    both sides of an "or"."""
    weights = [_weight(words, i) for i in range(len(words))]
    negation, joined = -REACH - 1, False
    for i, word in enumerate(words):
        if _is(word, "negation"):
            cancelled = i + 1 < len(words) and _is(words[i + 1], "negation-cancel")
            # Russian repeats its negation (никогда не), English "not without" takes it back.
            double = negation == i - 1 and not is_russian(word)
            negation = -REACH - 1 if cancelled or double else i
            continue
        if not weights[i] or (_degree(word) and i + 1 < len(words) and weights[i + 1]):
            continue
        value = weights[i] * ((_degree(words[i - 1]) if i else 0.0) or 1.0)
        if i - negation <= REACH or _absent(words[i + 1 : i + 3]):
            value = NEGATED_GOOD if value > 0 else NEGATED_BAD
            joined = i + 1 < len(words) and _is(words[i + 1], "join")
            negation = i + 1 if joined else -REACH - 1
        yield word, value


def _weight(words: list[str], i: int) -> int:
    """The word's weight; a listed pair (`i_like`, `kind_of`) counts once, at its second word."""
    own = lexicon("ru" if is_russian(words[i]) else "en")
    if i and (pair := f"{words[i - 1]}_{words[i]}") in own.weights:
        return own.weights[pair]
    if i + 1 < len(words) and f"{words[i]}_{words[i + 1]}" in own.weights:
        return 0
    return own.weight(words[i])


def _degree(word: str) -> float:
    return STRONG if _is(word, "strong") else WEAK if _is(word, "weak") else 0.0


def _absent(following: list[str]) -> bool:
    """Whether Russian says behind a word that there is none of it: `удачи не будет`, `проблем нет`."""
    return bool(following) and (_is(following[0], "absent") or _is("_".join(following), "absent"))


def _is(word: str, role: str) -> bool:
    return word in lexicon("ru" if is_russian(word) else "en").roles.get(role, ())


def _mean(values: list[float], words: int) -> float:
    return sum(values) / (len(values) + words / LENGTH) if values else 0.0


def _reason(text: str) -> str:
    found = hits(text)
    sides = {
        "for": dict.fromkeys(word for word, value in found if value > 0),
        "against": dict.fromkeys(word for word, value in found if value < 0),
    }
    parts = [f"{side} {', '.join(words)}" for side, words in sides.items() if words]
    return f"{LEVELS[level(text) - 1]}: {'; '.join(parts) or 'no weighted words'}"


def _sentiment(example: Example, answer: str) -> Score:
    return Score(float(level(answer)), _reason(answer))


def _not_negative(example: Example, answer: str) -> Score:
    return Score(float(level(answer) >= 3), _reason(answer))


_CHECKED = "Hand-written sentences in English and Russian with negation, degree and contrast (tests/test_sentiment.py)."
_WEAK = (
    "A list of words and stems: irony, quotation, comparison, emoji and what people merely imply are not read; a "
    "negation reaches three words; other languages are always neutral. Not checked against people's ratings."
)
SENTIMENT = TextScorer(
    "sentiment", "mean",
    Card("Sentiment of the answer: 1 very negative, 2 negative, 3 neutral or mixed, 4 positive, 5 very positive.",
         _CHECKED, _WEAK),
    _sentiment, needs=(), unit="level",
)  # fmt: skip
NOT_NEGATIVE = TextScorer(
    "not_negative", "rate",
    Card("Share of answers whose sentiment is neutral or better (level 3 to 5).", _CHECKED, _WEAK),
    _not_negative, needs=(),
)  # fmt: skip
