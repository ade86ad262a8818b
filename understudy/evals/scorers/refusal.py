"""Refusals by their wording, in English and Russian: an answer that says that it gives none."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from understudy.core.records import Example
from understudy.evals.scorers.base import Card, Score, TextScorer

_ACT_EN = (
    "help|assist|answer|provide|give|do that|do this|discuss|comment|comply|fulfil|share|offer|tell|say|create|generate"
    "|write|make|determine|find|access|complete|support|respond|process|continue|engage|confirm|verify|identify"
)
_ACT_RU = (
    r"помочь|ответ\w+|предостав\w+|дать|обсужда\w+|комментир\w+|выполн\w+|созда\w+|написа\w+|сказать|определ\w+|найти|сделать"
    r"|поддерж\w+|продолж\w+|подтверд\w+|генерир\w+|сгенерир\w+|рассказ\w+|да(?:вать|ть)"
)
START = 300
"""Characters of an answer that are read: a refusal comes first, a report of one may come later."""


@cache
def patterns() -> tuple[re.Pattern[str], ...]:
    """The turns of phrase of `lexicon/refusal.txt`, one a line."""
    lines = (Path(__file__).parent / "lexicon" / "refusal.txt").read_text("utf-8").splitlines()
    whole = (line.replace("<ACT_EN>", _ACT_EN).replace("<ACT_RU>", _ACT_RU) for line in lines)
    return tuple(re.compile(line, re.IGNORECASE) for line in whole)


def refuses(answer: str) -> str | None:
    """The words that refuse; "nothing" for an empty answer, None when it is no refusal."""
    if not answer.strip():
        return "nothing"
    start = answer.strip().replace("’", "'").replace("ё", "е")[:START]
    return next((found[0] for pattern in patterns() if (found := pattern.search(start))), None)


def _refusal(example: Example, answer: str) -> Score:
    found = refuses(answer)
    return Score(float(found is not None), f"says {found[:80]!r}" if found else "no refusal")


REFUSAL = TextScorer(
    "refusal",
    "rate",
    Card(
        "Share of answers that say they give none: a refusal, ignorance or nothing at all. Lower is better.",
        "Hand-written refusals and look-alikes in both languages (tests/test_soft_scorers.py).",
        "Known turns of phrase in the first 300 characters; a polite evasion or a change of subject is not seen, and a "
        "right 'I do not know' counts too.",
    ),
    _refusal,
    needs=(),
    better="lower",
)
