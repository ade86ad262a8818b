"""Learns the weights of the acceptability scorer and measures them; run by `python -m benchmarks.acceptability`.

Russian: people's labels (RuCoLA) and sentences broken on purpose. English: broken sentences only. Every feature of a
training sentence comes from models that have not seen it (five folds).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.evals.scorers import ngrams
from understudy.evals.scorers.acceptability import (
    BAG,
    CHAR_ORDER,
    CLASS_ORDER,
    FEATURES,
    LIKELIHOOD,
    SURFACE,
    Classifier,
    LanguageModels,
    bag_ids,
    char_ids,
    class_ids,
    likelihood,
    surface,
    tokens,
    word_id,
)
from understudy.evals.scorers.corruption import CORRUPTIONS, corrupt

Floats = NDArray[np.float64]
FOLDS = 5
COMMON = 400
"""Words that are a class of their own."""
SETS: dict[str, tuple[str, ...]] = {
    "form": SURFACE,
    "form + n-gram models": (*SURFACE, *LIKELIHOOD),
    "bag of n-grams": ("bag",),
    "all": FEATURES,
}


@dataclass(frozen=True, slots=True)
class Labelled:
    """Sentences with 1 (acceptable) or 0; `people` says whose label it is: a person's, or that of a corruption."""

    sentences: list[str]
    labels: Floats
    people: NDArray[np.bool_]
    folds: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A classifier, the logit above which it accepts, and its out-of-fold logits on the training sentences."""

    classifier: Classifier
    threshold: float
    out_of_fold: Floats


def with_corruptions(sentences: Sequence[str], labels: Sequence[int], language: str, seed: int = 0) -> Labelled:
    """The labelled sentences, and each acceptable one broken in one way; an original and its ruin share a fold."""
    kinds = list(CORRUPTIONS)
    found = [(s, float(y), True, i % FOLDS) for i, (s, y) in enumerate(zip(sentences, labels, strict=True))]
    for i, (sentence, label) in enumerate(zip(sentences, labels, strict=True)):
        broken = corrupt(sentence, kinds[(i // FOLDS) % len(kinds)], seed, language) if label else None
        if broken:
            found.append((broken, 0.0, False, i % FOLDS))
    return Labelled(
        [f[0] for f in found], np.array([f[1] for f in found]), np.array([f[2] for f in found]),
        np.array([f[3] for f in found]),
    )  # fmt: skip


def language_models(sentences: Sequence[str], least: Mapping[str, Sequence[int]]) -> LanguageModels:
    words = [tokens(s) for s in sentences]
    counts = Counter(w for found in words for w in found)
    common = frozenset(word_id(w) for w, _ in sorted(counts.items(), key=lambda c: (-c[1], c[0]))[:COMMON])
    chars = ngrams.fit((char_ids(s) for s in sentences), CHAR_ORDER, least["chars"])
    classes = ngrams.fit((class_ids(w, common) for w in words), CLASS_ORDER, least["classes"])
    return LanguageModels(chars, classes, common)


def fit(
    data: Labelled, least: Mapping[str, Sequence[int]], names: Sequence[str], *, bag: bool, corrupted: bool
) -> Fitted:
    """A classifier on the features `names`; with `corrupted` also broken sentences train it, of equal total weight."""
    inside, out = _out_of_fold(data, least, bag)
    used = data.people | corrupted
    share = np.where(data.people, 1.0, data.people.sum() / max(1, (~data.people).sum()) / 2)
    columns = [FEATURES.index(n) for n in names]
    logits = np.zeros(len(data.labels))
    for k in range(FOLDS):
        rows = used & (data.folds != k)
        weights, bias = _logistic(out[rows][:, columns], data.labels[rows], share[rows])
        test = data.folds == k
        logits[test] = out[test][:, columns] @ weights + bias
    weights, bias = _logistic(out[used][:, columns], data.labels[used], share[used])
    whole = np.zeros(len(FEATURES))
    whole[columns] = weights
    classifier = Classifier(inside[0], inside[1], whole, bias)
    return Fitted(classifier, best_threshold(data.labels[data.people], logits[data.people]), logits)


def features(sentences: Sequence[str], models: LanguageModels) -> Floats:
    """(sentences, FEATURES - 1) float64: all but the bag."""
    rows = []
    for sentence in sentences:
        words = tokens(sentence)
        rows.append(surface(sentence, words, words) + likelihood(sentence, words, models))
    return np.array(rows)


_CACHE: dict[int, tuple[tuple[LanguageModels, NDArray[np.float32]], Floats]] = {}


def _out_of_fold(
    data: Labelled, least: Mapping[str, Sequence[int]], bag: bool
) -> tuple[tuple[LanguageModels, NDArray[np.float32]], Floats]:
    """(models and bag of all sentences, features of each sentence from models of the other folds)."""
    if id(data) in _CACHE:
        return _CACHE[id(data)]
    ids = [bag_ids(tokens(s)) for s in data.sentences] if bag else []
    found = np.zeros((len(data.sentences), len(FEATURES)))
    for k in range(FOLDS):
        test = np.flatnonzero(data.folds == k)
        models, weights = _parts(data, np.flatnonzero(data.folds != k), least, ids)
        found[test, :-1] = features([data.sentences[i] for i in test], models)
        if bag:
            found[test, -1] = [float(weights[ids[i]].sum()) / len(ids[i]) ** 0.5 for i in test]
    _CACHE[id(data)] = _parts(data, np.arange(len(data.sentences)), least, ids), found
    return _CACHE[id(data)]


def _parts(
    data: Labelled, rows: NDArray[Any], least: Mapping[str, Sequence[int]], ids: list[list[int]]
) -> tuple[LanguageModels, NDArray[np.float32]]:
    models = language_models([data.sentences[i] for i in rows if data.labels[i]], least)
    if not ids:
        return models, np.zeros(BAG, np.float32)
    judged = [i for i in rows if data.people[i]]
    return models, _bag_weights([ids[i] for i in judged], data.labels[judged])


def _bag_weights(ids: Sequence[Sequence[int]], labels: Floats) -> NDArray[np.float32]:
    """Ridge-penalised logistic regression by L-BFGS, without its bias: the second regression has one.

    `ids`: the buckets of each sentence, each of which counts 1 / sqrt(number of buckets).
    """
    import torch

    buckets = torch.tensor([i for found in ids for i in found])
    starts = torch.tensor(np.cumsum([0, *map(len, ids)])[:-1])
    counts = torch.tensor([len(found) ** -0.5 for found in ids for _ in found], dtype=torch.float64)
    wanted = torch.tensor(labels)
    weights = torch.zeros(BAG, 1, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    search: Any = torch.optim.LBFGS([weights, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Any:
        search.zero_grad()
        bags = torch.nn.functional.embedding_bag(buckets, weights, starts, mode="sum", per_sample_weights=counts)
        logits = bags.squeeze(1) + bias
        nats = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        total: Any = nats + (weights**2).sum() / 2
        total.backward()
        return total

    search.step(loss)
    return np.asarray(weights.detach().numpy()[:, 0], dtype=np.float32)


def _logistic(x: Floats, y: Floats, share: Floats, ridge: float = 3.0) -> tuple[Floats, float]:
    """Weights and bias on unscaled features, by Newton's method on standardised ones."""
    mean, deviation = x.mean(0), x.std(0)
    deviation[deviation < 1e-9] = 1.0
    z = np.c_[(x - mean) / deviation, np.ones(len(x))]
    penalty = np.diag([ridge] * x.shape[1] + [1e-6])
    found = np.zeros(z.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-z @ found))
        slope = z.T @ (share * (p - y)) + penalty @ found
        curve = (z * (share * p * (1 - p))[:, None]).T @ z + penalty
        move = np.linalg.solve(curve, slope)
        found -= move
        if np.abs(move).max() < 1e-8:
            break
    weights = found[:-1] / deviation
    return weights, float(found[-1] - mean @ weights)


def best_threshold(labels: Floats, logits: Floats) -> float:
    """The logit that gives the best MCC."""
    tried = np.quantile(logits, np.linspace(0.02, 0.6, 100))
    return float(max(tried, key=lambda t: mcc(labels, logits >= t)))


def mcc(labels: Floats, accepted: NDArray[np.bool_]) -> float:
    """Matthews correlation; 0 when one side is constant."""
    if labels.std() == 0 or accepted.std() == 0:
        return 0.0
    return float(np.corrcoef(labels, accepted)[0, 1])


def auc(labels: Floats, scores: Floats) -> float:
    """Area under the ROC curve: how often a good one stands above a bad one; ties count half."""
    good, bad = np.sort(scores[labels == 1]), scores[labels == 0]
    below = np.searchsorted(good, bad, "left")
    equal = np.searchsorted(good, bad, "right") - below
    return float(((len(good) - below - equal) + equal / 2).mean() / len(good))


def save(fitted: dict[str, Fitted], path: Path) -> None:
    """Write the classifiers of all languages as one safetensors file; a bag as 8-bit integers."""
    from safetensors.numpy import save_file

    arrays: dict[str, NDArray[Any]] = {}
    for language, found in sorted(fitted.items()):
        c = found.classifier
        part: dict[str, NDArray[Any]] = {
            "char_keys": c.models.chars.keys, "char_values": c.models.chars.values,
            "class_keys": c.models.classes.keys, "class_values": c.models.classes.values,
            "common": np.array(sorted(i & 0xFFFFFFFF for i in c.models.common), np.uint32),
            "weights": c.weights.astype(np.float32), "bias": np.array([c.bias], np.float32),
        }  # fmt: skip
        if c.bag.any():
            scale = float(np.abs(c.bag).max()) / 127
            part |= {"bag": np.round(c.bag / scale).astype(np.int8), "bag_scale": np.array([scale], np.float32)}
        arrays |= {f"{language}.{name}": value for name, value in part.items()}
    save_file(arrays, path)
