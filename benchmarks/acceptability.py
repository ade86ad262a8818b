"""`python -m benchmarks.acceptability --data FOLDER`: learns and measures the acceptability scorer.

Writes `understudy/evals/scorers/acceptability.safetensors`, `benchmarks/results/acceptability.json` and the tables.
Russian is checked against people (RuCoLA dev), both languages on sentences broken on purpose, also of another domain.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.project import ROOT
from benchmarks.tables import interval, table, update
from understudy.core.records import read_jsonl
from understudy.evals.scorers import acceptability as scorer
from understudy.evals.scorers.acceptability_fit import SETS, Fitted, Labelled, auc, fit, mcc, save, with_corruptions
from understudy.evals.scorers.corruption import CORRUPTIONS, corrupt

WEIGHTS = Path(scorer.__file__).parent / scorer.WEIGHTS
CARD = WEIGHTS.with_name(scorer.CHECKED)
RESULT = ROOT / "benchmarks" / "results" / "acceptability.json"
LEAST = {
    "ru": {"chars": (1, 2, 2, 2, 2), "classes": (1, 1, 2)},
    "en": {"chars": (1, 2, 2, 4, 5), "classes": (1, 2, 3)},
}
"""Times an n-gram must come to be kept, by its length: what holds the file under 1 MB."""
SHIPPED = "all, with broken sentences (shipped)"
RESAMPLES = 1000
CHECKED = 600
"""Sentences of each corruption check."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with rucola-*.csv, gsm8k, llamaduo, xquad; without it, only "
                        "the card and the tables are written again")  # fmt: skip
    data = parser.parse_args().data
    if data is not None:
        learn(data)
    result = json.loads(RESULT.read_text("utf-8"))
    write_card(result)
    write_tables(result)


def learn(data: Path) -> None:
    """Learn, save the weights, measure, write the result."""
    start = time.monotonic()
    train, dev = _rucola(data / "rucola-train.csv"), _rucola(data / "rucola-dev.csv")
    russian = with_corruptions(train[0], train[1], "ru")
    english_sentences = _english(data)
    english = with_corruptions(english_sentences, [1] * len(english_sentences), "en")
    people = {name: _against_people(russian, names, dev, corrupted=False) for name, names in SETS.items()}
    fitted = {
        "ru": fit(russian, LEAST["ru"], SETS["all"], bag=True, corrupted=True),
        "en": fit(english, LEAST["en"], SETS["form + n-gram models"], bag=False, corrupted=True),
    }
    save(fitted, WEIGHTS)
    scorer.classifier.cache_clear()
    shipped = _measured(dev, fitted["ru"].threshold)
    checks = {
        "ru, RuCoLA dev": ("ru", [s for s, y in zip(*dev, strict=True) if y]),
        "ru, XQuAD": ("ru", _xquad(data / "xquad-ru.json")),
        "en, XQuAD": ("en", _xquad(data / "xquad-en.json")),
    }
    result = {
        "data": {"ru": "RuCoLA in-domain train, Apache-2.0", "en": "GSM8K questions, MIT; LlamaDuo, Apache-2.0"},
        "train_sentences": {"ru": len(train[0]), "en": len(english_sentences)},
        "people": people | {SHIPPED: shipped},
        "broken": {name: _corruptions(sentences, language) for name, (language, sentences) in checks.items()},
        "threshold": round(float(1 / (1 + np.exp(-fitted["ru"].threshold))), 3),
        "bytes": WEIGHTS.stat().st_size,
    }
    RESULT.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", "utf-8")
    print(f"{time.monotonic() - start:.0f} s")


def write_card(result: dict[str, Any]) -> None:
    """The figures that the scorer's card states, and the digest of the weights that they belong to."""
    shipped, people = result["people"][SHIPPED], result["people"]["all"]
    lines = [
        f"Russian against people: RuCoLA dev (Apache-2.0, {shipped['auc']['n']} sentences of linguists' examples): MCC "
        f"{interval(shipped['mcc'])}, AUC {interval(shipped['auc'])}; the same features learnt from people's labels "
        f"alone: MCC {interval(people['mcc'])}, AUC {interval(people['auc'])}.",
        "Published, fine-tuned transformers on its test set: MCC 0.15 (mBERT), 0.42 (ruBERT), 0.53 (ruRoBERTa).",
        *(
            f"Sentences broken on purpose, {name}: AUC {interval(of['any'])}; {_by_kind(of)}."
            for name, of in result["broken"].items()
        ),
        "English was checked on broken sentences only. Learnt from RuCoLA train (Apache-2.0), GSM8K questions (MIT) "
        "and LlamaDuo (Apache-2.0); no sentence of them is kept.",
        f"weights {hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()}",
    ]
    CARD.write_text("\n".join(lines) + "\n", "utf-8")


def _by_kind(of: dict[str, Any]) -> str:
    return ", ".join(f"{kind} {of[kind]['value']:.2f}" for kind in CORRUPTIONS)


def write_tables(result: dict[str, Any]) -> None:
    rows = [[name, interval(of["mcc"]), interval(of["auc"])] for name, of in result["people"].items()]
    update("acceptability-people", table(["features", "MCC", "AUC"], rows))
    kinds = ["any", *CORRUPTIONS]
    names = list(result["broken"])
    rows = [[kind, *(interval(result["broken"][name][kind]) for name in names)] for kind in kinds]
    update("acceptability-broken", table(["broken how", *names], rows))


def _against_people(
    data: Labelled, names: Sequence[str], dev: tuple[list[str], Any], corrupted: bool
) -> dict[str, Any]:
    found: Fitted = fit(data, LEAST["ru"], names, bag=True, corrupted=corrupted)
    logits = np.array([_logit(found.classifier.probability(s, scorer.tokens(s))) for s in dev[0]])
    return _figures(dev[1], logits, found.threshold)


def _measured(dev: tuple[list[str], Any], threshold: float) -> dict[str, Any]:
    """Of the file that ships, through the scorer itself."""
    logits = np.array([_logit(scorer.classifier("ru").probability(s, scorer.tokens(s))) for s in dev[0]])
    return _figures(dev[1], logits, threshold)


def _figures(labels: Any, logits: Any, threshold: float) -> dict[str, Any]:
    accepted = logits >= threshold
    return {
        "mcc": _bootstrap(lambda i: mcc(labels[i], accepted[i]), len(labels)),
        "auc": _bootstrap(lambda i: auc(labels[i], logits[i]), len(labels)),
    }


def _corruptions(sentences: list[str], language: str) -> dict[str, Any]:
    """AUC of originals over their ruins, by kind of ruin; the interval resamples sentences."""
    originals = np.array([scorer.acceptability(s)[0] for s in sentences])
    broken = {kind: [corrupt(s, kind, 1, language) for s in sentences] for kind in CORRUPTIONS}
    scores = {
        k: np.array([np.nan if b is None else scorer.acceptability(b)[0] for b in of]) for k, of in broken.items()
    }

    def area(kinds: Sequence[str], rows: Any) -> float:
        bad = np.concatenate([scores[k][rows] for k in kinds])
        bad = bad[~np.isnan(bad)]
        good = originals[rows]
        return auc(np.r_[np.ones(len(good)), np.zeros(len(bad))], np.r_[good, bad])

    groups = {"any": list(CORRUPTIONS)} | {k: [k] for k in CORRUPTIONS}
    return {name: _bootstrap(partial(area, kinds), len(sentences)) for name, kinds in groups.items()}


def _bootstrap(figure: Callable[[Any], float], n: int) -> dict[str, float]:
    draw = np.random.default_rng(0)
    values = [figure(draw.integers(0, n, n)) for _ in range(RESAMPLES)]
    low, high = np.quantile(values, [0.025, 0.975])
    return {"value": round(figure(np.arange(n)), 4), "low": round(float(low), 4), "high": round(float(high), 4), "n": n}


def _logit(p: float) -> float:
    return float(np.log(p) - np.log1p(-p))


def _rucola(path: Path) -> tuple[list[str], Any]:
    with open(path, encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    return [r["sentence"] for r in rows], np.array([float(r["acceptable"]) for r in rows])


def _english(data: Path) -> list[str]:
    """Sentences of GSM8K's questions and of LlamaDuo's messages."""
    texts = [row["question"] for row in read_jsonl(data / "gsm8k-train.jsonl")]
    for row in read_jsonl(data / "llamaduo-synth-classification-gpt4o.jsonl"):
        texts += [m["content"] for m in row["messages"]]
    return _whole(texts, 9000)


def _xquad(path: Path) -> list[str]:
    articles = json.loads(path.read_text("utf-8"))["data"]
    return _whole([p["context"] for a in articles for p in a["paragraphs"]], CHECKED)


def _whole(texts: list[str], most: int) -> list[str]:
    """Sentences of 4 to 40 words that begin with a capital and end with a mark; every n-th, up to `most`."""
    found = dict.fromkeys(s for t in texts for s in scorer.sentences(t))
    whole = [s for s in found if 4 <= len(s.split()) <= 40 and s[0].isupper() and re.search(r"[.!?]$", s)]
    return whole[:: max(1, len(whole) // most)][:most]


if __name__ == "__main__":
    main()
