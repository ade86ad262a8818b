"""Relevance to the question, completeness against the reference, faithfulness to the context: weighted word overlap.

A unit is a number, a name or the stem of a content word; numbers and names weigh three times as much as words. English
and Russian. Weak on purpose and cheap: the judge or a classifier takes their place by configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from understudy.core.records import Example
from understudy.evals.scorers.base import Card, Score, TextScorer, best, context, question
from understudy.evals.scorers.facts import words
from understudy.evals.scorers.language import folded, stem, stop_words
from understudy.evals.scorers.refusal import refuses

HARD = 3.0
"""Weight of a number or a name beside a word's 1."""
KIND = 0.6
"""What an answer of the asked kind gets before any overlap."""
ECHO = 0.5
"""An answer that takes up this share of the question's words has addressed all of it."""
_YEAR = r"\b(?:1[0-9]|20)\d\d\b"
_TIME = (
    _YEAR
    + r"|\d{1,2}[:.]\d\d|\b\d{1,2}\s?(?:am|pm)\b|\b\d{1,2}[./]\d{1,2}|\b(?:mon|tues|wednes|thurs|fri|satur|sun)day"
    r"|\b(?:january|february|march|april|may|june|july|august|september|october|november|december)\b"
    r"|\b(?:today|tomorrow|yesterday|morning|noon|evening|night|week|month|year|century|spring|summer|autumn|winter)"
    r"|понедельник|вторник|сред[ауые]|четверг|пятниц|суббот|воскресень|январ|феврал|март|апрел|\bма[яй]\b|июн|июл|август"
    r"|сентябр|октябр|ноябр|декабр|сегодня|завтра|вчера|утр[ао]|вечер|ноч|полдень|недел|месяц|\bгод|\bвек|весн|лет[оа]м|осен|зим"
)
_NUMBER = (
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|hundred|thousand|million|dozen|none|several"
    r"|half|twice|once)\b|\b(?:од(?:ин|на|но)|дв[ае]|двух|три|четыре|пять|шесть|семь|восемь|девять|десять|сто|тысяч"
    r"|миллион|несколько|ни одного|половин)"
)
_DAY = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day\b"
_CAPITAL = rf"(?!{_DAY})[A-ZА-ЯЁ](?:[^\W\d_]|[’'-])+\b"
_NAME = rf"(?<![.!?]\s)(?<!^)\b{_CAPITAL}|\b{_CAPITAL}\s+{_CAPITAL}"
_CAUSE = (
    r"\b(?:because|since|due to|so that|in order|thanks to|owing|as a result|потому|так как|из-за|чтобы|поскольку"
    r"|благодаря|ради)\b"
)
_YES_NO = r"^\W*(?:yes|no|not|да|нет|конечно|certainly|of course)\b"
_PLACE = r"\b(?:in|at|on|near|from|to|room|hall|street|в|во|на|у|около|из|под|за|аудитори\w*|зал\w*|улиц\w*)\s+\S"
_WHEN = r"\b(?:when|what time|what day|which day|what year|which year|what date|когда|во сколько|в каком году)\b"
_WHETHER = r"^\W*(?:is|are|was|were|does|do|did|can|could|has|have|will|would|should|правда ли|верно ли|есть ли)\b"
KINDS: dict[str, tuple[str, str, int]] = {
    "a time": (_WHEN, _TIME, re.I),
    "a number": (r"\b(?:how many|how much|how old|how long|сколько)\b", _NUMBER, re.I),
    "a person or name": (r"\b(?:who|whom|whose|кто|кого|кому|кем|чей|чья|чьё)\b", rf"{_NAME}|^\W*{_CAPITAL}\W*$", 0),
    "a place": (r"\b(?:where|which room|what room|где|куда|откуда)\b", rf"(?i:{_PLACE})|{_NAME}|\d", 0),
    "a reason": (r"\b(?:why|почему|зачем)\b", _CAUSE, re.I),
    "yes or no": (_WHETHER, _YES_NO, re.I),
}
"""Kind of answer -> (how a question asks for it, what it looks like, flags)."""

Units = dict[str, float]


def units(text: str) -> Units:
    """Unit -> weight: folded numbers and names, stems of other content words; each counts once."""
    stop = stop_words()
    found: Units = {}
    for word, written, starts in words(text):
        plain = folded(word)
        if any(c.isdigit() for c in word):
            found[word] = HARD
        elif plain not in stop:
            name = written[0].isupper() and not starts
            key = stem(plain)
            found[key] = max(found.get(key, 0.0), HARD if name else 1.0)
    return found


def relevance(asked: str, answer: str) -> tuple[float, str]:
    """(0..1, why): the kind of answer that the question asks for, and the question's words that the answer takes up."""
    if not answer.strip() or refuses(answer):
        return 0.0, "no answer"
    wanted, given = units(asked), units(answer)
    if given and given.keys() <= wanted.keys() and not re.search(_YES_NO, answer, re.I):
        return 0.0, "only repeats the question"
    taken = _share(wanted, given)
    overlap = min(1.0, taken / ECHO)
    kind = next((k for k, (asks, _, flags) in KINDS.items() if re.search(asks, asked, re.I)), None)
    if kind is None:
        return overlap, f"takes up {taken:.0%} of the prompt"
    _, looks, flags = KINDS[kind]
    fits = bool(re.search(looks, answer, flags))
    value = KIND + (1 - KIND) * overlap if fits else (1 - KIND) * overlap
    return value, f"{kind} is asked and {'given' if fits else 'not given'}; takes up {taken:.0%} of the question"


def supported(claimed: Units, source: Units) -> tuple[float, str]:
    """(weighted share of `claimed` that `source` has too, what is missing)."""
    lost = [u for u in claimed if u not in source]
    return _share(claimed, source), ", ".join(lost[:6]) + ("…" if len(lost) > 6 else "")


def _share(wanted: Units, given: Iterable[str]) -> float:
    have = set(given)
    total = sum(wanted.values())
    return sum(weight for unit, weight in wanted.items() if unit in have) / total if total else 1.0


def _relevance(example: Example, answer: str) -> Score:
    return Score(*relevance(question(example), answer))


def _completeness(example: Example, answer: str) -> Score:
    given = units(answer)
    known = units(question(example))

    def compare(reference: str, _: str) -> float:
        # What the question already says is no content of the answer, unless the reference says nothing else.
        wanted = units(reference)
        new = {u: w for u, w in wanted.items() if u not in known}
        return supported(new or wanted, given)[0]

    return best(example, answer, compare)


def _faithfulness(example: Example, answer: str) -> Score:
    if not answer.strip():
        return Score(0.0, "no answer")
    value, lost = supported(units(answer), units(f"{context(example)}\n{question(example)}"))
    return Score(value, f"not in the context: {lost}" if lost else "all of it is in the context")


_CASES = "Hand-written cases in both languages and monotonicity properties (tests/test_soft_scorers.py)."
RELEVANCE = TextScorer(
    "relevance",
    "mean",
    Card(
        "Whether the answer addresses the prompt, 0 to 1: 0.6 for an answer of the kind that is asked (a person, time, "
        "place, number, reason, yes or no), the rest for the prompt's words that it takes up; the words alone where "
        "the prompt is no such question. 0 for an empty answer, a refusal, or an echo of the question.",
        _CASES,
        "A wrong answer of the right kind is relevant; other words for the same thing are not seen; short right "
        "answers to `what` and `which` score low. Take it from the judge where it decides.",
    ),
    _relevance,
    needs=(),
)
COMPLETENESS = TextScorer(
    "completeness",
    "mean",
    Card(
        "Share of the reference's content in the answer, beyond what the question says; names and numbers weigh three "
        "times a word.",
        _CASES,
        "Synonyms count as missing; a negated or contradicted statement counts as there.",
    ),
    _completeness,
)
FAITHFULNESS = TextScorer(
    "faithfulness",
    "mean",
    Card(
        "Share of the answer's content words, names and numbers that stand in the context or the question; names and "
        "numbers weigh three times a word.",
        _CASES,
        "Words, not statements: the context's own words in a false combination, or without its negation, pass; a true "
        "paraphrase loses. Scored only where the example has a context.",
    ),
    _faithfulness,
    needs=("context",),
)
