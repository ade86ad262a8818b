"""What the pretraining script needs of a language: rows to train on, rows to measure with, and where the base lies."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.models.tiny import BASE_DIR, BASES, russian, text
from understudy.models.tiny.names import Names
from understudy.models.tiny.rows import Row


@dataclass(frozen=True)
class Language:
    """One language's writer of text; `prose_rows` is there where the language has free texts."""

    code: str
    title: str
    base: Path
    written_by: str
    kinds: tuple[str, ...]
    names: Callable[[random.Random], Any]
    training_row: Callable[[Any, float], Row]
    evaluation_rows: Callable[[int, str, int], list[Row]]
    shots_rows: Callable[[int, int, int], list[Row]]
    prose_rows: Callable[[int, int], list[Row]] | None = None
    lexicon: Callable[[], frozenset[str]] | None = None
    """Every word form that its free texts can hold."""
    vocab_size: int = 1024
    letters_first: bool = False
    """See `tokenizer.train`."""
    tokenizer_kinds: frozenset[str] = frozenset()
    """Rows whose words the tokenizer learns; all if empty."""

    def training_rows(self, seed: int, level: float = 1.0) -> Iterator[Row]:
        """Endless training rows of one level."""
        names = self.names(random.Random(seed))
        while True:
            yield self.training_row(names, level)

    def tokenizer_text(self, seed: int, count: int) -> Iterator[str]:
        """Text of `count` rows for the tokenizer to learn from."""
        rows = self.training_rows(seed, 0.8)
        if self.tokenizer_kinds:
            rows = (row for row in rows if row.kind in self.tokenizer_kinds)
        return (message["content"] for row in itertools.islice(rows, count) for message in row.messages)


LANGUAGES = {
    "en": Language(
        "en", "understudy tiny base", BASE_DIR, "text.py", text.KINDS, Names, text.training_row, text.evaluation_rows,
        text.shots_rows,
    ),
    "ru": Language(
        "ru", "understudy tiny base, Russian", BASES["tiny-ru"], "russian/", russian.KINDS, russian.RussianNames,
        russian.training_row, russian.evaluation_rows, russian.shots_rows, russian.prose_rows, russian.lexicon,
        vocab_size=2048, letters_first=True,
        tokenizer_kinds=frozenset({"prose", *russian.KINDS}),  # no merges for lists of made-up words
    ),
}  # fmt: skip
