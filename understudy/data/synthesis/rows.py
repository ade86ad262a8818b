"""Rows of a reply, the examples that they become, and which cell each fills."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from understudy.core.records import Example, digest
from understudy.data.clean import context_turn
from understudy.data.synthesis.cells import Cell, Lengths, group_of
from understudy.data.synthesis.requests import Request
from understudy.data.synthesis.texts import normalised

_TEXT = {"type": "string"}
_ROW = {"question": _TEXT, "answer": _TEXT, "facts": {"type": "array", "items": _TEXT}, "category": _TEXT}
_EXAMPLE = {"type": "object", "properties": _ROW, "required": list(_ROW), "additionalProperties": False}
FORM = {
    "type": "object",
    "properties": {"examples": {"type": "array", "items": _EXAMPLE}},
    "required": ["examples"],
    "additionalProperties": False,
}
"""JSON schema of a reply, for services that can be held to one."""


@dataclass(slots=True)
class Row:
    """A row that is of use: `asked` is the cell that it was asked for, `own` the one that it is in by its length."""

    where: str
    example: Example
    asked: Cell
    own: Cell
    filled: Cell | None = None
    """The cell whose quota it counts for."""


def rows_of(value: Any) -> list[Any]:
    """The rows of a reply; each is checked on its own. Raises ValueError when there is no list of them."""
    rows = value.get("examples") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise ValueError('no list "examples"')
    return rows


def row_of(request: Request, row: dict[str, Any], where: str, lengths: Lengths | None) -> Row:
    """The example of a sound row of the reply, with its cell."""
    example, cell = example_of(request, row), request.cell
    own = cell._replace(length=lengths.name(row["question"].strip())) if lengths and cell.length else cell
    example.meta["cell"] = own.shown()
    return Row(where, example, cell, own)


def example_of(request: Request, row: dict[str, Any]) -> Example:
    """The example that a sound row becomes: a prompt in the shape of the seeds', and where it comes from."""
    document, category = request.document, request.cell.category
    question, answer = row["question"].strip(), row["answer"].strip()
    # Mixed seeds rotate through the requests, so following the first one keeps their proportions.
    shape = request.seeds[0]
    asks_about_text = bool(shape.meta.get("context")) or context_turn("", "") in shape.prompt[-1]["content"]
    messages = [
        *(m for m in shape.messages[:1] if m["role"] == "system"),
        {"role": "user", "content": context_turn(document.text, question) if asks_about_text else question},
        {"role": "assistant", "content": answer},
    ]
    meta = {
        **({"category": category} if category else {}),
        **({"context": document.text, "question": question} if asks_about_text else {}),
        "facts": [f for f in row["facts"] if normalised(f)],
        "group": group_of(document),
        "source": "synthetic",
        "parents": [*(s.id for s in request.seeds), document.id],
        "licence": document.meta.get("licence"),
    }
    return Example(f"synthetic-{digest(messages, 16)}", messages, meta)
