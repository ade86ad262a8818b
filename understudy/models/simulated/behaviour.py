"""What the simulated service says: reads the labels of a request, and asks the teacher, the judge or the assistant."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from understudy.core.records import Example, digest
from understudy.models.simulated.chat import Assistant
from understudy.models.simulated.judge import grades, judge
from understudy.models.simulated.protocol import Request
from understudy.models.simulated.teacher import Task, synthesize

SEEDS, DOCUMENT = "SEED EXAMPLES (JSON):", "DOCUMENT (JSON):"
CATEGORY, HOW_MANY, VARIANT = "CATEGORY (JSON):", "HOW MANY (JSON):", "VARIANT (JSON):"
LENGTH = "LENGTH OF A QUESTION (JSON):"
QUESTION, REFERENCE, ANSWER = "QUESTION (JSON):", "REFERENCE (JSON):", "ANSWER (JSON):"
RUBRICS, CONTEXT = "RUBRICS (JSON):", "CONTEXT (JSON):"


def labelled(text: str) -> dict[str, Any]:
    """The JSON blocks of a prompt by label: a label stands alone on a line, its JSON is the next line."""
    # Not splitlines(): JSON text may hold U+2028 and other line separators as they are.
    lines = text.split("\n")
    blocks = {}
    for label, block in zip(lines, lines[1:], strict=False):
        if label.strip().endswith("(JSON):"):
            try:
                blocks[label.strip()] = json.loads(block)
            except ValueError:
                continue
    return blocks


def role_of(request: Request) -> str:
    """`teacher`, `judge` or `service`, by the labels in the latest labelled user turn."""
    return _role(_blocks(request))


def _blocks(request: Request) -> dict[str, Any]:
    """Labels of the last user turn; of an earlier one when the last only asks to mend a reply."""
    for message in reversed(request.messages):
        if message["role"] == "user" and _role(found := labelled(message["content"])) != "service":
            return found
    return {}


def _role(blocks: dict[str, Any]) -> str:
    if {SEEDS, DOCUMENT} <= blocks.keys():
        return "teacher"
    judged = {QUESTION, ANSWER} <= blocks.keys() and not blocks.keys().isdisjoint((REFERENCE, CONTEXT))
    return "judge" if judged else "service"


class Behaviour:
    """Answers as a function of (seed, request)."""

    def __init__(self, knowledge: Sequence[Example], seed: int, wrong_rate: float) -> None:
        self._assistant = Assistant(knowledge)
        self._seed, self._wrong_rate = seed, wrong_rate

    def answer(self, request: Request) -> str:
        blocks = _blocks(request)
        role = _role(blocks)
        if role == "teacher":
            reply = synthesize(_task(blocks), request_hash=request.hash, seed=self._seed, wrong_rate=self._wrong_rate)
        elif role == "judge" and (RUBRICS in blocks or REFERENCE not in blocks):
            given = (_text(blocks.get(label) or "") for label in (QUESTION, CONTEXT, REFERENCE, ANSWER))
            reply = grades([str(r) for r in blocks.get(RUBRICS, ["faithfulness"])], *given)
        elif role == "judge":
            jitter = int(digest([self._seed, request.hash, "jitter"], 8), 16) / 2**31 - 1
            texts = (_text(blocks[label]) for label in (QUESTION, REFERENCE, ANSWER))
            reply = judge(*texts, jitter=jitter)
        else:
            return self._assistant.reply(request.messages)
        return json.dumps(reply, ensure_ascii=False)


def _task(blocks: dict[str, Any]) -> Task:
    seeds, document = blocks[SEEDS], blocks[DOCUMENT]
    category, how_many, variant = blocks.get(CATEGORY), blocks.get(HOW_MANY, 1), blocks.get(VARIANT, 0)
    return Task(
        seeds=[s for s in seeds if isinstance(s, dict)] if isinstance(seeds, list) else [],
        document=_text(document.get("text", "") if isinstance(document, dict) else document),
        category=category if isinstance(category, str) else None,
        how_many=max(0, min(50, how_many)) if type(how_many) is int else 1,
        variant=abs(variant) if type(variant) is int else 0,
        length=_length(blocks.get(LENGTH)),
    )


def _length(block: Any) -> tuple[int, int] | None:
    """Fewest and most characters of a question."""
    least, most = (block.get("least"), block.get("most")) if isinstance(block, dict) else (None, None)
    return (least, most) if isinstance(least, int) and isinstance(most, int) else None


def _text(value: Any) -> str:
    """A block's text; a list of references counts by its first."""
    if isinstance(value, list):
        value = value[0] if value else ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
