"""What earlier steps of this project have shown, read from their manifests alone; contents are not verified here.

The last runs teach: how many bytes a service's token has, how many rows of a reply survive, how long a step took.
Times and memory count only when they were taken on this machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from understudy.core.artifact import MANIFEST, MEASURED, Store
from understudy.core.machine import fingerprint
from understudy.core.stage import Step

RUNS = 3
"""Runs that are looked back on."""
FAMILY = {"answer_held": "answer", "answer_bias": "answer", "score_held": "score", "ask_bias": "ask_service"}
"""Stages that do the work of another on other rows."""
_NUMBER = re.compile(r"\d+$")


@dataclass(frozen=True)
class Seen:
    """A committed artifact, as its manifest has it."""

    path: Path
    manifest: dict[str, Any]

    @cached_property
    def measured(self) -> dict[str, Any]:
        file = self.path / MEASURED
        return _json(file)

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def stage(self) -> str:
        return str(self.manifest["stage"])

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.manifest["config"])

    @property
    def facts(self) -> dict[str, Any]:
        return dict(self.manifest["facts"])

    @property
    def rows_in(self) -> int:
        return int((self.manifest.get("rows") or {}).get("rows_in", 0))

    @property
    def rows_out(self) -> int:
        return int((self.manifest.get("rows") or {}).get("rows_out", 0))

    @property
    def notes(self) -> dict[str, int]:
        return dict((self.manifest.get("rows") or {}).get("notes", {}))

    def calls(self, role: str) -> dict[str, float]:
        """What the step asked of a role: requests, prompt_bytes, prompt_tokens and so on; empty for nothing."""
        found = self.measured.get("calls") or {}
        if "requests" not in found:  # a step with several roles
            return dict(found.get(role) or {})
        return dict(found) if self.config.get(role) else {}

    @property
    def here(self) -> bool:
        """Whether this machine made it."""
        return self.measured.get("machine") == fingerprint()


def look(store: Store, name: str, fingerprint: str) -> Seen | None:
    """The step's artifact; None when there is none or its manifest is damaged, which `run` will say."""
    path = store.address(name, fingerprint)
    manifest = _json(path / MANIFEST)
    return Seen(path, manifest) if manifest else None


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


class Lessons:
    """The artifacts of earlier runs, the newest first."""

    def __init__(self, seen: Sequence[Seen]) -> None:
        self.seen = seen

    @classmethod
    def of(cls, store: Store, runs: Iterable[Path]) -> Lessons:
        """From the last runs of a project; `runs` are their folders, the oldest first."""
        found: dict[Path, Seen] = {}
        for run in reversed(list(runs)[-RUNS:]):
            for row in _json(run / "plan.json").get("steps", []):
                one = look(store, row["name"], row["fingerprint"]) if row.get("stage") != "adopt" else None
                if one and "alias_of" not in one.manifest:
                    found.setdefault(one.path, one)
        return cls(list(found.values()))

    def family(self, step: Step) -> list[Seen]:
        """The artifacts of stages that do the step's work, whatever their names."""
        return [s for s in self.seen if alike(s.stage, step.stage)]

    def like(self, step: Step, *, here: bool = False, useful: Callable[[Seen], bool] | None = None) -> list[Seen]:
        """The newest artifact of the step's own name; else of names that differ by a number, else of like stages."""
        fit = [s for s in self.family(step) if (not here or s.here) and (not useful or useful(s))]
        same = [s for s in fit if s.name == step.name][:1]
        return same or [s for s in fit if kind(s.name) == kind(step.name)] or fit

    def asked(self, role: str, service: dict[str, Any], step: Step) -> list[Seen]:
        """Steps that asked this model in this role: of the step's own name, else of like stages; at last any."""
        wanted = (service.get("provider"), service.get("model"))

        def same(seen: Seen) -> bool:
            asked = seen.config.get(role) or {}
            known = seen.calls(role).get("prompt_tokens", 0) > 0
            return known and (asked.get("provider"), asked.get("model")) == wanted

        return self.like(step, useful=same) or [s for s in self.seen if same(s)]


def alike(stage: str, other: str) -> bool:
    """Whether two stages do the same work, on whatever rows."""
    return FAMILY.get(stage, stage) == FAMILY.get(other, other)


def kind(name: str) -> str:
    """`train-2` and `train-3` are of one kind."""
    return _NUMBER.sub("#", name)
