"""Near duplicates among rows: boilerplate is stripped, MinHash bands give candidates, true similarity decides.

A cluster keeps its first row in file order. Short texts and texts of little but boilerplate are near duplicates only
when they read the same. Method, sources and limits: docs/near-duplicates.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from understudy.config import DedupeConfig
from understudy.core.records import Document, Example, Record
from understudy.data.duplicates.minhash import Sets, band_count, bands, clusters, distinct, jaccard, pairs_of, upper
from understudy.data.shingles import Grams, ngrams, skeleton, words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]
    Flags = NDArray[np.bool_]

MIN_WORDS = 20
"""In shorter texts one changed word is the point of the text; they must read the same."""
MIN_OWN = 10
"""Shingles that are no boilerplate, from which on a text has something of its own to compare."""
BOILERPLATE_WORDS = 5
"""Word runs by which boilerplate is known; two words that often stand together are ordinary language."""
CHAINED = 0.75
"""A row that is similar only through another one must still reach this part of the limit to the row that stays."""


class Shingled(NamedTuple):
    """What is compared of some rows: `rows` (n,) int64 are their places in the file, `keys` (n, bands) uint32."""

    rows: Rows
    sets: Sets
    keys: NDArray[np.uint32]


class Match(NamedTuple):
    """Why a row goes: the row that stays and how alike they are."""

    kept: int
    similarity: float


def text_of(record: Record) -> str:
    """The whole text of a record, an example's turns one after another."""
    return record.text if isinstance(record, Document) else "\n".join(turn["content"] for turn in record.messages)


def boilerplate_runs(found: Grams) -> Sets:
    """The runs of BOILERPLATE_WORDS words of each text, each once."""
    grams = ngrams(found, BOILERPLATE_WORDS)
    return distinct(upper(grams.hashes), grams.counts)


def shingle(cfg: DedupeConfig, found: Grams, rows: Rows, common: Flags) -> Shingled:
    """Shingles of the texts that are long enough, without those that lie within boilerplate.

    `rows`: (texts,) places in the file; `common`: for each cell of a Counter whether its runs are boilerplate.
    """
    import numpy as np

    grams = ngrams(found, cfg.shingle_words)
    own = ~_within_boilerplate(cfg, found, grams, common)
    owners = grams.owners
    enough = (found.counts >= MIN_WORDS) & (np.bincount(owners[own], minlength=len(found)) >= MIN_OWN)
    own &= enough[owners]
    sets = distinct(upper(grams.hashes[own]), np.bincount(owners[own], minlength=len(found))[enough])
    return Shingled(rows[enough], sets, bands(sets, band_count(cfg.similarity), cfg.seed))


def _within_boilerplate(cfg: DedupeConfig, found: Grams, grams: Grams, common: Flags) -> Flags:
    """For each n-gram whether a common run of words covers it whole, (n-grams,) bool."""
    import numpy as np

    runs = ngrams(found, max(BOILERPLATE_WORDS, cfg.shingle_words))
    bits = len(common).bit_length() - 1
    hits = common[(runs.hashes >> np.uint64(64 - bits)).astype(np.int64)]
    covered = np.zeros(len(found.hashes), np.bool_)  # by the place of an n-gram's first word
    starts = (np.arange(len(runs.hashes)) + (found.bounds[:-1] - runs.bounds[:-1])[runs.owners])[hits]
    for step in range(max(BOILERPLATE_WORDS, cfg.shingle_words) - cfg.shingle_words + 1):
        covered[starts + step] = True
    return covered[np.arange(len(grams.hashes)) + (found.bounds[:-1] - grams.bounds[:-1])[grams.owners]]


@dataclass(frozen=True, slots=True)
class Traits:
    """Of every row: hash of all its words in order, how many, its script, whether it is an example; each (rows,)."""

    whole: NDArray[np.uint64]
    count: NDArray[np.int32]
    script: NDArray[np.uint8]
    example: Flags


class Finder:
    """Pairs of near duplicates, and from them who goes. `read` gives the record at a place in the file.

    `apart` says of two examples that they are distinct however alike their texts are.
    """

    def __init__(
        self,
        cfg: DedupeConfig,
        shingled: Shingled,
        traits: Traits,
        read: Callable[[int], Record],
        apart: Callable[[int, int], bool] | None = None,
    ) -> None:
        self.cfg, self.shingled, self.traits, self.read, self.apart = cfg, shingled, traits, read, apart
        self.place = {row: i for i, row in enumerate(shingled.rows.tolist())}
        self.similarities: dict[tuple[int, int], float] = {}
        self._exchange = lru_cache(10_000)(lambda row: Exchange.of(_example(read(row))))

    def find(self, fresh: Rows) -> dict[int, Match]:
        """The rows among `fresh` that go, each with the row that stays for it."""
        self._similar()
        self._same_reading(fresh)
        pairs = sorted(self.similarities)
        gone: dict[int, Match] = {}
        for cluster in clusters(pairs):
            gone |= self._resolve(cluster)
        return gone

    def _similar(self) -> None:
        """Verified pairs from the bands."""
        import numpy as np

        rows, sets, keys = self.shingled
        with ThreadPoolExecutor() as threads:  # NumPy sorts without the interpreter's lock
            found = list(threads.map(pairs_of, keys.T))
        pairs = np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)
        left, right = (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
        alike = self._comparable(rows[left], rows[right])
        left, right = left[alike], right[alike]
        similarity = jaccard(sets, left, right)
        near = similarity >= self.cfg.similarity
        triples = zip(rows[left[near]].tolist(), rows[right[near]].tolist(), similarity[near].tolist(), strict=True)
        for one, other, value in triples:
            if not self.traits.example[one] or self._same_exchange(one, other):
                self.similarities[one, other] = value

    def _comparable(self, left: Rows, right: Rows) -> Flags:
        """Only documents with documents and examples with examples, of one script."""
        script, example = self.traits.script, self.traits.example
        same: Flags = (script[left] == script[right]) & (example[left] == example[right])
        return same

    def _same_reading(self, fresh: Rows) -> None:
        """Pairs whose words are all the same; where a text is short or an example its punctuation must be too."""
        import numpy as np

        traits = self.traits
        spoken = fresh[traits.count[fresh] > 0]
        _, group, sizes = np.unique(traits.whole[spoken], return_inverse=True, return_counts=True)
        first: dict[tuple[object, ...], int] = {}
        for row in spoken[sizes[group] > 1].tolist():
            key: tuple[object, ...] = (traits.whole[row], traits.script[row], traits.example[row])
            if traits.example[row] or traits.count[row] < MIN_WORDS:
                key += (reading(self.read(row)),)
            if (kept := first.setdefault(key, row)) != row:
                self.similarities[kept, row] = 1.0

    def _resolve(self, cluster: Sequence[int]) -> dict[int, Match]:
        """Rows of a cluster in file order: one that is near enough to a row that stays goes, any other stays."""
        kept, gone = [cluster[0]], dict[int, Match]()
        for row in cluster[1:]:
            similarity, closest = max((self._similarity(stays, row), -stays) for stays in kept)
            if similarity >= CHAINED * self.cfg.similarity:
                gone[row] = Match(-closest, similarity)
            else:
                kept.append(row)
        return gone

    def _similarity(self, one: int, other: int) -> float:
        import numpy as np

        if (known := self.similarities.get((one, other))) is not None:
            return known
        ours, theirs = self.place.get(one), self.place.get(other)
        if ours is None or theirs is None or not self._comparable(np.array([one]), np.array([other]))[0]:
            return 0.0
        if self.traits.example[one] and not self._same_exchange(one, other):
            return 0.0
        return float(jaccard(self.shingled.sets, np.array([ours]), np.array([theirs]))[0])

    def _same_exchange(self, one: int, other: int) -> bool:
        if self.apart and self.apart(one, other):
            return False
        return same_exchange(self.cfg, self._exchange(one), self._exchange(other))


def reading(record: Record) -> tuple[str, ...]:
    """What a reader sees: the text, or role and text of every turn, as skeletons."""
    if isinstance(record, Document):
        return (skeleton(record.text),)
    return tuple(f"{turn['role']}: {skeleton(turn['content'])}" for turn in record.messages)


def _example(record: Record) -> Example:
    assert isinstance(record, Example)
    return record


class Exchange(NamedTuple):
    """An example as it is compared: roles, all words with a digit, and the lines of each turn as skeletons."""

    roles: tuple[str, ...]
    numbers: tuple[str, ...]
    turns: tuple[tuple[str, ...], ...]
    answered: bool

    @classmethod
    def of(cls, example: Example) -> Exchange:
        turns = tuple(tuple(map(skeleton, turn["content"].splitlines())) for turn in example.messages)
        spoken = (word for turn in turns for line in turn for word in line.split())
        numbers = sorted(word.strip(".,:;!?()") for word in spoken if any(c.isdigit() for c in word))
        roles = tuple(turn["role"] for turn in example.messages)
        return cls(roles, tuple(numbers), turns, example.answer is not None)


def same_exchange(cfg: DedupeConfig, one: Exchange, other: Exchange) -> bool:
    """Whether two examples teach the same: the same numbers, and every turn near the other's.

    Lines that both have count for nothing, so that two questions about one passage are two; what remains of a turn
    must be similar, or read the same when it is short. Two answers to one prompt are two examples.
    """
    if one.roles != other.roles or one.numbers != other.numbers:
        return False
    if one.answered and one.turns[:-1] == other.turns[:-1]:
        return one.turns == other.turns
    return all(_same_turn(cfg, a, b) for a, b in zip(one.turns, other.turns, strict=True))


def _same_turn(cfg: DedupeConfig, one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    ours, theirs = set(one), set(other)
    left = [" ".join(line for line in own if line not in rest) for own, rest in ((one, theirs), (other, ours))]
    if min(len(text.split()) for text in left) < MIN_WORDS:
        return left[0] == left[1]
    grams = ngrams(words(left), cfg.shingle_words)
    a, b = set(grams[0].tolist()), set(grams[1].tolist())
    return len(a & b) >= cfg.similarity * len(a | b)
