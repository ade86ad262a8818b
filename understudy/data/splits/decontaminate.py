"""Rows that show a protected one (dev, held, test) in another guise, found by the word n-grams that they share.

What decides is the share of a unit's rare n-grams that a row holds: what many groups have is the collection's
boilerplate and says nothing. Measurements of n and share: docs/leaks-and-ledger.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from understudy.core.records import Example, Record
from understudy.data.shingles import ngrams, words
from understudy.data.splits.guard import Guard, exchange_of, in_whole, load, page_of, text_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COMMON_PROTECTED, COMMON = 2, 10
"""An n-gram in more protected groups, or in more groups of other rows, is boilerplate. No leak can reach the first
limit, so it is low; the second leaves room for ten copies of one leak (GPT-3 has the same ten: Brown et al. 2020,
appendix C).
"""
FEW = 4
"""A unit with fewer rare n-grams is judged on all of its n-grams, and must then be there nearly whole."""
WHOLE = 0.95
WHOLE_WORDS = 6
"""Units shorter than this are found only where the whole exchange is the same."""
BATCH_CHARACTERS = 200_000


class Candidate(NamedTuple):
    """A row that may show a protected one; `rank` is that of its split, `group` what it belongs to."""

    record: Record
    rank: int
    group: str


@dataclass(frozen=True, slots=True)
class Leak:
    """Why a row may not stay: the protected row's unit (its id, never its text) and how much of it the row shows."""

    reason: str
    detail: str


class Seen(NamedTuple):
    """What a record holds of a guard: indices of n-grams, each once; the unit of the same exchange and page, or -1."""

    grams: NDArray[np.int64]
    same: int
    page: int


class Sighting(NamedTuple):
    """A row that holds something of a guard; `rank` and `group` as of a Candidate."""

    rank: int
    group: str
    seen: Seen


class Firewall:
    """Judges rows against a guard. First `count` what the collection repeats, then `settle`, then ask for leaks."""

    def __init__(self, guard: Guard) -> None:
        import numpy as np

        self.guard = guard
        self.ranks = np.array([u.rank for u in guard.units], np.int64)
        self.groups = np.zeros(len(guard.grams), np.int64)
        self.filter = _Filter(guard.grams)

    def look(self, records: Sequence[Record]) -> dict[int, Seen]:
        """Index -> what it holds, of those records that hold any of the guard's n-grams, exchanges or pages."""
        import numpy as np

        guard, width = self.guard, max(1, len(self.guard.grams))
        runs = ngrams(words([text_of(r) for r in records]), guard.ngram_words)
        at, of = self.filter.find(runs.hashes, runs.owners)
        owner, at = np.divmod(np.unique(of * width + at), width)
        holders, starts = np.unique(owner, return_index=True)
        grams = dict(zip(holders.tolist(), np.split(at, starts[1:]), strict=False))
        examples = [i for i, r in enumerate(records) if isinstance(r, Example)]
        wholes = in_whole(words([exchange_of(records[i]) for i in examples]))
        same = {i: guard.wholes[total] for i, total in zip(examples, wholes, strict=True) if total in guard.wholes}
        known = ((i, guard.pages.get(page_of(r), -1)) for i, r in enumerate(records)) if guard.pages else ()
        pages = {i: unit for i, unit in known if unit >= 0}
        none = np.zeros(0, np.int64)
        holding = sorted({*grams, *same, *pages})
        return {i: Seen(grams.get(i, none), same.get(i, -1), pages.get(i, -1)) for i in holding}

    def count(self, rows: Iterable[tuple[str, NDArray[np.int64]]]) -> None:
        """Add the groups of more rows, (group, its hits), to those that hold each n-gram."""
        import numpy as np

        numbers: dict[str, int] = {}
        width = max(1, len(self.guard.grams))
        keys = [numbers.setdefault(group, len(numbers)) * width + at for group, at in rows if len(at)]
        if keys:
            self.groups += np.bincount(np.unique(np.concatenate(keys)) % width, minlength=len(self.guard.grams))

    def settle(self) -> None:
        """Fix which n-grams are rare, and how many of which a row must hold to show a unit."""
        import numpy as np

        guard, count = self.guard, len(self.guard.units)
        gram, unit = guard.pairs[:, 0], guard.pairs[:, 1]
        rare = (guard.groups <= COMMON_PROTECTED) & (self.groups <= COMMON)
        total = np.bincount(unit, minlength=count)
        few = np.bincount(unit[rare[gram]], minlength=count)
        self.by_all = few < FEW
        counted = rare[gram] | self.by_all[unit]
        self.total = np.where(self.by_all, total, few)
        share = np.where(self.by_all, WHOLE, guard.share)
        long = np.array([u.words >= WHOLE_WORDS for u in guard.units], bool)
        never = np.iinfo(np.int64).max
        self.needed = np.where((self.total > 0) & long, np.ceil(share * self.total - 1e-9).astype(np.int64), never)
        self.units = unit[counted]
        self.starts = np.searchsorted(gram[counted], np.arange(len(guard.grams) + 1))

    def judge(self, rank: int, seen: Seen) -> Leak | None:
        """Whether a row of this rank shows a unit that is better protected; of several the one it shows most of."""
        import numpy as np

        pieces = [self.units[self.starts[i] : self.starts[i + 1]] for i in seen.grams.tolist()]
        if pieces and sum(map(len, pieces)):
            held = np.bincount(np.concatenate(pieces), minlength=len(self.needed))
            over = np.flatnonzero((held >= self.needed) & (self.ranks > rank))
            if len(over):
                best = int(over[np.argmax(held[over] / self.total[over])])
                kind = "all" if self.by_all[best] else "rare"
                shown = f"{held[best]} of {self.total[best]} {kind} {self.guard.ngram_words}-grams"
                return Leak("LEAK_NGRAM", f"{shown} of {self._name(best)}")
        for reason, what, unit in (("LEAK_NGRAM", "words", seen.same), ("LEAK_SOURCE", "page", seen.page)):
            if unit >= 0 and self.ranks[unit] > rank:
                return Leak(reason, f"the same {what} as {self._name(unit)}")
        return None

    def leak(self, record: Record, rank: int = 0) -> Leak | None:
        """Look at one record and judge it."""
        seen = self.look([record]) if self.guard.units else {}
        return self.judge(rank, seen[0]) if seen else None

    def _name(self, unit: int) -> str:
        found = self.guard.units[unit]
        return f"the {found.what} of {found.split} {found.id}"


class _Filter:
    """Finds 64-bit hashes in a sorted list; a table of 2**bits flags passes over nearly all that are not there."""

    def __init__(self, known: NDArray[np.uint64]) -> None:
        import numpy as np

        self.known = known
        self.bits = min(26, max(12, math.ceil(math.log2(32 * max(1, len(known))))))
        self.flags = np.zeros(1 << self.bits, bool)
        self.flags[(known >> np.uint64(64 - self.bits)).astype(np.int64)] = True

    def find(self, hashes: NDArray[np.uint64], of: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(index in known, `of`) of those hashes that are known."""
        import numpy as np

        likely = self.flags[(hashes >> np.uint64(64 - self.bits)).astype(np.int64)]
        hashes, of = hashes[likely], of[likely]
        at = np.searchsorted(self.known, hashes)
        at[at == len(self.known)] = 0
        same = self.known[at] == hashes if len(self.known) else np.zeros(len(at), bool)
        return at[same], of[same]


def find_leaks(guard: Guard, rows: Sequence[Candidate]) -> dict[int, Leak]:
    """Index -> leak of those rows that show a better protected one; the rows themselves say what is boilerplate."""
    seen = look_at(Firewall(guard), [row.record for row in rows]) if guard.units else {}
    return leaks_among(guard, {i: Sighting(rows[i].rank, rows[i].group, what) for i, what in seen.items()})


def look_at(made: Firewall, records: Sequence[Record]) -> dict[int, Seen]:
    """`Firewall.look` over any number of records, so many at a time that the processor's cache holds them."""
    found, start = dict[int, Seen](), 0
    for batch in _batches(records):
        found |= {start + i: seen for i, seen in made.look(batch).items()}
        start += len(batch)
    return found


def leaks_among(guard: Guard, sightings: Mapping[int, Sighting]) -> dict[int, Leak]:
    """Index -> leak, of rows that were looked at before; rows that hold nothing of the guard need not be there."""
    if not guard.units:
        return {}
    made = Firewall(guard)
    lowest = min(unit.rank for unit in guard.units)
    # Rows that are protected themselves are in the guard's own count.
    made.count((row.group, row.seen.grams) for row in sightings.values() if row.rank < lowest)
    made.settle()
    leaks = ((i, made.judge(row.rank, row.seen)) for i, row in sightings.items())
    return {i: leak for i, leak in leaks if leak}


def firewall(folder: Path, background: Sequence[Record]) -> Firewall:
    """A firewall from a stored guard; `background` are the rows that show what the collection repeats."""
    made = Firewall(load(folder))
    seen = look_at(made, background)
    made.count((str(background[i].meta.get("group") or background[i].id), what.grams) for i, what in seen.items())
    made.settle()
    return made


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """The records in lists of about BATCH_CHARACTERS."""
    pending = iter(records)
    while batch := list(islice(pending, 1)):
        size = len(text_of(batch[0]))
        while size < BATCH_CHARACTERS and (record := next(pending, None)) is not None:
            batch.append(record)
            size += len(text_of(record))
        yield batch
