"""What the division of rows needs to know of one: its group, its category, and digests of what may not straddle."""

from __future__ import annotations

from typing import NamedTuple

from understudy.core.records import Document, Example, Record, digest
from understudy.data.duplicates.dedupe import fold
from understudy.data.splits.guard import page_of

LABEL_WORDS = 3
"""Shorter answers stand in prompts as choices to pick from."""


class Outline(NamedTuple):
    """A row without its text.

    `prompt` and `passage` are digests of the folded texts, empty where it has none; `shows` says that its own prompt or
    meta gives the whole answer away.
    """

    id: str
    document: bool
    group: str
    category: str
    prompt: str
    passage: str
    answered: bool
    shows: bool


def outline(record: Record, passages: bool = True) -> Outline:
    """The outline of a record; without `passages` no digest of a document's text is made."""
    category = str(record.meta.get("category") or "")
    if isinstance(record, Document):
        passage = _key(record.text) if passages else ""
        return Outline(record.id, True, group_of(record), category, "", passage, False, False)
    prompt = digest([fold(turn["content"]) for turn in record.prompt], 32)
    answered = record.answer is not None
    passage = _passage(record)
    return Outline(record.id, False, _group(record, passage), category, prompt, passage, answered, shows_answer(record))


def group_of(record: Record) -> str:
    """The group that must not straddle, folded for comparison: the row's own, else its passage, page or id."""
    return _group(record, _passage(record) if isinstance(record, Example) else "")


def shows_answer(record: Record) -> bool:
    """Whether an example's own prompt, or its meta, gives the whole answer away (a passage may hold it)."""
    if not isinstance(record, Example) or record.answer is None or record.meta.get("context"):
        return False
    answer = fold(record.answer)
    given = [turn["content"] for turn in record.prompt]
    given += [str(record.meta.get(key) or "") for key in ("group", "category")]
    return len(answer.split()) >= LABEL_WORDS and any(answer in fold(text) for text in given)


def _group(record: Record, passage: str) -> str:
    return fold(str(record.meta.get("group") or passage or page_of(record) or record.id))


def _passage(record: Example) -> str:
    return _key(record.meta.get("context"))


def _key(text: object) -> str:
    return digest(fold(text), 32) if isinstance(text, str) and text.strip() else ""
