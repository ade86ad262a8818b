"""Decisions about a finished run, from what it stored: other thresholds, another bar. No model is asked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import Any

from understudy.config import GateConfig
from understudy.core.artifact import Artifact
from understudy.core.records import read_examples
from understudy.core.stage import Step
from understudy.errors import ConfigError
from understudy.evals import calibrating, canary, regate
from understudy.evals.labels import read_labels
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
        self.answers = self._found(project, _one(candidate.inputs["answers"])).path
        self.examples = read_examples(self._found(project, _one(candidate.inputs["held"])).path / "held.jsonl")
        second = [s for s in run.plan().steps if s.name == "score-second-judge"]
        self.second = self._found(project, second[0]).path if second else None
        self.scores = {who: self._found(project, of).path for who, of in steps.items()}
        bias = step.inputs["bias"]
        asked = step.inputs.get("canaries") or []
        assert isinstance(asked, list)
        canaries = [canary.read(self._found(project, s).path) for s in asked]
        self.blocks = {
            "bias": dict(self._found(project, bias).facts) if isinstance(bias, Step) else None,
            "canaries": canary.facts(canaries, float(str(step.config.get("max_flips", 0.0)))),
        }

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


def _one(value: object) -> Step:
    assert isinstance(value, Step)
    return value


def label_sheet(given: HeldScores, count: int) -> str:
    """The CSV text that people fill in."""
    scores, setting = given.held["candidate"]
    limits = regate.thresholds(scores)  # first, since it says when nobody judged
    grades, answers = calibrating.grades_of(scores, setting), calibrating.answers_of(given.answers, setting)
    return calibrating.sheet(given.examples, answers, grades, limits, count)


def calibrated(given: HeldScores, labels: Path | None) -> dict[str, Any]:
    """What people's labels and the second judge say of the judge: {"labels": ..., "second_judge": ...}."""
    scores, setting = given.held["candidate"]
    limits, grades = regate.thresholds(scores), calibrating.grades_of(scores, setting)
    sure = given.rules.confidence
    bar = given.rules.bar if given.rules.metric == "coverage" else None
    found: dict[str, Any] = {"bar": bar}
    if labels:
        answers = calibrating.answers_of(given.answers, setting)
        found["labels"] = calibrating.calibrate(read_labels(labels), answers, grades, limits, bar, sure)
    if given.second:
        other = calibrating.grades_of(given.second, setting)
        found["second_judge"] = calibrating.compare(grades, other, limits, bar if bar is not None else 1.0, sure)
    if len(found) == 1:
        fix = "give a file of labels (--sheet 60 makes one), or set `second_judge` and run"
        raise ConfigError("CALIBRATE_NOTHING", given.run.id, "there is nothing to compare the judge with", fix)
    return found


def calibration_table(found: dict[str, Any]) -> Iterator[str]:
    """At most 80 columns."""
    bar = found["bar"]
    if of := found.get("labels"):
        yield f"judge against people: {of['answers']} answers of {of['items']} items labelled"
        for name in ("sensitivity", "specificity", "kappa", "spearman_similarity", "spearman_precision"):
            yield f"  {name.replace('_', ', '):<26}{_interval(of[name]) if of[name] else 'these labels cannot tell'}"
        for name, what in LEFT_OUT.items():
            if of[name]:
                yield f"  {of[name]} {what}"
        yield f"coverage on held by the judge   {_interval(of['judged'])}"
        yield f"corrected by people's labels    {_interval(of['corrected'])}"
        if bar is not None:
            yield f"bar {bar:g}: {_cleared(of['clears'])} by the judge, {_cleared(of['clears_corrected'])} corrected"
    if of := found.get("second_judge"):
        yield f"second judge: {of['answers']} answers"
        kappa = _interval(of["kappa"]) if of["kappa"] else "one of them never changes its mind"
        yield f"  kappa                     {kappa}"
        yield f"  coverage                  {_interval(of['rates'][0])} and {_interval(of['rates'][1])}"
        yield f"  difference, paired        {_interval(of['difference'])}"
        if bar is not None:
            yield f"  the decision {'FLIPS' if of['flips'] else 'does not flip'} at the bar of {bar:g}"


LEFT_OUT = {
    "unmatched": "labels fit no answer of this run",
    "unjudged": "labelled answers could not be graded by the judge",
    "split": "answers divide their labellers evenly and decide nothing",
}


def _cleared(clears: bool) -> str:
    return "cleared" if clears else "not cleared"


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
            verdicts.append(regate.regate(of, given.held, *limits, into, champion=given.champion, blocks=given.blocks))
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
