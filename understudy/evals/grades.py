"""Soft metrics from the judge: one call grades one answer from 1 to 5 under every rubric that is asked for.

A grade of 1 to 5 becomes 0 to 1 where the scorer of that name is a share; sentiment stays 1 to 5.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Protocol

from understudy.core.records import Example
from understudy.errors import RemoteError
from understudy.evals.judge import BATCH, MAX_FAILED, SYSTEM, Failure
from understudy.evals.scorers.base import context, question, references
from understudy.models.base import Conversation

PROMPT = Path(__file__).parent / "prompts" / "grades.txt"


class Grader(Protocol):
    """What is asked of a judge; `models.service.ServiceModel` is one."""

    def ask_json(self, conversations: Sequence[Conversation], schema: Callable[[Any], Grades]) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class Grades:
    """Rubric -> grade, 1 to 5."""

    values: dict[str, int]
    reason: str


def grade(
    model: Grader,
    rubrics: Sequence[str],
    items: Sequence[tuple[Example, str]],
    progress: Callable[[int, int], None] | None = None,
) -> list[Grades | Failure]:
    """Grades or a Failure per (example, answer), in order. Raises RemoteError JUDGE_UNUSABLE above 5 % failures.

    An empty answer gets the lowest grades (a neutral sentiment) without a call.
    """
    template = Template(PROMPT.read_text("utf-8"))
    empty = Grades({r: 3 if r == "sentiment" else 1 for r in rubrics}, "empty answer, not sent to the judge")
    found: list[Grades | Failure] = [empty] * len(items)
    asked = [i for i, (_, answer) in enumerate(items) if answer.strip()]
    for start in range(0, len(asked), BATCH):
        batch = asked[start : start + BATCH]
        replies = model.ask_json([_conversation(template, rubrics, *items[i]) for i in batch], reader(rubrics))
        for i, reply in zip(batch, replies, strict=True):
            found[i] = Failure(reply.code, reply.what) if isinstance(reply, RemoteError) else reply
        if progress:
            progress(start + len(batch), len(asked))
    failures = [f for f in found if isinstance(f, Failure)]
    if len(failures) > MAX_FAILED * len(items):
        what = f"{len(failures)} of {len(items)} answers could not be graded ({failures[0].code}: {failures[0].reason})"
        fix = "use another judge model, or take the shipped scorers (score.by)"
        raise RemoteError("JUDGE_UNUSABLE", "judge", what, fix)
    return found


def reader(rubrics: Sequence[str]) -> Callable[[Any], Grades]:
    """A function that reads the reply's JSON; ValueError for anything but whole grades from 1 to 5 for each rubric."""

    def read(value: Any) -> Grades:
        if not isinstance(value, dict):
            raise ValueError("not an object")
        return Grades(
            {name: whole_grade(name, value.get(name)) for name in rubrics}, str(value.get("reason", ""))[:500]
        )

    return read


def as_value(grade: int, unit: str) -> float:
    """A grade in the unit of the scorer that it stands for."""
    return (grade - 1) / 4 if unit == "share" else float(grade)


def whole_grade(name: str, raw: Any) -> int:
    """A grade from 1 to 5 as a judge wrote it. Raises ValueError for anything else."""
    try:
        number = float(raw) if isinstance(raw, (int, float, str)) and not isinstance(raw, bool) else 0.0
    except ValueError:
        number = 0.0
    if number not in (1, 2, 3, 4, 5):
        raise ValueError(f"{name} is {str(raw)[:40]!r}, not a whole grade from 1 to 5")
    return int(number)


def _conversation(template: Template, rubrics: Sequence[str], example: Example, answer: str) -> Conversation:
    blocks = {
        "rubrics": list(rubrics),
        "question": question(example),
        "context": context(example) or None,
        "reference": next(iter(references(example)), None),
        "answer": answer,
    }
    text = template.substitute({k: json.dumps(v, ensure_ascii=False) for k, v in blocks.items()})
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
