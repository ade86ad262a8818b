"""The requests that a teacher gets: which seeds and which document each shows, planned before any is sent."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.config import SynthesizeConfig
from understudy.core.records import Document, Example, digest
from understudy.data.synthesis.texts import category_of, normalised
from understudy.errors import DataError
from understudy.models.base import Conversation
from understudy.models.template import Template

PROMPT = Path(__file__).parent / "prompts" / "synthesize.txt"
NEEDED = ("seeds", "document", "count", "variant")
OPTIONAL = ("category",)
"""Placeholders of the template; an optional one is needed where the quota is aimed by it."""
SYSTEM = "You write training data. You reply with JSON only."
VARIANTS_PER_ROUND = 97
"""Each round counts its variants from a multiple of this; a prime, as a teacher may take them modulo its choices."""


@dataclass(frozen=True, slots=True)
class Request:
    """One planned call; `where` names it in rejects."""

    category: str
    seeds: list[Example]
    document: Document
    round: int
    variant: int
    where: str


def freshest(documents: list[Document], earlier: set[str]) -> list[list[Document]]:
    """Documents grouped by how many earlier prompts quote them, the least used first."""
    used = Counter(key.rpartition(" question ")[0] for key in earlier)
    groups: dict[int, list[Document]] = {}
    for document in documents:
        groups.setdefault(used[normalised(document.text)], []).append(document)
    return [groups[uses] for uses in sorted(groups)]


class Plan:
    """The requests of one category, without end: seeds and documents rotate, a document's next turn varies."""

    def __init__(
        self, cfg: SynthesizeConfig, category: str, seeds: list[Example], documents: list[list[Document]], round: int
    ) -> None:
        self.category, self.round, self.shown = category, round, cfg.seeds_per_call
        self.seeds = [s for s in seeds if category_of(s.meta) == category]
        if not self.seeds:
            raise DataError("SYNTH_NO_SEEDS", f"category {category!r}", "no seed pair has it", "raise split.seed_pairs")
        # One order per category and round: the categories do not all start with the same documents.
        order = random.Random(digest([cfg.seed, round, category]))
        self.documents = [d for equally_used in documents for d in order.sample(equally_used, len(equally_used))]

    def request(self, i: int) -> Request:
        turn, at = divmod(i, len(self.documents))
        first = i * self.shown
        count = min(self.shown, len(self.seeds))
        return Request(
            category=self.category,
            seeds=[self.seeds[(first + j) % len(self.seeds)] for j in range(count)],
            document=self.documents[at],
            round=self.round,
            variant=(self.round - 1) * VARIANTS_PER_ROUND + turn,
            where=f"round {self.round} {self.category} request {i}",
        )


def interleave(plans: dict[str, Plan], sent: Counter[str], counts: dict[str, int]) -> list[Request]:
    """The next `counts` requests of every category, dealt in turn, so that any first part is a fair sample."""
    places = sorted(((i + 0.5) / count, category, i) for category, count in counts.items() for i in range(count))
    return [plans[category].request(sent[category] + i) for _, category, i in places]


def aimed(cfg: SynthesizeConfig) -> tuple[str, ...]:
    """Optional placeholders that a template must have under these settings."""
    return ("category",)


def conversation_of(template: Template, request: Request, count: int) -> Conversation:
    """The chat that asks for `count` rows."""
    blocks = {
        "seeds": [_shown(s) for s in request.seeds],
        "document": {"text": request.document.text},
        "category": request.category,
        "count": count,
        "variant": request.variant,
    }
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": template.fill(**blocks)}]


def _shown(seed: Example) -> dict[str, Any]:
    meta = seed.meta
    if meta.get("context") and meta.get("question"):
        asked = {"context": meta["context"], "question": meta["question"]}
    else:
        asked = {"prompt": seed.prompt[-1]["content"]}
    return {**asked, "answer": seed.answer, "facts": meta.get("facts") or [], "category": category_of(meta)}
