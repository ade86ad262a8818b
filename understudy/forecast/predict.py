"""Goes through a plan and says what each step that is not done will need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from understudy.config import Config
from understudy.core.artifact import Store
from understudy.core.machine import fingerprint
from understudy.core.plan import Plan
from understudy.core.stage import Step
from understudy.forecast import memory
from understudy.forecast.asking import Asking
from understudy.forecast.computing import Computing, Probed
from understudy.forecast.disk import RECORDS, Sizes, written
from understudy.forecast.effort import Work, corrected
from understudy.forecast.figures import Figure, Need, add
from understudy.forecast.groups import group_of, place
from understudy.forecast.rows import Stock
from understudy.forecast.seen import Lessons, Seen

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Predicted:
    """One step; a finished one needs nothing."""

    name: str
    stage: str
    group: str
    done: bool
    need: Need

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "stage": self.stage, "group": self.group, "done": self.done, **self.need.to_json()}


@dataclass(frozen=True, slots=True)
class Forecast:
    """All steps in the plan's order."""

    steps: list[Predicted]

    @property
    def total(self) -> Need:
        summed = add(s.need for s in self.steps)
        records = Figure(RECORDS / 1e6, "guess") if any(not s.done for s in self.steps) else Figure()
        return replace(summed, disk_mb=summed.disk_mb + records)

    def groups(self) -> Iterable[tuple[str, list[Predicted]]]:
        found: dict[str, list[Predicted]] = {}
        for step in self.steps:
            found.setdefault(step.group, []).append(step)
        return sorted(found.items(), key=lambda kv: place(kv[0]))

    def to_json(self) -> dict[str, Any]:
        """What `plan --json` prints and a run keeps."""
        return {
            "schema": SCHEMA,
            "machine": fingerprint(),
            "total": self.total.to_json(),
            "steps": [s.to_json() for s in self.steps],
        }


def predict(
    plan: Plan, cfg: Config, root: Path, store: Store, runs: Iterable[Path], probed: Probed | None = None
) -> Forecast:
    """What the plan's steps need; `runs` are the folders of earlier runs, the oldest first, `probed` measured speeds.

    No call is made and no held row is read.
    """
    return _Predictor(plan, cfg, root, store, Lessons.of(store, runs), probed).forecast()


class _Predictor:
    def __init__(
        self, plan: Plan, cfg: Config, root: Path, store: Store, lessons: Lessons, probed: Probed | None
    ) -> None:
        self.plan, self.cfg, self.root, self.lessons = plan, cfg, root, lessons
        self.stock = Stock(plan, store, root)
        self.computing = Computing(cfg, root, self.stock, lessons, probed)
        self.asking = Asking(self.stock, lessons, self.computing.folder)
        self.registry_mb = memory.REGISTRY_MB if (root / "registry").is_dir() else 0.0
        self.before = 0.0

    @cached_property
    def sizes(self) -> Sizes:
        return Sizes.of(self.cfg, self.root)

    def forecast(self) -> Forecast:
        own = [s for s in self.plan.steps if s.stage != "adopt"]
        return Forecast([self._step(step) for step in own])

    def _step(self, step: Step) -> Predicted:
        seen = self.stock.seen(step)
        need = Need() if seen else self._need(step)
        return Predicted(step.name, step.stage, group_of(step), seen is not None, need)

    def _need(self, step: Step) -> Need:
        need = self.asking.need(step) or self.computing.need(step) or Need(rows=self._rows(step))
        work = self.computing.work(step, need)
        # One step's time says little on a machine that does other things too, so that all of its stage count.
        timed = [s for s in self.lessons.family(step) if s.here and _timed(s)]
        earlier = [(self.computing.done(s), self._took(s)) for s in timed]
        held = [float(s.measured["peak_memory_mb"]) for s in self.lessons.like(step, here=True, useful=_weighed)]
        own = self.computing.own_memory(step) + self.registry_mb
        peak = memory.peak(step.stage, own, self.before, held)
        self.before = max(self.before, peak.value)
        return replace(
            need,
            seconds=self._seconds(work, earlier),
            memory_mb=peak,
            disk_mb=self._disk(step, need),
        )

    def _disk(self, step: Step, need: Need) -> Figure:
        if step.stage == "select":
            return Figure()
        learnt = written(step.kind, self.lessons.like(step), need.rows.value)
        if learnt is not None:
            return Figure(learnt / 1e6, "measured")
        tokens = 0.0
        if step.stage == "pack":
            chats = self.computing.training(step)
            tokens = chats.count.value * chats.tokens
        size = self.sizes.of_rows(step, self.cfg.train.method, need.rows.value, tokens)
        return Figure(size / 1e6, "guess" if size else "counted")

    def _seconds(self, work: Work, earlier: list[tuple[Work, float]]) -> Figure:
        return corrected(work, earlier, self.computing.speed, self.computing.probed_speed(work.stage))

    def _took(self, seen: Seen) -> float:
        return float(seen.measured["seconds"])

    def _rows(self, step: Step) -> Figure:
        """Of steps that neither ask nor compute."""
        if step.kind == "Corpus":
            return self.stock.corpus(step).count
        parts = self.stock.division
        counts: dict[str, Callable[[], Figure]] = {
            "split": lambda: sum((parts[n].count for n in parts.parts if n != "held"), Figure()),
            "hold": lambda: parts["held"].count,
            "prompt": lambda: self.stock.asked_by(step).count,
            "hold_prompts": lambda: self.stock.asked_by(step).count,
            "bias_prompts": lambda: self.stock.asked_by(step).count,
            "pack": lambda: self.computing.training(step).count,
        }
        return counts.get(step.stage, Figure)()


def _timed(seen: Seen) -> bool:
    return float(seen.measured.get("seconds", 0)) > 0


def _weighed(seen: Seen) -> bool:
    return "peak_memory_mb" in seen.measured
