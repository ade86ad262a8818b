"""A predicted number with its origin, and what one step needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal

Origin = Literal["counted", "measured", "guess"]
ORIGINS: tuple[Origin, ...] = ("counted", "measured", "guess")
"""From the surest to the least sure. `measured`: taken from earlier steps or from a probe."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number; what is made of several figures is as sure as the least sure of them."""

    value: float = 0.0
    origin: Origin = "counted"

    def __add__(self, other: Figure) -> Figure:
        if not self.value or not other.value:  # nothing adds nothing, and no doubt either
            return other if not self.value else self
        return Figure(self.value + other.value, worst(self, other))

    def times(self, factor: Figure | float) -> Figure:
        by = factor if isinstance(factor, Figure) else Figure(factor)
        return Figure(self.value * by.value, worst(self, by))

    def to_json(self) -> dict[str, Any]:
        return {"value": round(self.value, 6), "origin": self.origin}


def worst(*figures: Figure) -> Origin:
    """The least sure origin among figures."""
    return max((f.origin for f in figures), key=ORIGINS.index, default="counted")


def total(figures: Iterable[Figure]) -> Figure:
    return sum(figures, Figure())


def largest(figures: Iterable[Figure]) -> Figure:
    return max(figures, key=lambda f: f.value, default=Figure())


@dataclass(frozen=True, slots=True)
class Need:
    """What a step will need. Money is in the currency of the prices, memory the peak of the process (1e6 bytes)."""

    rows: Figure = Figure()
    """Rows that come out, or answers that are given or graded; of several steps, the most of any."""
    calls: Figure = Figure()
    prompt_tokens: Figure = Figure()
    completion_tokens: Figure = Figure()
    money: Figure = Figure()
    seconds: Figure = Figure()
    memory_mb: Figure = Figure()
    disk_mb: Figure = Figure()

    def to_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name).to_json() for f in fields(self)}


def add(needs: Iterable[Need]) -> Need:
    """Of steps that run one after another: rows and the peak of memory are the largest, all else adds up."""
    found = list(needs)
    by = {f.name: largest if f.name in ("rows", "memory_mb") else total for f in fields(Need)}
    return Need(**{name: join(getattr(n, name) for n in found) for name, join in by.items()})
