"""How much a teacher's replies differ: the first sign of one that says the same whatever it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from understudy.data.synthesis.texts import normalised

COMPARED = 40
"""Replies compared for diversity: 780 pairs."""


def triples(words: Sequence[str]) -> frozenset[str]:
    """Runs of three words; the text itself when it is shorter."""
    return frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))


def sample(reply: Sequence[Any]) -> frozenset[str]:
    """The word triples of a reply's questions and answers."""
    return triples(normalised("\n".join(text for row in reply for text in _texts(row))).split())


def _texts(row: Any) -> list[str]:
    return [str(row.get("question")), str(row.get("answer"))] if isinstance(row, dict) else [str(row)]


def diversity(replies: Sequence[frozenset[str]]) -> float:
    """1 - mean Jaccard similarity of the replies' word triples, pair by pair; 1.0 for fewer than three replies."""
    if len(replies) < 3:
        return 1.0
    similar = [len(a & b) / len(a | b) for a, b in combinations(replies, 2)]
    return 1.0 - sum(similar) / len(similar)
