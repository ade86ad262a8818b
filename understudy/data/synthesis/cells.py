"""What a quota is divided into: category, group and length of the question; the lengths are terciles of dev's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from understudy.core.records import Document

LENGTHS = ("short", "middle", "long")


class Cell(NamedTuple):
    """A part of the job; an empty field stands for any."""

    category: str = ""
    group: str = ""
    length: str = ""

    @property
    def name(self) -> str:
        """As the ledger and the places of rejects name it."""
        return " / ".join(part for part in self if part) or "all"

    def shown(self) -> dict[str, str]:
        """The fields that say something."""
        return {field: value for field, value in zip(self._fields, self, strict=True) if value}


@dataclass(frozen=True, slots=True)
class Lengths:
    """Where the terciles of the questions' lengths (characters) end; a question is `short` up to `short`, and so on."""

    least: int
    short: int
    middle: int
    most: int

    @classmethod
    def of(cls, questions: Sequence[str]) -> Lengths | None:
        """None when the questions are too few or too alike in length to be told apart."""
        sizes = sorted(map(len, questions))
        if not sizes:
            return None
        short, middle = (sizes[math.ceil(share * len(sizes)) - 1] for share in (1 / 3, 2 / 3))
        return cls(sizes[0], short, middle, sizes[-1]) if sizes[0] < short < middle < sizes[-1] else None

    def name(self, question: str) -> str:
        """Which of LENGTHS a question is."""
        return LENGTHS[(len(question) > self.short) + (len(question) > self.middle)]

    def bounds(self, name: str) -> tuple[int, int]:
        """Fewest and most characters of a question of that length."""
        ends = {"short": (self.least, self.short), "middle": (self.short + 1, self.middle)}
        return ends.get(name, (self.middle + 1, self.most))


def group_of(document: Document) -> str:
    """The group that rows about a document belong to: its own, or the document itself."""
    return str(document.meta.get("group") or document.id)
