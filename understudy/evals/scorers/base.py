"""The scorer protocol and what every reference scorer shares."""

from __future__ import annotations

from collections.abc import Callable
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


class Scorer(Protocol):
    """`needs` names what the example must have: `reference` (an answer), `facts` (meta.facts).

    `unit` is `share` for values in 0..1, else what is counted (`level`, `words`).
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

    def __call__(self, example: Example, answer_text: str) -> Score:
        return self.function(example, answer_text)


def references(example: Example) -> list[str]:
    """Every accepted answer: `meta.answers` when present, else the example's own."""
    answers = example.meta.get("answers")
    if isinstance(answers, list) and answers:
        return [str(a) for a in answers]
    return [example.answer] if example.answer is not None else []


def missing(example: Example, needs: tuple[str, ...]) -> str | None:
    """The first thing that a scorer needs and the example lacks."""
    have = {"reference": bool(references(example)), "facts": bool(example.meta.get("facts"))}
    return next((n for n in needs if not have.get(n, False)), None)


def best(example: Example, answer: str, compare: Callable[[str, str], float]) -> Score:
    """The highest `compare(reference, answer)` over the example's references; the first of equals is the reason."""
    scored = [(compare(reference, answer), reference) for reference in references(example)]
    value, reference = max(scored, key=lambda pair: pair[0])
    shown = reference if len(reference) <= 80 else reference[:79] + "…"
    return Score(value, f"against {shown!r}")
