"""Sets of word n-grams that are nearly equal, found without comparing all pairs: MinHash signatures in bands.

MinHash: Broder 1997, "On the resemblance and containment of documents"; bands: Leskovec, Rajaraman, Ullman, "Mining of
Massive Datasets", chapter 3. A candidate pair is only a guess; `jaccard` says how alike its sets truly are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
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
NEIGHBOURS = 32
"""In a band's bucket a row is paired with so many that follow it; a bucket of any size costs linear time."""


class Sets(NamedTuple):
    """The distinct shingles of each text, sorted: those of text i are `shingles[bounds[i]:bounds[i + 1]]`."""

    shingles: Keys  # (total,) uint32
    bounds: Bounds  # (texts + 1,) int64


def band_count(similarity: float) -> int:
    """Bands that miss a pair of this Jaccard similarity with probability MISSED."""
    return max(1, math.ceil(math.log(MISSED) / math.log1p(-(min(similarity, 0.99) ** BAND_ROWS))))


def distinct(hashes: NDArray[np.uint64], owners: Bounds, texts: int) -> Sets:
    """The upper 32 bits of each text's hashes, as sets, where false matches are rare: 1 in 400,000 pairs of texts."""
    import numpy as np

    keys = (owners.astype(np.uint64) << np.uint64(32)) | (hashes >> np.uint64(32))
    keys.sort()
    if len(keys):
        keys = keys[np.concatenate(([True], keys[1:] != keys[:-1]))]
    bounds = np.searchsorted(keys, np.arange(texts + 1, dtype=np.uint64) << np.uint64(32))
    return Sets((keys & np.uint64(0xFFFFFFFF)).astype(np.uint32), bounds.astype(np.int64))


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
    shared = np.zeros(len(left), np.int64)
    for start in range(0, len(left), batch):
        ours, theirs = left[start : start + batch], right[start : start + batch]
        rows = np.concatenate((ours, theirs))
        counts = sizes[rows]
        ends = np.cumsum(counts)
        places = np.arange(ends[-1]) + np.repeat(sets.bounds[rows] - (ends - counts), counts)
        pair = np.repeat(np.tile(np.arange(len(ours), dtype=np.uint64), 2), counts)
        keys = np.sort((pair << np.uint64(32)) | sets.shingles[places])
        twice = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(32)
        shared[start : start + len(ours)] = np.bincount(twice.astype(np.int64), minlength=len(ours))
    whole = sizes[left] + sizes[right] - shared
    return np.divide(shared, whole, out=np.zeros(len(left)), where=whole > 0)


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

        places, counts = np.unique(grams >> np.uint32(32 - self.bits), return_counts=True)
        self.cells[places] = np.minimum(self.cells[places] + counts, self.CEILING)

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
