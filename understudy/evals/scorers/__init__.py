"""Scorers by name. A scorer takes an example and an answer's text and returns a value with its reason.

Each carries a card: what it measures, on what it was checked, where it is weak.
"""

from __future__ import annotations

import difflib

from understudy.errors import ConfigError
from understudy.evals.scorers.base import Card, Score, Scorer, TextScorer, references
from understudy.evals.scorers.facts import EXACT_FACTS
from understudy.evals.scorers.overlap import BLEU, CHRF, ROUGE1, ROUGE2, ROUGEL
from understudy.evals.scorers.sentiment import NOT_NEGATIVE, SENTIMENT
from understudy.evals.scorers.short import EXACT, F1, NUMBER

__all__ = ["Card", "Score", "Scorer", "TextScorer", "get", "names", "references"]

_ALL = (EXACT, F1, NUMBER, BLEU, CHRF, ROUGE1, ROUGE2, ROUGEL, EXACT_FACTS, SENTIMENT, NOT_NEGATIVE)
_SCORERS: dict[str, Scorer] = {s.name: s for s in _ALL}


def names() -> list[str]:
    return list(_SCORERS)


def get(name: str) -> Scorer:
    """The scorer of that name. Raises ConfigError that lists the names and the nearest one."""
    if name in _SCORERS:
        return _SCORERS[name]
    near = difflib.get_close_matches(name.lower(), [n.lower() for n in _SCORERS], 1, 0.5)
    nearest = next((n for n in _SCORERS if near and n.lower() == near[0]), None)
    hint = f"did you mean {nearest!r}? " if nearest else ""
    raise ConfigError("SCORER_UNKNOWN", "score.scorers", f"no scorer {name!r}", f"{hint}known: {', '.join(_SCORERS)}")
