"""A judge's look at every row that would be kept: does the answer say nothing but what its document supports?

A row below the grade is rejected with the judge's reason; one that is kept carries its verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from understudy.data.synthesis.batch import Batch
from understudy.data.synthesis.rows import Row
from understudy.data.synthesis.texts import question_of
from understudy.errors import RemoteError
from understudy.models.base import Conversation
from understudy.models.template import Template

PROMPT = Path(__file__).parent / "prompts" / "faithful.txt"
NEEDED = ("question", "context", "answer")
SYSTEM = "You grade answers strictly and evenly. You reply with JSON only."
MAX_FAILED = 0.05
"""Share of rows that the judge may fail on, of at least ENOUGH; above it the judge is at fault, not the rows."""
ENOUGH = 20
FORM = {
    "type": "object",
    "properties": {"faithfulness": {"type": "integer"}, "reason": {"type": "string"}},
    "required": ["faithfulness", "reason"],
    "additionalProperties": False,
}
"""JSON schema of a reply."""


class Judge(Protocol):
    """What is asked of a judge; `models.service.ServiceModel` is one."""

    @property
    def identity(self) -> dict[str, str]: ...

    def ask_json(
        self, conversations: Sequence[Conversation], schema: Callable[[Any], Verdict], *, form: dict[str, Any]
    ) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """Grade 1 to 5 and the judge's reason."""

    grade: int
    reason: str


class Faithful:
    """The check. Rows that the judge cannot grade are rejected as `judge_failed`."""

    def __init__(self, judge: Judge, min_grade: int, template: Template | None = None) -> None:
        self.judge, self.min_grade = judge, min_grade
        self.template = template or Template(PROMPT.read_text("utf-8"), PROMPT.name, NEEDED)
        self.asked = self.failed = 0

    def check(self, batch: Batch, rows: Sequence[tuple[Row, str]]) -> None:
        """Drop what fails out of the batch; `rows` with the text that each was written from.

        Raises RemoteError JUDGE_UNUSABLE when the judge fails on more than 5 % of the rows, or on all of a first few.
        """
        if not rows:
            return
        conversations = [self._conversation(row, text) for row, text in rows]
        verdicts = self.judge.ask_json(conversations, parse, form=FORM)
        self.asked += len(rows)
        failures = [v for v in verdicts if isinstance(v, RemoteError)]
        self.failed += len(failures)
        if self.failed == self.asked or (self.asked >= ENOUGH and self.failed > MAX_FAILED * self.asked):
            what = f"{self.failed} of {self.asked} rows could not be graded ({failures[-1].code}: {failures[-1].what})"
            raise RemoteError(
                "JUDGE_UNUSABLE", "synthesize.faithful", what, "use another judge, or leave `faithful` out"
            )
        for (row, _), verdict in zip(rows, verdicts, strict=True):
            if isinstance(verdict, RemoteError):
                batch.drop(row, "judge_failed", f"{verdict.code}: {verdict.what[:200]}")
            elif verdict.grade < self.min_grade:
                detail = f"grade {verdict.grade}: {verdict.reason}; answer: {(row.example.answer or '')[:80]}"
                batch.drop(row, "unfaithful_judged", detail)
            else:
                row.example.meta["faithful"] = {
                    "grade": verdict.grade, "reason": verdict.reason, "judge": self.judge.identity,
                    "template": self.template.digest,
                }  # fmt: skip

    def _conversation(self, row: Row, text: str) -> Conversation:
        asked = self.template.fill(question=question_of(row.example), context=text, answer=row.example.answer)
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}]


def parse(value: Any) -> Verdict:
    """A Verdict from the reply's JSON. Raises ValueError for anything but a whole grade from 1 to 5."""
    raw = value.get("faithfulness") if isinstance(value, dict) else None
    try:
        grade = float(raw) if isinstance(raw, (int, float, str)) and not isinstance(raw, bool) else 0.0
    except ValueError:
        grade = 0.0
    if grade not in (1, 2, 3, 4, 5):
        raise ValueError(f"faithfulness is {str(raw)[:40]!r}, not a whole grade from 1 to 5")
    return Verdict(int(grade), str(value.get("reason", ""))[:300])
