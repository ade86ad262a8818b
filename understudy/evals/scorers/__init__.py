"""Scorers by name: what measures one answer, or an answer among all answers of its setting.

Each carries a card: what it measures, on what it was checked, where it is weak.
"""

from __future__ import annotations

import difflib

from understudy.errors import ConfigError
from understudy.evals.scorers.acceptability import ACCEPTABILITY
from understudy.evals.scorers.base import Card, Measure, Score, Scorer, SetScorer, TextScorer, references
from understudy.evals.scorers.facts import EXACT_FACTS
from understudy.evals.scorers.grounding import COMPLETENESS, FAITHFULNESS, RELEVANCE
from understudy.evals.scorers.overlap import BLEU, CHRF, ROUGE1, ROUGE2, ROUGEL
from understudy.evals.scorers.refusal import REFUSAL
from understudy.evals.scorers.sentiment import NOT_NEGATIVE, SENTIMENT
from understudy.evals.scorers.short import EXACT, F1, NUMBER
from understudy.evals.scorers.variety import DISTINCT1, DISTINCT2, DIVERSITY, LENGTH, WITHIN_LENGTH

__all__ = ["Card", "Measure", "Score", "Scorer", "SetScorer", "TextScorer", "about", "get", "names", "references"]

_EACH: tuple[Scorer, ...] = (
    EXACT, F1, NUMBER, BLEU, CHRF, ROUGE1, ROUGE2, ROUGEL, EXACT_FACTS, RELEVANCE, COMPLETENESS, FAITHFULNESS,
    ACCEPTABILITY, SENTIMENT, NOT_NEGATIVE, REFUSAL, LENGTH,
    WITHIN_LENGTH,
)  # fmt: skip
_SETS = (DIVERSITY, DISTINCT1, DISTINCT2)
_SCORERS: dict[str, Scorer | SetScorer] = {s.name: s for s in _EACH} | {s.name: s for s in _SETS}


def names() -> list[str]:
    return list(_SCORERS)


def about(name: str) -> Scorer | SetScorer:
    """The scorer of that name. Raises ConfigError that lists the names and the nearest one."""
    if name in _SCORERS:
        return _SCORERS[name]
    near = difflib.get_close_matches(name.lower(), [n.lower() for n in _SCORERS], 1, 0.5)
    nearest = next((n for n in _SCORERS if near and n.lower() == near[0]), None)
    hint = f"did you mean {nearest!r}? " if nearest else ""
    raise ConfigError("SCORER_UNKNOWN", "score.scorers", f"no scorer {name!r}", f"{hint}known: {', '.join(_SCORERS)}")


def get(name: str) -> Scorer:
    """The scorer of that name that scores one answer by itself. Raises ConfigError."""
    found = about(name)
    if isinstance(found, SetScorer):
        fix = "name it in score.scorers, where all answers are at hand"
        raise ConfigError("SCORER_SET", name, "compares answers with each other and cannot score one", fix)
    return found
