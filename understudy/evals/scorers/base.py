"""The scorer protocol and what every reference scorer shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from understudy.core.records import Example


@dataclass(frozen=True, slots=True)
class Score:
    value: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """What a reader of a number must know about it."""

    measures: str
    checked_on: str
    weak: str


class Measure(Protocol):
    """What is known of every scorer. `needs` names what the example must have: `reference` (an answer), `facts`
    (meta.facts), `context` (a passage). `unit` is `share` for values in 0..1, else what is counted (`level`, `words`).

    `spread` is the degree of a statistic over a set: its items are stretched by it before an interval is drawn.
    """

    @property
    def name(self) -> str: ...
    @property
    def better(self) -> Literal["higher", "lower"]: ...
    @property
    def kind(self) -> Literal["rate", "mean"]: ...
    @property
    def needs(self) -> tuple[str, ...]: ...
    @property
    def card(self) -> Card: ...
    @property
    def unit(self) -> str: ...
    @property
    def spread(self) -> float: ...


class Scorer(Measure, Protocol):
    """Scores one answer by itself."""

    def __call__(self, example: Example, answer_text: str) -> Score: ...


@dataclass(frozen=True)
class TextScorer:
    """A scorer made of one function."""

    name: str
    kind: Literal["rate", "mean"]
    card: Card
    function: Callable[[Example, str], Score]
    needs: tuple[str, ...] = ("reference",)
    better: Literal["higher", "lower"] = "higher"
    unit: str = "share"
    spread: float = 1.0

    def __call__(self, example: Example, answer_text: str) -> Score:
        return self.function(example, answer_text)


@dataclass(frozen=True)
class SetScorer:
    """Scores all answers of one setting together: a value for each against the others, or None where there is none."""

    name: str
    kind: Literal["rate", "mean"]
    card: Card
    function: Callable[[Sequence[tuple[Example, str]]], list[Score | None]]
    needs: tuple[str, ...] = ()
    better: Literal["higher", "lower"] = "higher"
    unit: str = "share"
    spread: float = 1.0

    def __call__(self, items: Sequence[tuple[Example, str]]) -> list[Score | None]:
        return self.function(items)


def references(example: Example) -> list[str]:
    """Every accepted answer: `meta.answers` when present, else the example's own."""
    answers = example.meta.get("answers")
    if isinstance(answers, list) and answers:
        return [str(a) for a in answers]
    return [example.answer] if example.answer is not None else []


def question(example: Example) -> str:
    """The last user turn, without the passage before `Question:` where it has one."""
    turns = [m["content"] for m in example.prompt if m["role"] == "user"]
    return _parted(turns[-1])[1] if turns else ""


def context(example: Example) -> str:
    """The passage that the answer should rest on: `meta.context`, else what stands before `Question:`; else empty."""
    given = example.meta.get("context")
    turns = [m["content"] for m in example.prompt if m["role"] == "user"]
    return str(given) if given else _parted(turns[-1])[0] if turns else ""


def _parted(turn: str) -> tuple[str, str]:
    before, mark, after = turn.rpartition("\n\nQuestion:")
    return (before.strip(), after.strip()) if mark else ("", turn)


def missing(example: Example, needs: Sequence[str]) -> str | None:
    """The first thing that a scorer needs and the example lacks."""
    have = {
        "reference": bool(references(example)),
        "facts": bool(example.meta.get("facts")),
        "context": bool(context(example)),
        "answer_chars": bool(example.meta.get("answer_chars")),
    }
    return next((n for n in needs if not have.get(n, False)), None)


def best(example: Example, answer: str, compare: Callable[[str, str], float]) -> Score:
    """The highest `compare(reference, answer)` over the example's references; the first of equals is the reason."""
    scored = [(compare(reference, answer), reference) for reference in references(example)]
    value, reference = max(scored, key=lambda pair: pair[0])
    shown = reference if len(reference) <= 80 else reference[:79] + "…"
    return Score(value, f"against {shown!r}")
