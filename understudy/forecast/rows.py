"""How many rows each step has, and some of them to measure: from finished steps, else from the sources themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Literal

from understudy import config as c
from understudy.core.artifact import Store
from understudy.core.plan import Plan
from understudy.core.records import Document, Example, Record, from_json, read_jsonl
from understudy.core.stage import Step
from understudy.data.prompts import requests
from understudy.data.sources.peek import peek
from understudy.errors import UnderstudyError
from understudy.forecast.figures import Figure, total
from understudy.forecast.seen import Seen, look

MOST = 2000
"""Rows of a file that are looked at."""
UNKNOWN = 1000
"""Rows of a source that cannot be looked at without a cost: a web site, a bucket, a priced query."""


@dataclass(frozen=True)
class Rows:
    """A count, and some of the rows."""

    count: Figure = Figure()
    some: Sequence[Record] = ()

    @property
    def examples(self) -> list[Example]:
        return [r for r in self.some if isinstance(r, Example)]

    @property
    def documents(self) -> list[Document]:
        return [r for r in self.some if isinstance(r, Document)]


@dataclass(frozen=True)
class Division:
    """The parts of a split by name: train, validation, documents, seed, dev, held."""

    parts: dict[str, Rows] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Rows:
        return self.parts.get(name, Rows())


def divide(cfg: c.SplitConfig, corpus: Rows, pairs: Rows | None) -> Division:
    """What `split` and `hold` will make of the rows, about: groups stay whole, so shares are not met exactly.

    The held rows' text is never looked at: dev's rows, or those that train, stand for it.
    """
    examples, documents = corpus.examples, corpus.documents
    share = len(documents) / len(corpus.some) if corpus.some else 0.0
    texts = Figure(corpus.count.value * share, "guess")
    answered = Figure(corpus.count.value * (1 - share), "guess")
    parts = {"documents": Rows(texts, documents)}
    if pairs is None:
        parts["held"] = Rows(_part(answered, cfg.test), examples)
        parts["validation"] = Rows(_part(answered, cfg.validation), examples)
        parts["train"] = Rows(_rest(answered, parts["held"].count, parts["validation"].count), examples)
        return Division(parts)
    parts["seed"] = Rows(_at_most(cfg.seed_pairs, pairs.count), pairs.some)
    parts["dev"] = Rows(_at_most(cfg.dev_pairs, pairs.count), pairs.some)
    parts["held"] = Rows(_rest(pairs.count, parts["seed"].count, parts["dev"].count), pairs.some)
    parts["validation"] = Rows(_part(answered, cfg.validation), examples)
    parts["train"] = Rows(_rest(answered, parts["validation"].count), examples)
    return Division(parts)


def _part(whole: Figure, share: float) -> Figure:
    return Figure(max(1.0, round(share * whole.value)) if share and whole.value else 0.0, "guess")


def _at_most(wanted: int, there: Figure) -> Figure:
    return Figure(min(wanted, there.value), "guess")


def _rest(whole: Figure, *taken: Figure) -> Figure:
    return Figure(max(0.0, whole.value - sum(t.value for t in taken)), "guess")


class Stock:
    """The rows of a plan's steps."""

    def __init__(self, plan: Plan, store: Store, root: Path) -> None:
        self.plan, self.store, self.root = plan, store, root
        self._seen: dict[str, Seen | None] = {}
        self._corpora: dict[str, Rows] = {}
        self._prompts: dict[str, Rows] = {}

    def seen(self, step: Step) -> Seen | None:
        """The finished step; None when it is still to run."""
        if step.name not in self._seen:
            found = None if step.stage == "adopt" else look(self.store, step.name, step.fingerprint)
            self._seen[step.name] = found
        return self._seen[step.name]

    def step(self, stage: str) -> Step | None:
        return next((s for s in self.plan.steps if s.stage == stage), None)

    def corpus(self, step: Step) -> Rows:
        """Of a step that makes a Corpus."""
        if step.name not in self._corpora:
            self._corpora[step.name] = self._corpus(step)
        return self._corpora[step.name]

    def _corpus(self, step: Step) -> Rows:
        if seen := self.seen(step):
            return Rows(Figure(seen.rows_out), _head(seen.path / "rows.jsonl"))
        if step.stage == "collect":
            return self._sources(c.CollectConfig.model_validate(step.config).sources)
        if step.stage == "collect_web":
            return Rows(Figure(UNKNOWN, "guess"))
        parents = [self.corpus(p) for p in step.parents() if p.kind == "Corpus"]
        count = total(p.count for p in parents)
        # Cleaning and deduplication may drop some; how many is not known before.
        return Rows(Figure(count.value, "guess"), list(islice(_dealt(parents), MOST)))

    def _sources(self, sources: Sequence[c.SourceConfig]) -> Rows:
        found = []
        for source in sources:
            try:
                some, count, counted = peek(source, self.root, MOST)
            except UnderstudyError:  # `run` will say what is wrong with it
                some, count, counted = [], 0, False
            known = Figure(count, "counted" if counted else "guess") if some else Figure(UNKNOWN, "guess")
            found.append(Rows(known, some))
        return Rows(total(r.count for r in found), list(islice(_dealt(found), MOST)))

    @cached_property
    def division(self) -> Division:
        """The parts that `split` and `hold` make."""
        split, hold = self.step("split"), self.step("hold")
        if split is None:
            return Division()
        corpus, coverage = split.inputs["corpus"], split.inputs["coverage"]
        assert isinstance(corpus, Step)
        pairs = self.corpus(coverage) if isinstance(coverage, Step) else None
        cfg = c.SplitConfig.model_validate(split.config)
        seen, held = self.seen(split), hold and self.seen(hold)
        if not seen:
            return divide(cfg, self.corpus(corpus), pairs)
        parts = {
            name.removesuffix("_rows"): Rows(Figure(count), _head(seen.path / f"{name.removesuffix('_rows')}.jsonl"))
            for name, count in seen.notes.items()
            if name.endswith("_rows")
        }
        stand_in = parts.get("dev") if pairs else parts.get("train")
        count = Figure(held.rows_out) if held else divide(cfg, self.corpus(corpus), pairs)["held"].count
        return Division(parts | {"held": Rows(count, stand_in.some if stand_in else ())})

    def asked(self, step: Step) -> Rows:
        """The prompt set of a step that answers or scores."""
        for key in ("prompts", "held", "data"):
            source = step.inputs.get(key)
            if isinstance(source, Step):
                return self.asked_by(source)
        return Rows()

    def asked_by(self, source: Step) -> Rows:
        """The prompts that a step makes."""
        if source.name not in self._prompts:
            self._prompts[source.name] = self._asked_by(source)
        return self._prompts[source.name]

    def _asked_by(self, source: Step) -> Rows:
        if source.stage in ("prompt", "hold_prompts"):
            made = list(requests(c.PromptsStep.model_validate(source.config), _split(source)))
            return Rows(Figure(len(made)), made)
        if source.stage == "bias_prompts":
            from understudy.forecast.people import asked_about

            return asked_about(source, self)
        return self.division["held" if source.stage == "hold" else "dev"]


def _split(step: Step) -> Literal["dev", "held"]:
    return "dev" if step.stage == "prompt" else "held"


def _head(file: Path) -> list[Record]:
    return [from_json(row) for row in islice(read_jsonl(file), MOST)] if file.is_file() else []


def _dealt(parts: Sequence[Rows]) -> Iterator[Record]:
    """Rows of several sources, one behind the other."""
    for part in parts:
        yield from part.some
