"""The requests that a teacher gets: which seeds and which document each shows, planned before any is sent."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.config import SynthesizeConfig
from understudy.core.records import Document, Example, digest
from understudy.data.synthesis.cells import Cell, Lengths, group_of
from understudy.data.synthesis.texts import category_of, normalised, prompt_key
from understudy.errors import DataError
from understudy.models.base import Conversation
from understudy.models.template import Template

PROMPT = Path(__file__).parent / "prompts" / "synthesize.txt"
NEEDED = ("seeds", "document", "count", "variant")
OPTIONAL = ("category", "length")
"""Placeholders of the template; an optional one is needed where the quota is aimed by it."""
SYSTEM = "You write training data. You reply with JSON only."
VARIANTS_PER_ROUND = 97
"""Each round counts its variants from a multiple of this; a prime, as a teacher may take them modulo its choices."""


@dataclass(frozen=True, slots=True)
class Request:
    """One planned call; `length` bounds the characters of its questions, `where` names it in rejects."""

    cell: Cell
    seeds: list[Example]
    document: Document
    round: int
    variant: int
    where: str
    length: tuple[int, int] | None = None


def freshest(documents: Sequence[Document], earlier: Sequence[Example]) -> list[list[Document]]:
    """Documents grouped by how many earlier prompts quote them, the least used first."""
    used = Counter(prompt_key(e).rpartition(" question ")[0] for e in earlier)
    groups: dict[int, list[Document]] = {}
    for document in documents:
        groups.setdefault(used[normalised(document.text)], []).append(document)
    return [groups[uses] for uses in sorted(groups)]


class Plan:
    """The requests of one cell, without end: seeds and documents rotate, a document's next turn varies."""

    def __init__(
        self,
        cfg: SynthesizeConfig,
        cell: Cell,
        round: int,
        seeds: Sequence[Example],
        documents: Sequence[Sequence[Document]],
        lengths: Lengths | None,
    ) -> None:
        self.cell, self.round, self.shown = cell, round, cfg.seeds_per_call
        self.length = lengths.bounds(cell.length) if lengths and cell.length else None
        self.seeds = [s for s in seeds if category_of(s.meta) == cell.category]
        if not self.seeds:
            where = f"category {cell.category!r}"
            raise DataError("SYNTH_NO_SEEDS", where, "no seed pair has it", "raise split.seed_pairs")
        # One order per cell and round: the cells do not all start with the same documents.
        order = random.Random(digest([cfg.seed, round, *(part for part in cell if part)]))
        own = [[d for d in used if not cell.group or group_of(d) == cell.group] for used in documents]
        self.documents = [d for equally_used in own for d in order.sample(equally_used, len(equally_used))]
        if not self.documents:
            where = f"group {cell.group!r}" if cell.group else "synthesize"
            raise DataError("SYNTH_NO_DOCUMENTS", where, "there is no training document", "check `sources`")

    def request(self, i: int) -> Request:
        turn, at = divmod(i, len(self.documents))
        first = i * self.shown
        count = min(self.shown, len(self.seeds))
        return Request(
            cell=self.cell,
            seeds=[self.seeds[(first + j) % len(self.seeds)] for j in range(count)],
            document=self.documents[at],
            round=self.round,
            variant=(self.round - 1) * VARIANTS_PER_ROUND + turn,
            where=f"round {self.round} {self.cell.name} request {i}",
            length=self.length,
        )


def interleave(plans: Mapping[Cell, Plan], sent: Counter[Cell], counts: Mapping[Cell, int]) -> list[Request]:
    """The next `counts` requests of every cell, dealt in turn, so that any first part is a fair sample."""
    places = sorted(((i + 0.5) / count, cell, i) for cell, count in counts.items() for i in range(count))
    return [plans[cell].request(sent[cell] + i) for _, cell, i in places]


def aimed(cfg: SynthesizeConfig) -> tuple[str, ...]:
    """Optional placeholders that a template must have under these settings."""
    return tuple(name for name in OPTIONAL if name in cfg.cells)


def conversation_of(template: Template, request: Request, count: int) -> Conversation:
    """The chat that asks for `count` rows."""
    blocks = {
        "seeds": [_shown(s) for s in request.seeds],
        "document": {"text": request.document.text},
        "category": request.cell.category,
        "length": {"least": request.length[0], "most": request.length[1]} if request.length else None,
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
