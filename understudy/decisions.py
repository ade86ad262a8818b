"""Decisions about a finished run, from what it stored: other thresholds, another bar. No model is asked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import Any

from understudy.config import GateConfig
from understudy.core.artifact import Artifact
from understudy.core.stage import Step
from understudy.errors import ConfigError
from understudy.evals import regate
from understudy.evals.score import main_setting
from understudy.project import Project, Run

COLUMNS = 80


class HeldScores:
    """What the gate of a run decided on: everybody's scores of the held set, and the bias report's facts."""

    def __init__(self, project: Project, run: Run) -> None:
        step = run.plan().step("gate")
        self.run = run
        self.rules = GateConfig.model_validate({k: v for k, v in step.config.items() if k in GateConfig.model_fields})
        candidate, champion = step.inputs["candidate"], step.inputs["champion"]
        others = step.inputs["others"]
        assert isinstance(candidate, Step) and isinstance(others, list) and not isinstance(champion, list)
        self.champion = champion is not None
        steps = {"candidate": candidate, **{s.name.removeprefix("score-held-"): s for s in others}}
        steps |= {"champion": champion} if champion else {}
        self.scores = {who: self._found(project, of).path for who, of in steps.items()}
        bias = step.inputs["bias"]
        self.bias = dict(self._found(project, bias).facts) if isinstance(bias, Step) else None

    def _found(self, project: Project, step: Step) -> Artifact:
        found = project.store.find(step.name, step.fingerprint)
        if found is None:
            what, fix = f"{step.name} is not made yet", "understudy run carries it on"
            raise ConfigError("RUN_UNFINISHED", self.run.id, what, fix)
        return found

    @property
    def held(self) -> dict[str, tuple[Path, str]]:
        """Who -> (folder of scores, setting)."""
        return {who: (path, main_setting(path)) for who, path in self.scores.items()}


def decide_again(given: HeldScores, similarity: int | None, precision: int | None, bar: float | None) -> dict[str, Any]:
    """The verdict under other thresholds, beside the stored one: {"before", "after", "similarity", "precision"}."""
    was = regate.thresholds(given.scores["candidate"])
    now = similarity or was[0], precision or was[1]
    rules = given.rules if bar is None else given.rules.model_copy(update={"bar": bar})
    verdicts = []
    with tempfile.TemporaryDirectory() as folder:
        for name, of, limits in (("before", given.rules, was), ("after", rules, now)):
            into = Path(folder) / name
            into.mkdir()
            verdicts.append(regate.regate(of, given.held, *limits, into, champion=given.champion, bias=given.bias))
    return {"similarity": now[0], "precision": now[1], "was": was, "before": verdicts[0], "after": verdicts[1]}


def table(found: dict[str, Any]) -> Iterator[str]:
    """At most 80 columns: everybody's rate before and after, and the rules."""
    was, now = found["was"], (found["similarity"], found["precision"])
    yield f"{'coverage on held':<18}{'similarity ' + str(was[0]) + ', precision ' + str(was[1]):<31}" + (
        f"similarity {now[0]}, precision {now[1]}"
    )
    for who, of in found["before"]["held"].items():
        if "coverage" in of:
            yield f"{who:<18}{_interval(of['coverage']):<31}{_interval(found['after']['held'][who]['coverage'])}"
    yield ""
    for rule in found["after"]["rules"]:
        yield from wrap(f"{'pass' if rule['passed'] else 'FAIL'}  {rule['text']}", COLUMNS, subsequent_indent=" " * 6)
    before, after = (found[k]["passed"] for k in ("before", "after"))
    change = "as before" if before == after else f"before: {'pass' if before else 'fail'}"
    yield f"verdict: {'pass' if after else 'fail'} ({change}); 0 calls, nothing was changed"


def _interval(row: dict[str, Any]) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
