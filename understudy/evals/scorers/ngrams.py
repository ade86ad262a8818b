"""A small n-gram language model over integers (characters, or classes of words) as one sorted table of hashes.

An n-gram that was seen has its discounted log-probability, others back off to their shorter end at a fixed price. The
table holds a 32-bit hash and one byte for each n-gram, so that a language fits into some hundred kB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DISCOUNT = 0.5
BACKOFF = -1.2
"""Nats for each order that an n-gram backs off."""
STEP = 1 / 16
"""Nats between two stored log-probabilities."""
UNSEEN = -12.0
START, END = 1, 2
"""Ids before and behind a sequence; its own begin at 3."""


@dataclass(frozen=True, slots=True)
class NgramModel:
    """`keys`: (n-grams,) uint32 ascending; `values`: (n-grams,) uint8, negative nats in steps of STEP."""

    order: int
    keys: NDArray[np.uint32]
    values: NDArray[np.uint8]

    def log_probabilities(self, ids: Sequence[int], order: int | None = None) -> NDArray[np.float64]:
        """(ids + 1,) float64: nats of each id after the `order - 1` before it, then of the end."""
        import numpy as np

        order = order or self.order
        whole = np.array([START] * (order - 1) + list(ids) + [END], dtype=np.uint64)
        found = np.full(len(ids) + 1, UNSEEN + BACKOFF * (order - 1))
        for n in range(1, order + 1):
            keys = hashes(whole, n)[order - n :]
            at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
            seen = self.keys[at] == keys
            found[seen] = BACKOFF * (order - n) - self.values[at[seen]] * STEP
        return found


def hashes(ids: NDArray[np.uint64], n: int) -> NDArray[np.uint32]:
    """(len(ids) - n + 1,) uint32: one for each window of n ids; windows of different length hash differently."""
    import numpy as np

    count = len(ids) - n + 1
    mixed = np.full(count, n, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for i in range(n):
            mixed = (mixed ^ ids[i : i + count]) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        return ((mixed * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(32)).astype(np.uint32)


def fit(sequences: Iterable[Sequence[int]], order: int, least: Sequence[int]) -> NgramModel:
    """The model of these sequences; an n-gram stays when it came at least `least[n - 1]` times."""
    import numpy as np

    counts: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order + 1)]
    for ids in sequences:
        whole = [START] * (order - 1) + list(ids) + [END]
        for end in range(order - 1, len(whole)):
            for n in range(1, order + 1):
                counts[n][tuple(whole[end - n + 1 : end + 1])] += 1
    table: dict[int, int] = {}
    for n in range(1, order + 1):
        contexts: Counter[tuple[int, ...]] = Counter()
        for gram, count in counts[n].items():
            contexts[gram[:-1]] += count
        kept = [(gram, count) for gram, count in sorted(counts[n].items()) if count >= least[n - 1]]
        if not kept:
            continue
        keys = hashes(np.array([g for g, _ in kept], dtype=np.uint64).ravel(), n)[::n]
        for key, (gram, count) in zip(keys.tolist(), kept, strict=True):
            nats = -np.log((count - DISCOUNT * (n > 1)) / contexts[gram[:-1]])
            table.setdefault(key, min(255, round(float(nats) / STEP)))
    ordered = sorted(table.items())
    return NgramModel(
        order, np.array([k for k, _ in ordered], dtype=np.uint32), np.array([v for _, v in ordered], dtype=np.uint8)
    )
