"""Early stops: a teacher that repeats itself, or whose rows are of no use, is not asked further."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

from understudy.config import SynthesizeConfig
from understudy.data.synthesis.batch import Batch
from understudy.data.synthesis.texts import normalised
from understudy.errors import DataError

MIN_DIVERSITY = 0.2
"""Mean share of word triples that two replies do not have in common; below it the teacher repeats itself."""
COMPARED = 40
"""Replies compared for diversity: 780 pairs."""


def check_health(cfg: SynthesizeConfig, batch: Batch, sent: int, provider: str) -> None:
    """Stop early when the teacher repeats itself or most of its rows are of no use."""
    diversity = _diversity(batch.replies)
    if diversity < MIN_DIVERSITY:
        raise DataError(
            "SYNTH_COLLAPSE",
            "synthesize",
            f"the replies are near-identical: diversity {diversity:.3f} (at least {MIN_DIVERSITY} is needed) over "
            f"{len(batch.replies)} replies",
            "raise teacher.temperature, or use another teacher",
        )
    useful = len(batch.kept) + batch.ledger.rejected.get("over_quota", 0)
    # Rows of earlier rounds say that the documents are used up, not that the teacher is bad.
    asked = sent * cfg.rows_per_call - batch.repeated
    if useful < cfg.min_yield * asked:
        counts = ", ".join(f"{reason} {count}" for reason, count in sorted(batch.ledger.rejected.items()))
        raise DataError(
            "SYNTH_YIELD",
            "synthesize",
            f"{useful} of the first {asked} asked rows are usable, under min_yield {cfg.min_yield:g} "
            f"(rejected: {counts or 'none'}; empty replies: {batch.ledger.notes.get('empty_replies', 0)})",
            "the simulated teacher knows little but its example's sentences (docs/simulated-service.md); use a real one"
            if provider == "simulated"
            else "look at the teacher's replies in cache/, or use another teacher",
        )


def triples(rows: list[Any]) -> frozenset[str]:
    """The word triples of a reply's questions and answers."""
    words = normalised(json.dumps([_texts(r) for r in rows], ensure_ascii=False)).split()
    return frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))


def _texts(row: Any) -> list[str]:
    return [str(row.get("question")), str(row.get("answer"))] if isinstance(row, dict) else [str(row)]


def _diversity(replies: list[frozenset[str]]) -> float:
    """1 - mean Jaccard similarity of the replies' word triples, pair by pair; 1.0 for fewer than three replies."""
    if len(replies) < 3:
        return 1.0
    similar = [len(a & b) / len(a | b) for a, b in combinations(replies, 2)]
    return 1.0 - sum(similar) / len(similar)
