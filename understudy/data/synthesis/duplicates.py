"""Near duplicates among synthetic rows: those of earlier rounds, of this one, and the seeds.

Prompts are compared as in `data.duplicates`: what many have in common is their template and counts for nothing. Beside
that, rows whose names differ are no duplicates, since a template with one new name is what a templated task consists
of; nor are rows whose answers differ, since a changed word may be what turns the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from understudy.config import DedupeConfig
from understudy.core.records import Example
from understudy.data.duplicates.minhash import Counter, Sets, distinct
from understudy.data.duplicates.near import Finder, Match, Traits, boilerplate_runs, shingle, text_of
from understudy.data.shingles import Grams, whole, words_and_scripts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COUNTED = 4_000
"""Rows whose word runs are counted at once; a Counter takes fewer than 5,000."""
OWN = 0.8
"""Of the rare words of one row, the share that a row which repeats it has too; the copy may have more, its edits."""
_WORD = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
_OPENS = re.compile(r"(?:^|[.!?:;\n»”\"(\[-])\s*$")


class Known:
    """The rows that no new one may nearly repeat; without `cfg`, or with its `near` off, none does.

    Each look goes through all rows, 0.1 ms a row.
    """

    def __init__(self, cfg: DedupeConfig | None, seeds: Sequence[Example], earlier: Sequence[Example]) -> None:
        self.cfg = cfg if cfg and cfg.near else None
        self.rows = [*seeds, *earlier]
        self.earlier = {e.id for e in earlier}

    def add(self, rows: Sequence[Example]) -> None:
        self.rows += rows

    def near(self, rows: Sequence[Example]) -> dict[int, tuple[str, float]]:
        """Place in `rows` -> (id of the row that it repeats, similarity); that row is known, or stands before it."""
        if self.cfg is None or not rows:
            return {}
        every = [*self.rows, *rows]
        first, looked = len(self.rows), _Look(self.cfg, every)
        matches = looked.whole_texts() | looked.own_parts()
        return {i - first: (every[m.kept].id, m.similarity) for i, m in matches.items() if i >= first}


class _Look:
    """The prompts of all rows side by side: their words, and what of them is template."""

    def __init__(self, cfg: DedupeConfig, rows: Sequence[Example]) -> None:
        import numpy as np

        self.cfg, self.rows = cfg, rows
        self.prompts = [Example(e.id, e.prompt) for e in rows]
        self.answers = [frozenset(_WORD.findall((e.answer or "").casefold())) for e in rows]
        found, scripts = words_and_scripts([text_of(e) for e in self.prompts])
        self.words = Grams(found.hashes >> np.uint64(32), found.bounds)
        self.traits = Traits(whole(found), found.counts.astype(np.int32), scripts, np.ones(len(rows), np.bool_))

    def own_parts(self) -> dict[int, Match]:
        """Rows whose own parts are alike, as `dedupe` finds them."""
        return self._find(self._template(boilerplate_runs(self.words)), self._apart)

    def whole_texts(self) -> dict[int, Match]:
        """Rows that are alike with their template, and in the few words of their own: too few for `own_parts`."""
        import numpy as np

        each = distinct(self.words.hashes.astype(np.uint32), self.words.counts)
        template = self._template(each)
        cell = (each.shingles >> np.uint32(32 - (len(template).bit_length() - 1))).astype(np.int64)
        rare = ~template[cell]
        pairs = zip(each.bounds[:-1].tolist(), each.bounds[1:].tolist(), strict=True)
        own = [frozenset(each.shingles[start:end][rare[start:end]].tolist()) for start, end in pairs]

        def apart(a: int, b: int) -> bool:
            fewer = min(len(own[a]), len(own[b]))
            return len(own[a] & own[b]) < OWN * fewer or self._apart(a, b)

        return self._find(np.zeros_like(template), apart)

    def _template(self, grams: Sets) -> NDArray[np.bool_]:
        """For each cell of a Counter, whether what it counts stands in more rows than `boilerplate_rows`."""
        counter = Counter(len(grams.shingles))
        for start in range(0, len(self.rows), COUNTED):
            ends = grams.bounds[[start, min(start + COUNTED, len(self.rows))]]
            counter.add(grams.shingles[ends[0] : ends[1]])
        return counter.above(self.cfg.boilerplate_rows)

    def _apart(self, a: int, b: int) -> bool:
        """Whether the answers say different things, or the rows name different ones."""
        ours, theirs = self.answers[a], self.answers[b]
        return len(ours & theirs) < self.cfg.similarity * len(ours | theirs) or differ(self.rows[a], self.rows[b])

    def _find(self, template: NDArray[np.bool_], apart: Callable[[int, int], bool]) -> dict[int, Match]:
        import numpy as np

        places = np.arange(len(self.rows))
        shingled = shingle(self.cfg, self.words, places, template)
        return Finder(self.cfg, shingled, self.traits, self.prompts.__getitem__, apart).find(places)


def differ(one: Example, other: Example) -> bool:
    """Whether each names something that the other does not mention at all."""
    ours, our_words = _names(text_of(one))
    theirs, their_words = _names(text_of(other))
    return bool(ours - their_words) and bool(theirs - our_words)


@lru_cache(maxsize=50_000)
def _names(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """(words with a capital where no sentence begins, all words), folded."""
    found = list(_WORD.finditer(text))
    names = (m[0] for m in found if m[0][0].isupper() and not _OPENS.search(text[max(0, m.start() - 4) : m.start()]))
    return frozenset(n.casefold() for n in names), frozenset(m[0].casefold() for m in found)
