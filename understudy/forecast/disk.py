"""What the steps that are not done yet will write, about: by rows at shipped rates, or as like steps have written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from understudy.config import Config
from understudy.core.artifact import MANIFEST, Store
from understudy.core.plan import Plan
from understudy.core.stage import Step
from understudy.data.sources.files import local_files
from understudy.data.sources.objects import scheme_of
from understudy.forecast.seen import Seen

RECORDS = 2_000_000
"""Bytes of journals, reports and the registry's database."""
ROW_BYTES = {"Answers": 250, "Scores": 1150, "BiasReport": 500, "Canary": 480}
"""Of an answer, its scores and reasons, and so on; as in the course advisor."""
WRITTEN_ROW, TOKEN = 1400, 9 / 0.93
"""Bytes of a row that a teacher writes with its provenance, and of a token with mask and place in rows 93 % full."""
PAGE = {"Report": 150_000, "Guard": 150_000}
"""Bytes of what hardly depends on the rows."""
BESIDE = 1.2
"""A trained model with its adapter and tokenizer, in weights."""
OF_ROWS = ("Corpus", "Dataset", "HeldSet", "Packed", "Answers", "Scores", "BiasReport")
"""Kinds that are as large as their rows."""
MOMENTS = 10
"""Trained whole, up to three checkpoints of weights and two moments lie beside the result; in weights."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes that all else follows from: the base's files, its weights in float32, the sources' files."""

    base: int
    weights: int
    rows: int

    @classmethod
    def of(cls, cfg: Config, root: Path) -> Sizes:
        from understudy.models.base_files import files, float32_bytes, locate

        folder = locate(cfg.base.path, root)
        return cls(sum(p.stat().st_size for p in files(folder)), float32_bytes(folder), _local(cfg, root))

    def step(self, stage: str, kind: str, method: str) -> int:
        """Bytes of one step: rows are as large as their files, trained weights float32. Kinds that are small are 0."""
        if stage == "train":
            return self.weights * (MOMENTS if method == "full" else 1)
        if stage == "select":  # the chosen model's own files once more, which take no room
            return 0
        return {"Base": self.base, "Corpus": self.rows, "Dataset": self.rows, "Packed": 2 * self.rows}.get(kind, 0)

    def of_rows(self, step: Step, method: str, rows: float, tokens: float) -> float:
        """Bytes of a step with so many rows, and tokens where it packs; finer than `step` before anything ran."""
        if step.stage in ("synthesize", "bias_prompts"):
            return WRITTEN_ROW * rows
        if step.stage == "train":
            return BESIDE * self.step(step.stage, step.kind, method)
        if step.kind == "Packed":
            return TOKEN * tokens
        small = ROW_BYTES.get(step.kind, 0) * rows + PAGE.get(step.kind, 0)
        return small or self.step(step.stage, step.kind, method)


def written(kind: str, earlier: Sequence[Seen], rows: float) -> float | None:
    """Bytes of a step with so many rows, from what like steps have written; None where that cannot be told.

    Models are as large as their base and method make them, whatever was trained before.
    """
    counted = sum(s.rows_out for s in earlier)
    if kind not in OF_ROWS or not counted or not rows:
        return None
    return sum(f.stat().st_size for s in earlier for f in s.path.rglob("*") if f.is_file()) / counted * rows


def _local(cfg: Config, root: Path) -> int:
    sources = [*cfg.sources, *([cfg.coverage] if cfg.coverage else [])]
    local = [s for s in sources if s.kind == "files" and scheme_of(s.path or "") in ("", "file")]
    return sum(Path(file.address).stat().st_size for source in local for file in local_files(source, root))


def unfinished(plan: Plan, store: Store) -> Sequence[Step]:
    """The steps that `run` would carry out."""
    own = (s for s in plan.steps if s.stage != "adopt")
    return [s for s in own if not (store.address(s.name, s.fingerprint) / MANIFEST).is_file()]


def estimate(cfg: Config, root: Path, plan: Plan, store: Store) -> int:
    """Bytes that the plan has still to write, about; 0 when all is done."""
    steps = unfinished(plan, store)
    sizes = Sizes.of(cfg, root)
    return sum(sizes.step(s.stage, s.kind, cfg.train.method) for s in steps) + (RECORDS if steps else 0)
