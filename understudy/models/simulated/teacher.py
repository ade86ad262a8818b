"""The teacher: writes examples about a new document by analogy with the seeds of the same request, and nothing else.

Every row is true of the document unless `wrong_rate` turns it into one that states another value of the same type.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from understudy.core.records import canonical, digest
from understudy.models.simulated.analogy import (
    Binding,
    Guess,
    Lesson,
    Neighbours,
    Seed,
    alternatives,
    grouped,
    learn,
)
from understudy.models.simulated.values import sentences, units

QUESTION_MARK = "\n\nQuestion: "


@dataclass(frozen=True, slots=True)
class Task:
    """A synthesis request: the labelled blocks of its last user turn."""

    seeds: list[dict[str, Any]]
    document: str
    category: str | None
    how_many: int
    variant: int
    length: tuple[int, int] | None = None
    """Fewest and most characters of a question."""


def seed_of(row: dict[str, Any]) -> Seed | None:
    """A seed from a request's row; None when it has no context to learn from."""
    context, question = row.get("context"), row.get("question")
    prompt = row.get("prompt")
    if not context and isinstance(prompt, str) and QUESTION_MARK in prompt:
        context, question = prompt.rsplit(QUESTION_MARK, 1)
    if not (isinstance(context, str) and isinstance(question, str) and isinstance(row.get("answer"), str)):
        return None
    facts = tuple(f for f in row.get("facts") or () if isinstance(f, str))
    return Seed(context, question, row["answer"], facts, str(row.get("category") or ""))


def synthesize(task: Task, *, request_hash: str, seed: int, wrong_rate: float) -> dict[str, Any]:
    """The reply `{"examples": [...]}`; fewer rows than asked when the seeds do not teach enough about the document."""
    groups = lesson_groups(canonical(task.seeds))
    wanted = [g for g in groups if not task.category or g[0].seed.category == task.category] or list(groups)
    facts = [(group, binding) for group in wanted for binding in _bindings(group, task.document)]
    wordings = max((len(group) for group, _ in facts), default=0)
    # Statements change first and wordings second, so that even a short reply is about the whole document.
    pairs = [(group[w], b) for w in range(wordings) for group, b in facts if w < len(group)]
    unique: dict[str, tuple[Lesson, Binding]] = {}
    for lesson, binding in pairs:
        unique.setdefault(lesson.question.fill(binding), (lesson, binding))
    choices = _fitting(task, unique)
    rows = []
    for at, (lesson, binding) in enumerate(choices[: task.how_many]):
        wrong = int(digest([seed, request_hash, at, "wrong"], 8), 16) / 2**32 < wrong_rate
        rows.append(_row(lesson, binding, task, wrong))
    return {"examples": rows}


def _fitting(task: Task, choices: dict[str, tuple[Lesson, Binding]]) -> list[tuple[Lesson, Binding]]:
    """What can be said, from the variant's turn on; questions of the asked length first, where there are such."""
    count = len(choices)
    first = task.variant * task.how_many
    turned = [list(choices.items())[(first + at) % count] for at in range(count)]
    least, most = task.length or (0, 1 << 30)
    return [said for question, said in sorted(turned, key=lambda one: not least <= len(one[0]) <= most)]


@lru_cache(maxsize=512)
def lesson_groups(seeds: str) -> list[list[Lesson]]:
    """Lessons of a request's seeds (canonical JSON), one question wording each, by category and signature."""
    made = [lesson for row in json.loads(seeds) if (s := seed_of(row)) and (lesson := learn(s))]
    return grouped(made)


def _bindings(group: Sequence[Lesson], document: str) -> list[Binding]:
    """What the document states about the group's relation, each statement once."""
    text = sentences(document)
    found = [b for lesson in group for b in lesson.match(text)]
    unique = list({tuple(sorted(b.items())): b for b in found}.values())
    explained = {b[k] for b in unique for k in group[0].keys}
    for sentence in text:
        guess = _guess(Neighbours(group), sentence)
        if guess and not explained & set(guess.binding.values()):
            unique.append(guess.binding)
    return sorted(unique, key=lambda b: document.find(b[group[0].keys[0]]))


def _guess(neighbours: Neighbours, sentence: str) -> Guess | None:
    """The one sure reading of a sentence whose wording no seed has; None when two keys would do."""
    found = [g for u in units(sentence) if u.kind == "name" and (g := neighbours.find(sentence, u.text)) and g.sure]
    found.sort(key=lambda g: -g.score)
    return found[0] if found and (len(found) == 1 or found[0].score > found[1].score) else None


def _row(lesson: Lesson, binding: Binding, task: Task, wrong: bool) -> dict[str, Any]:
    names = {value: name for name, value in lesson.slots.items()}
    stated = dict(binding)
    if wrong:
        for name in (names[f] for f in lesson.facts):
            others = alternatives(binding[name], task.document, tuple(binding.values()))
            if others:
                stated[name] = others[0]
                break
    return {
        "question": lesson.question.fill(binding),
        "answer": lesson.answer.fill(stated),
        "facts": [stated[names[f]] for f in lesson.facts],
        "category": lesson.seed.category or task.category or "",
    }
