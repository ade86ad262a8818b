"""Soft metrics that somebody else gives: the judge's rubrics, or a classifier, in place of the scorer of that name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from understudy.config import ClassifierConfig
from understudy.core.records import Example, Ledger
from understudy.errors import ConfigError
from understudy.evals import scorers
from understudy.evals.classifier import Classifier
from understudy.evals.grades import Grader, as_value, grade
from understudy.evals.judge import Failure
from understudy.evals.scorers.base import missing

Row = dict[str, Any]
By = Mapping[Any, Literal["judge"] | ClassifierConfig]
NOT_NEGATIVE = 2.5
"""A sentiment that rounds to 3 (neutral) or more."""


def score(
    by: By, items: list[tuple[Example, str]], rows: list[Row], ledger: Ledger, *, judge_model: Any, project: Path
) -> None:
    """Write values and reasons of the metrics in `by` into `rows`; what an example lacks is noted, not guessed.

    Raises ConfigError without a judge, RemoteError for an unusable one, and what a classifier's loading raises.
    """
    rubrics = [metric for metric, who in by.items() if who == "judge"]
    if rubrics:
        if judge_model is None:
            raise ConfigError("JUDGE_MISSING", "score.by", f"{rubrics[0]} needs the judge", "set `judge`")
        _graded(judge_model, rubrics, items, rows, ledger)
    for metric, who in by.items():
        if isinstance(who, ClassifierConfig):
            places = [i for i in range(len(items)) if _scorable(metric, items[i][0], rows[i], ledger)]
            model = Classifier(who, project, f"score.by.{metric}")
            found = model.score(metric, scorers.about(metric).unit, [items[i] for i in places])
            for i, result in zip(places, found, strict=True):
                rows[i]["values"][metric], rows[i]["reasons"][metric] = result.value, result.reason
    if "sentiment" in by:
        _follow(rows)


def _graded(
    model: Grader, rubrics: list[str], items: list[tuple[Example, str]], rows: list[Row], ledger: Ledger
) -> None:
    """One call per answer; an answer is graded only under the rubrics that its example allows."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, (example, _) in enumerate(items):
        asked = tuple(r for r in rubrics if _scorable(r, example, rows[i], ledger))
        if asked:
            groups.setdefault(asked, []).append(i)
    for asked, places in groups.items():
        for i, found in zip(places, grade(model, asked, [items[i] for i in places]), strict=True):
            if isinstance(found, Failure):
                ledger.note("grade_failed")
                rows[i]["reasons"] |= dict.fromkeys(
                    asked, f"not scored: the judge failed ({found.code}: {found.reason})"
                )
                continue
            for rubric, value in found.values.items():
                rows[i]["values"][rubric] = as_value(value, scorers.about(rubric).unit)
                rows[i]["reasons"][rubric] = f"{value} of 5: {found.reason}"


def _scorable(metric: str, example: Example, row: Row, ledger: Ledger) -> bool:
    lacking = missing(example, scorers.about(metric).needs)
    if lacking:
        row["reasons"][metric] = f"not scored: the example has no {lacking}"
        ledger.note(f"not_scored:{metric}")
    return lacking is None


def _follow(rows: list[Row]) -> None:
    """`not_negative` is read off the same sentiment."""
    for row in rows:
        if "not_negative" in row["values"]:
            row["values"].pop("not_negative")
            row["reasons"].pop("not_negative", None)
            if "sentiment" in row["values"]:
                row["values"]["not_negative"] = float(row["values"]["sentiment"] >= NOT_NEGATIVE)
