"""A service LLM as judge: two grades from 1 to 100 and a reason for every answer.

A reply that repair and one re-ask cannot read is a failure of its item; more than 5 % of them stop the scoring.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from understudy.core.records import Example
from understudy.errors import DataError, RemoteError
from understudy.evals.scorers.base import references
from understudy.models.base import Conversation, Sampling
from understudy.models.template import Template

MAX_FAILED = 0.05
"""Share of items that the judge may fail on; above it the judge measures itself, not the answers."""
BATCH = 64
"""Items between two progress reports."""
PROMPT = Path(__file__).parent / "prompts" / "judge.txt"
NEEDED = ("question", "reference", "answer")
"""Placeholders of the template."""
EMPTY = "empty answer, not sent to the judge"
FORM = {
    "type": "object",
    "properties": {
        "similarity": {"type": "integer"},
        "precision": {"type": "integer"},
        "reason": {"type": "string"},
    },
    "required": ["similarity", "precision", "reason"],
    "additionalProperties": False,
}
"""JSON schema of a verdict, for services that can be held to one. Bounds are left out: not all endpoints take them."""
SYSTEM = "You grade answers strictly and evenly. You reply with JSON only."


class Judge(Protocol):
    """What is asked of a judge; `models.service.ServiceModel` is one."""

    def sampling(self) -> Sampling: ...

    def ask_json(
        self,
        conversations: Sequence[Conversation],
        schema: Callable[[Any], Verdict],
        sampling: Sequence[Sampling] | None = None,
        *,
        form: dict[str, Any] | None = None,
    ) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class Worded:
    """A judge that is asked in the words of another template than the one that ships.

    `stop_at`: the bar at which judging may stop early, once it is clear on which side of it the rate lies.
    """

    model: Judge
    template: Template
    stop_at: float | None = None

    def sampling(self) -> Sampling:
        return self.model.sampling()

    def ask_json(self, *args: Any, **options: Any) -> list[Any]:
        return self.model.ask_json(*args, **options)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judged answer; both grades 1-100."""

    similarity: int
    precision: int
    reason: str


@dataclass(frozen=True, slots=True)
class Failure:
    """An answer that the judge could not grade."""

    code: str
    reason: str


def judge(
    model: Judge,
    items: Sequence[tuple[Example, str]],
    progress: Callable[[int, int], None] | None = None,
    *,
    times: int = 1,
) -> list[Verdict | Failure]:
    """`times` outcomes for each (example, answer), in order, those of one answer together.

    An empty answer gets the lowest grades without a call. `refuse_unusable` says whether too many failed.
    """
    template = model.template if isinstance(model, Worded) else Template(PROMPT.read_text("utf-8"), PROMPT.name, NEEDED)
    asked = [(i, time) for i, (_, answer) in enumerate(items) if answer.strip() for time in range(times)]
    verdicts: list[Verdict | Failure] = [Verdict(1, 1, EMPTY)] * (times * len(items))
    drawn = [replace(model.sampling(), seed=time) for time in range(times)] if times > 1 else []
    for start in range(0, len(asked), BATCH):
        batch = asked[start : start + BATCH]
        chats = [conversation(template, *items[i]) for i, _ in batch]
        replies = model.ask_json(chats, parse, [drawn[time] for _, time in batch] if drawn else None, form=FORM)
        for (i, time), reply in zip(batch, replies, strict=True):
            failed = isinstance(reply, RemoteError)
            verdicts[i * times + time] = Failure(reply.code, reply.what) if failed else reply
        if progress:
            progress(start + len(batch), len(asked))
    return verdicts


def refuse_unusable(verdicts: Sequence[Verdict | Failure]) -> None:
    """Raises RemoteError JUDGE_UNUSABLE when more than 5 % of the outcomes are failures."""
    failures = [v for v in verdicts if isinstance(v, Failure)]
    if len(failures) > MAX_FAILED * len(verdicts):
        raise RemoteError(
            "JUDGE_UNUSABLE", "judge",
            f"{len(failures)} of {len(verdicts)} answers could not be graded "
            f"({failures[0].code}: {failures[0].reason})",
            "use another judge model, or rerun when the service is well: graded answers are cached",
        )  # fmt: skip


def parse(value: Any) -> Verdict:
    """A Verdict from the reply's JSON. Grades may be written as text or with decimals; 0 counts as the lowest grade."""
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return Verdict(_grade(value, "similarity"), _grade(value, "precision"), str(value.get("reason", ""))[:500])


def _grade(value: dict[str, Any], name: str) -> int:
    raw = value.get(name)
    try:
        if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
            raise ValueError
        grade = float(raw)
        if not math.isfinite(grade) or not 0 <= grade <= 100:
            raise ValueError
    except ValueError:
        raise ValueError(f"{name} is {str(raw)[:40]!r}, not a grade from 1 to 100") from None
    return max(1, math.floor(grade + 0.5))


def conversation(template: Template, example: Example, answer: str) -> Conversation:
    wanted = references(example)
    if not wanted:
        raise DataError("NO_REFERENCE", f"example {example.id}", "has no reference answer to judge against")
    turns = [m for m in example.prompt if m["role"] != "system"]
    question = turns[0]["content"] if len(turns) == 1 else "\n".join(f"{m['role']}: {m['content']}" for m in turns)
    blocks = {"question": question, "reference": wanted[0], "answer": answer}
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": template.fill(**blocks)}]
