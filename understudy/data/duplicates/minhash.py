"""Sets of word n-grams that are nearly equal, found without comparing all pairs: MinHash signatures in bands.

MinHash: Broder 1997, "On the resemblance and containment of documents"; bands: Leskovec, Rajaraman, Ullman, "Mining of
Massive Datasets", chapter 3. A candidate pair is only a guess; `jaccard` says how alike its sets truly are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bounds = NDArray[np.int64]
    Keys = NDArray[np.uint32]

BAND_ROWS = 4
"""Minima of one band: pairs with a tenth of the shingles in common collide once in ten thousand bands."""
MISSED = 0.02
"""Share of the pairs at the similarity limit that no band may find; of more similar pairs far fewer are missed."""
MATRIX = 1 << 18
"""Keys sorted at once: some MB with all that is made of them, which the processor's cache holds."""
NEIGHBOURS = 32
"""In a band's bucket a row is paired with so many that follow it; a bucket of any size costs linear time."""


class Sets(NamedTuple):
    """The distinct shingles of each text, sorted: those of text i are `shingles[bounds[i]:bounds[i + 1]]`."""

    shingles: Keys  # (total,) uint32
    bounds: Bounds  # (texts + 1,) int64


def band_count(similarity: float) -> int:
    """Bands that miss a pair of this Jaccard similarity with probability MISSED."""
    return max(1, math.ceil(math.log(MISSED) / math.log1p(-(min(similarity, 0.99) ** BAND_ROWS))))


def upper(hashes: NDArray[np.uint64]) -> Keys:
    """The upper halves of 64-bit hashes: false matches are rare, 1 in 400,000 pairs of texts."""
    import numpy as np

    return (hashes >> np.uint64(32)).astype(np.uint32)


def distinct(keys: Keys, counts: Bounds) -> Sets:
    """The keys of each text as a set; `keys`: (total,) of all texts in order, `counts`: (texts,) how many each has.

    Texts of about one length are sorted as rows of one matrix: 3 ns a key, where one sort of all keys takes 50.
    """
    import numpy as np

    starts = np.cumsum(counts) - counts
    sizes, found = np.zeros(len(counts), np.int64), []
    widths = np.frexp(counts.astype(np.float64) - 0.5)[1]  # a power of two that the count does not exceed
    for bits in np.unique(widths[counts > 0]).tolist():
        texts = np.flatnonzero((widths == bits) & (counts > 0))
        for some in np.array_split(texts, -(-(len(texts) << bits) // MATRIX)):
            # A short row repeats its own first key, so that it gains nothing.
            column = np.arange(1 << bits)
            rows = keys[starts[some, None] + np.where(column < counts[some, None], column, 0)]  # (texts, 2**bits)
            rows.sort(axis=1)
            first = np.ones(rows.shape, np.bool_)
            np.not_equal(rows[:, 1:], rows[:, :-1], out=first[:, 1:])
            sizes[some] = first.sum(1)
            found.append((some, rows[first]))
    bounds = np.concatenate(([0], np.cumsum(sizes)))
    shingles = np.empty(bounds[-1], np.uint32)
    for some, own in found:
        ends = np.cumsum(sizes[some])
        shingles[np.arange(len(own)) + np.repeat(bounds[some] - (ends - sizes[some]), sizes[some])] = own
    return Sets(shingles, bounds)


def bands(sets: Sets, count: int, seed: int) -> Keys:
    """Band keys, (texts, count) uint32: texts with equal BAND_ROWS minima have an equal key. No set may be empty.

    A permutation of the 32-bit numbers is `x -> (x ^ b) * a` with odd a; the shingles are mixed hashes already.
    """
    import numpy as np

    texts = len(sets.bounds) - 1
    keys = np.empty((texts, count), np.uint32)
    if not texts:
        return keys
    draw = np.random.Generator(np.random.PCG64(seed))
    masks = draw.integers(0, 1 << 32, (count, BAND_ROWS), np.uint32)
    factors = draw.integers(0, 1 << 32, (count, BAND_ROWS), np.uint32) | np.uint32(1)
    mixed = np.empty_like(sets.shingles)
    for band in range(count):
        key = np.zeros(texts, np.uint64)
        for mask, factor in zip(masks[band], factors[band], strict=True):
            np.bitwise_xor(sets.shingles, mask, out=mixed)
            np.multiply(mixed, factor, out=mixed)
            key = (key + np.minimum.reduceat(mixed, sets.bounds[:-1])) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(29)
        keys[:, band] = key >> np.uint64(32)
    return keys


def pairs_of(keys: Keys) -> NDArray[np.uint64]:
    """Pairs of rows with an equal key, each as `smaller << 32 | larger`, sorted; `keys`: (rows,) of one band."""
    import numpy as np

    order = np.argsort(keys, kind="stable")  # equal keys stay in row order
    same = keys[order]
    found: list[NDArray[np.uint64]] = []
    at = np.arange(len(keys))
    for step in range(1, NEIGHBOURS + 1):
        at = at[at < len(keys) - step]
        at = at[same[at] == same[at + step]]
        if not len(at):
            break
        found.append((order[at].astype(np.uint64) << np.uint64(32)) | order[at + step].astype(np.uint64))
    return np.sort(np.concatenate(found)) if found else np.zeros(0, np.uint64)


def jaccard(sets: Sets, left: Bounds, right: Bounds, batch: int = 8192) -> NDArray[np.float64]:
    """Shared shingles over all shingles of the texts `left[i]` and `right[i]`, (pairs,)."""
    import numpy as np

    sizes = np.diff(sets.bounds)

    def together(start: int) -> Bounds:
        """How many shingles the texts of each pair have in all, (batch,)."""
        rows = np.stack((left[start : start + batch], right[start : start + batch]), axis=1)  # (pairs, 2)
        counts = sizes[rows]
        each = counts.ravel()
        places = np.arange(each.sum()) + np.repeat(sets.bounds[rows.ravel()] - (np.cumsum(each) - each), each)
        all_of: Bounds = np.diff(distinct(sets.shingles[places], counts.sum(1)).bounds)
        return all_of

    with ThreadPoolExecutor() as threads:
        whole = np.concatenate([np.zeros(0, np.int64), *threads.map(together, range(0, len(left), batch))])
    shared = sizes[left] + sizes[right] - whole
    similarity: NDArray[np.float64] = np.divide(shared, whole, out=np.zeros(len(left)), where=whole > 0)
    return similarity


class Counter:
    """In how many rows each n-gram stands, at least: one row of a count-min sketch (Cormode, Muthukrishnan 2005).

    Two n-grams that share a cell count together, so that a count is never too low. 2 bytes a cell.
    """

    CEILING = 60_000

    def __init__(self, expected: int) -> None:
        import numpy as np

        self.bits = min(30, max(16, math.ceil(math.log2(max(1, expected)))))
        self.cells = np.zeros(1 << self.bits, np.uint16)

    def add(self, grams: Keys) -> None:
        """Count the 32-bit hashes of some rows, each row's own once; fewer than 5,000 rows at a time."""
        import numpy as np

        places = (grams >> np.uint32(32 - self.bits)).astype(np.int64)
        np.add.at(self.cells, places, np.uint16(1))  # an eighth of the time of counting first
        self.cells[places] = np.minimum(self.cells[places], self.CEILING)

    def above(self, limit: int) -> NDArray[np.bool_]:
        """For each cell whether its n-grams stand in more than `limit` rows."""
        return self.cells > limit


def clusters(pairs: Iterable[tuple[int, int]]) -> Iterator[list[int]]:
    """Connected rows, each cluster sorted, clusters by their first row; single rows are left out."""
    parent: dict[int, int] = {}

    def root(row: int) -> int:
        while (above := parent.setdefault(row, row)) != row:
            parent[row] = parent[above]
            row = parent[row]
        return row

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    members: dict[int, list[int]] = {}
    for row in sorted(parent):
        members.setdefault(root(row), []).append(row)
    yield from (members[first] for first in sorted(members))
