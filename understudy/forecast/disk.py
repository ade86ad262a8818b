"""What the steps that are not done yet will write, about."""

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

RECORDS = 2_000_000
"""Bytes of journals, reports and the registry's database."""
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
        return {"Base": self.base, "Corpus": self.rows, "Dataset": self.rows, "Packed": 2 * self.rows}.get(kind, 0)


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
