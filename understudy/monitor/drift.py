"""Drift of queries: the distance of each to its nearest training prompt, against that of prompts nobody trained on.

Distance is 1 - cosine of TF-IDF vectors over words and character 4-grams. The calibration prompts come from the same
process as the training prompts but from other groups, so that without drift they and recent queries are exchangeable:
a one-sided rank test with Savage scores and a permutation p-value keeps its false-alarm rate at any sample size.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from understudy.core.records import Example, digest
from understudy.errors import DataError
from understudy.evals.stats import wilson

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]

GRAM = 4
MAX_CHARS = 2000
"""A query's vector is taken of so many characters."""
MAX_PROMPTS = 20_000
"""Training prompts in the index; more are thinned by a fixed draw, calibration and recent queries see the same ones."""
MIN_CALIBRATION = 20
MAX_CALIBRATION = 2000
PERMUTATIONS = 1_999
"""At least so many, and enough for the smallest p-value to be a tenth of alpha."""
MAX_RECENT = 2000
FAR = 0.95
"""A query is far when it lies beyond this quantile of the calibration distances."""
_WORD = re.compile(r"\w+")
_QUESTION = "\n\nQuestion: "


def query_of(turn: str) -> str:
    """What is compared: of a context question the question alone, since its context would outweigh it."""
    return turn.rpartition(_QUESTION)[2]


def features(text: str) -> Counter[str]:
    """Words and, inside their padded spelling, character 4-grams; case and compatibility forms folded."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text[:MAX_CHARS]).casefold())
    counts = Counter(f"={word}" for word in words)
    for word in words:
        padded = f" {word} "
        counts.update(padded[i : i + GRAM] for i in range(max(1, len(padded) - GRAM + 1)))
    return counts


class Index:
    """Training prompts as an inverted index; `distance` of a query with f features costs f lookups."""

    def __init__(self, prompts: Sequence[str]) -> None:
        import numpy as np

        counted = [features(p) for p in prompts]
        seen = Counter(name for counts in counted for name in counts)
        self.size = len(prompts)
        self._idf = {name: 1.0 + math.log((1 + self.size) / (1 + n)) for name, n in seen.items()}
        self._unseen = 1.0 + math.log(1 + self.size)
        rows: dict[str, list[int]] = {name: [] for name in seen}
        weights: dict[str, list[float]] = {name: [] for name in seen}
        for row, counts in enumerate(counted):
            for name, weight in self._vector(counts).items():
                rows[name].append(row)
                weights[name].append(weight)
        self._postings = {n: (np.array(rows[n], np.int32), np.array(weights[n], np.float32)) for n in rows}

    def distance(self, query: str) -> float:
        """1 - cosine to the nearest prompt, 0 to 1; 1 for a text without words."""
        import numpy as np

        similarity = np.zeros(self.size, np.float64)
        for name, weight in self._vector(features(query)).items():
            if found := self._postings.get(name):
                similarity[found[0]] += weight * found[1]
        return float(min(1.0, max(0.0, 1.0 - similarity.max(initial=0.0))))

    def _vector(self, counts: Mapping[str, int]) -> dict[str, float]:
        """Unit vector: (1 + log count) times inverse document frequency; an unseen feature weighs most."""
        raw = {name: (1 + math.log(n)) * self._idf.get(name, self._unseen) for name, n in counts.items()}
        length = math.sqrt(sum(v * v for v in raw.values()))
        return {name: value / length for name, value in raw.items()} if length else {}


@dataclass(frozen=True)
class Reference:
    """Training prompts to measure from, and the distances that queries without drift have."""

    index: Index
    calibration: list[float]
    source: str
    """Where the calibration prompts are from, for people."""
    id: str
    """Names these prompts: distances of another reference are not comparable."""

    def distance(self, turn: str) -> float:
        """Distance of a user's turn."""
        return self.index.distance(query_of(turn))


def reference(train: Sequence[Example], unseen: Mapping[str, Sequence[Example]]) -> Reference:
    """Build from training examples and named sets that did not train (coverage dev, validation), the best first.

    The first set with enough prompts calibrates; without one, a quarter of the training groups are taken out of the
    index and calibrate. Raises DataError DRIFT_FEW for too few prompts.
    """
    chosen = next((name for name, rows in unseen.items() if len(rows) >= MIN_CALIBRATION), "")
    held = list(unseen[chosen]) if chosen else []
    rows = list(train)
    if not held:
        groups = sorted({_group(e) for e in train}, key=lambda g: digest(["drift", g]))
        out = set(groups[: len(groups) // 4])
        held = [e for e in train if _group(e) in out]
        rows = [e for e in train if _group(e) not in out]
        chosen = "training groups taken out of the index"
    index, queries = _thinned(rows, MAX_PROMPTS), _thinned(held, MAX_CALIBRATION)
    if len(queries) < MIN_CALIBRATION or not index:
        what = f"{len(index)} training and {len(queries)} other prompts"
        raise DataError("DRIFT_FEW", "training prompts", f"{what} are too few to compare with", "train on more rows")
    built = Index(index)
    return Reference(built, [built.distance(q) for q in queries], chosen, digest([index, queries], 16))


def _group(example: Example) -> str:
    return str(example.meta.get("group") or example.id)


def _thinned(examples: Sequence[Example], most: int) -> list[str]:
    """The queries of at most `most` examples, by a fixed draw, in a fixed order."""
    turns = (next((m["content"] for m in reversed(e.prompt) if m["role"] == "user"), "") for e in examples)
    queries = sorted((query_of(t) for t in turns if t), key=lambda q: digest(["thin", q]))
    return queries[:most]


@dataclass(frozen=True)
class Drift:
    """The outcome of one check. `alarm` when `p_value` is at most `alpha`."""

    alarm: bool
    p_value: float
    alpha: float
    queries: int
    calibration: int
    far: dict[str, Any]
    """Share of queries beyond the calibration's 95 % quantile, with its interval; about 0.05 without drift."""
    median: float
    expected_median: float

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def check(recent: Sequence[float], calibration: Sequence[float], alpha: float) -> Drift:
    """Whether recent distances are larger than the calibration's. Both samples from exchangeable queries: the chance
    of an alarm is at most `alpha`, whatever their sizes. Phipson and Smyth (2010) for the permutation p-value."""
    import numpy as np

    recent = recent[-MAX_RECENT:]
    permutations = max(PERMUTATIONS, math.ceil(10 / alpha) - 1)
    pooled = np.concatenate([np.asarray(recent, float), np.asarray(calibration, float)])
    scores = savage(pooled)
    n = len(recent)
    observed = scores[:n].sum()
    rng = np.random.default_rng(20_260_000)
    reached = sum(rng.permutation(scores)[:n].sum() >= observed - 1e-9 for _ in range(permutations))
    p_value = (1 + int(reached)) / (1 + permutations)
    edge = float(np.quantile(np.asarray(calibration, float), FAR, method="higher"))
    far = int((np.asarray(recent, float) > edge).sum())
    return Drift(
        alarm=p_value <= alpha,
        p_value=round(p_value, 6),
        alpha=alpha,
        queries=n,
        calibration=len(calibration),
        far={"count": far, **wilson(far, n).to_json()},
        median=round(float(np.median(recent)), 4),
        expected_median=round(float(np.median(calibration)), 4),
    )


def savage(values: Floats) -> Floats:
    """Savage (exponential) scores: expected order statistics of an exponential sample, ties share their mean.

    They weigh the far tail most, where the queries of a new topic are, even when most queries have not changed.
    """
    import numpy as np

    n = len(values)
    expected = np.cumsum(1.0 / np.arange(n, 0, -1))
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    order = np.argsort(values, kind="stable")
    sums = np.bincount(place[order], weights=expected)
    return np.asarray((sums / counts)[place])
