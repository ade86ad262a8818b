"""Rows of a reply and the examples that they become: the form of a prompt, its key, its provenance."""

from __future__ import annotations

from typing import Any

from understudy.core.records import Example, digest
from understudy.data.clean import context_turn
from understudy.data.synthesis.requests import Request
from understudy.data.synthesis.texts import normalised


def rows_of(value: Any) -> list[Any]:
    """The rows of a reply; each is checked on its own. Raises ValueError when there is no list of them."""
    rows = value.get("examples") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise ValueError('no list "examples"')
    return rows


def example_of(request: Request, row: dict[str, Any]) -> Example:
    """The example that a sound row becomes: a prompt in the shape of the seeds', and where it comes from."""
    document = request.document
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
        **({"category": request.category} if request.category else {}),
        **({"context": document.text, "question": question} if asks_about_text else {}),
        "facts": [f for f in row["facts"] if normalised(f)],
        "group": document.meta.get("group") or document.id,
        "source": "synthetic",
        "parents": [*(s.id for s in request.seeds), document.id],
        "licence": document.meta.get("licence"),
    }
    return Example(f"synthetic-{digest(messages, 16)}", messages, meta)
