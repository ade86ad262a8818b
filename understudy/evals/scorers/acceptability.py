"""How acceptable a text is as language, 0 to 1: logistic regression on features of each sentence.

The features are two small n-gram models (characters; word endings with the commonest words), repetition, the sentence's
end and the script. Weights are learnt by `acceptability_fit.py` and hold no sentence of its data.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.records import Example
from understudy.evals.scorers.base import Card, Score, TextScorer
from understudy.evals.scorers.language import folded, is_russian

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from understudy.evals.scorers.ngrams import NgramModel

WEIGHTS = "acceptability.safetensors"
CHECKED = "acceptability-card.txt"
"""What the command that learnt the weights measured, and the weights' sha256."""
CHAR_ORDER, CLASS_ORDER = 5, 3
BAG = 1 << 16
"""Buckets that words, word pairs, runs of letters and runs of word classes are hashed into."""
RARE_NATS = -3.0
"""A word whose letters are less likely than this each, in nats, looks like none of the language."""
_SENTENCE = re.compile(r"(?<=[.!?…])[\"'”»)]*\s+|\n+")
_TOKEN = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+(?:[.,:]\d+)*|[^\w\s]")
_SPACE = re.compile(r"\s+")
_DIGITS = re.compile(r"\d+")
_ENDED = re.compile(r"[.!?…][\"'”»)]*$")
_ODD_MARKS = re.compile(r"[,;:][\s]*[,;:.!?]|\s[,;:.!?]|[,;:.!?]{4,}|\(\s*\)")
SURFACE = (
    "ended", "capital", "open_end", "repeated_words", "repeated_pairs", "repeated_triples", "script_mix", "unbalanced",
    "odd_marks", "marks", "mean_length", "long_words",
)  # fmt: skip
LIKELIHOOD = (
    "char_mean", "char_worst", "char_worst_three", "char_gain", "class_mean", "class_worst", "class_worst_quarter",
    "class_gain", "class_end", "rare_words",
)  # fmt: skip
FEATURES = (*SURFACE, *LIKELIHOOD, "bag")


@dataclass(frozen=True, slots=True)
class LanguageModels:
    """What is known of one language: n-grams of characters and of word classes, ids of its commonest words."""

    chars: NgramModel
    classes: NgramModel
    common: frozenset[int]


@dataclass(frozen=True, slots=True)
class Classifier:
    """`bag`: (BAG,) float32 weights, zero where people's labels are missing; `weights`: one for each of FEATURES."""

    models: LanguageModels
    bag: NDArray[np.float32]
    weights: NDArray[np.float64]
    bias: float

    def probability(self, sentence: str, text_words: list[str]) -> float:
        """0..1 of one sentence; repetition is counted over the words of the whole text."""
        import math

        words = tokens(sentence)
        values = [*surface(sentence, words, text_words), *likelihood(sentence, words, self.models)]
        values.append(bag_logit(words, self.bag))
        logit = self.bias + float(self.weights @ values)
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit))))


def sentences(text: str) -> list[str]:
    return [s.strip() for s in _SENTENCE.split(text) if s.strip()]


def tokens(sentence: str) -> list[str]:
    return [folded(t) for t in _TOKEN.findall(sentence)]


def char_ids(sentence: str) -> list[int]:
    """Code points in lower case, every number as one 0, every run of white space as one blank."""
    return [ord(c) for c in _SPACE.sub(" ", _DIGITS.sub("0", folded(sentence)))]


def word_id(word: str) -> int:
    return zlib.crc32(word.encode()) | 1 << 33


def class_ids(words: list[str], common: frozenset[int]) -> list[int]:
    """A common word is its own class; another is its length class and last letters, a number or mark its first."""
    return [i if (i := word_id(w)) in common else word_id(_class(w)) for w in words]


def _class(word: str) -> str:
    if not word[0].isalpha():
        return "0" if word[0].isdigit() else word[0]
    return f"-{word[-3:]}" if len(word) > 5 else f"~{word[-2:]}" if len(word) > 3 else f"={word[-1:]}"


def surface(sentence: str, words: list[str], text_words: list[str]) -> list[float]:
    """Features of the sentence's form, in the order of SURFACE; not its length: people's labels prefer short ones."""
    real = [w for w in words if w[0].isalpha()]
    n = max(1, len(real))
    mixed = sum(is_russian(w) != w.isascii() and not w.isascii() and bool(re.search("[a-z]", w)) for w in real)
    minor = min(sum(map(is_russian, real)), sum(not is_russian(w) for w in real))
    last = sentence[-1:]
    return [
        float(bool(_ENDED.search(sentence))),
        float(sentence[:1].isupper() or not sentence[:1].isalpha()),
        float(last in ",;:-–—("),
        sum(a == b for a, b in zip(real, real[1:], strict=False)) / n,
        *(_again(text_words, size) for size in (2, 3)),
        (minor + 3 * mixed) / n,
        float(any(sentence.count(a) != sentence.count(b) for a, b in ("()", "[]", "«»", "“”"))),
        min(3, len(_ODD_MARKS.findall(sentence))) / 3,
        (len(words) - len(real)) / max(1, len(words)),
        sum(map(len, real)) / n / 10,
        sum(len(w) > 20 for w in real) / n,
    ]


def _again(words: list[str], size: int) -> float:
    """Share of runs of `size` words that came before in the text."""
    runs = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def likelihood(sentence: str, words: list[str], models: LanguageModels) -> list[float]:
    """Features of how expected the sentence is, in the order of LIKELIHOOD; nats."""
    import numpy as np

    ids = char_ids(sentence)
    chars = models.chars.log_probabilities(ids)
    starts = np.array([0] + [i + 1 for i, c in enumerate(ids) if c == 32])
    by_word = np.sort(np.add.reduceat(chars, starts) / np.diff(np.append(starts, len(chars))))
    classes = class_ids(words, models.common)
    nats = models.classes.log_probabilities(classes)
    worst = np.sort(nats)
    return [
        float(chars.mean()),
        float(by_word[0]),
        float(by_word[:3].mean()),
        float(chars.mean() - models.chars.log_probabilities(ids, 1).mean()),
        float(nats.mean()),
        float(worst[0]),
        float(worst[: max(1, len(worst) // 4)].mean()),
        float(nats.mean() - models.classes.log_probabilities(classes, 1).mean()),
        float(nats[-1]),
        float((by_word < RARE_NATS).mean()),
    ]


def bag_ids(words: list[str]) -> list[int]:
    """Buckets of the words, pairs of words, runs of 3 to 5 letters and runs of 2 or 3 word classes; each once."""
    found = {f"w{w}" for w in words} | {f"b{a} {b}" for a, b in zip(words, words[1:], strict=False)}
    for word in words:
        padded = f" {word} "
        found |= {f"c{padded[i : i + n]}" for n in (3, 4, 5) for i in range(len(padded) - n + 1)}
    classes = [_class(w) for w in words]
    found |= {f"s{' '.join(classes[i : i + n])}" for n in (2, 3) for i in range(len(classes) - n + 1)}
    return sorted({zlib.crc32(f.encode()) % BAG for f in found})


def bag_logit(words: list[str], weights: NDArray[np.float32]) -> float:
    ids = bag_ids(words)
    return float(weights[ids].sum()) / len(ids) ** 0.5 if ids else 0.0


@cache
def classifier(language: str) -> Classifier:
    """The shipped classifier of `en` or `ru`."""
    import numpy as np
    from safetensors.numpy import load_file

    from understudy.evals.scorers.ngrams import NgramModel

    found = load_file(Path(__file__).parent / WEIGHTS)
    part: dict[str, Any] = {k.partition(".")[2]: v for k, v in found.items() if k.startswith(f"{language}.")}
    chars = NgramModel(CHAR_ORDER, part["char_keys"], part["char_values"])
    classes = NgramModel(CLASS_ORDER, part["class_keys"], part["class_values"])
    models = LanguageModels(chars, classes, frozenset(int(i) | 1 << 33 for i in part["common"]))
    bag = part["bag"].astype(np.float32) * part["bag_scale"][0] if "bag" in part else np.zeros(BAG, np.float32)
    return Classifier(models, bag, part["weights"].astype(np.float64), float(part["bias"][0]))


def acceptability(text: str) -> tuple[float, str]:
    """(mean probability over sentences, the worst sentence); 0 for a text without words."""
    parts = [s for s in sentences(text) if any(c.isalpha() for c in s)]
    if not parts:
        return 0.0, "no words"
    words = tokens(text)
    scored = [(classifier("ru" if is_russian(s) else "en").probability(s, words), s) for s in parts]
    worst = min(scored)
    return sum(p for p, _ in scored) / len(scored), f"weakest sentence ({worst[0]:.2f}): {worst[1][:100]}"


def _acceptability(example: Example, answer: str) -> Score:
    return Score(*acceptability(answer))


ACCEPTABILITY = TextScorer(
    "acceptability",
    "mean",
    Card(
        "How acceptable the answer is as English or Russian, 0 to 1, mean over its sentences: logistic regression on "
        "character and word-class n-gram models, a bag of n-grams (Russian), repetition, sentence end and script.",
        " ".join((Path(__file__).parent / CHECKED).read_text("utf-8").splitlines()[:-1]),
        "A smoke detector, no reader: it finds word salad, loops, cut-off sentences and broken words, and hardly more "
        "than chance of subtle grammar or sense. A fragment without a full stop counts as cut off. Other languages and "
        "domains (code, tables, verse) score low. Compare models on like prompts; the value is no probability that a "
        "person accepts. `score.by` puts a fine-tuned classifier in its place.",
    ),
    _acceptability,
    needs=(),
)
