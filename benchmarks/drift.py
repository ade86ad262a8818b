"""`make bench-drift DATA=folder`: how often the drift check alarms, with and without drift, on real questions.

Each simulation draws training prompts, calibration prompts and a batch of queries anew from GSM8K's questions; the
drifted batches take a share of theirs from XQuAD. Writes `results/drift.json` and the table `drift`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.project import machine, save
from understudy.core.records import Example
from understudy.evals.stats import wilson
from understudy.monitor.drift import check, reference

ALPHA = 0.01
TRAIN, CALIBRATION, QUERIES = 300, 60, 100
SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)
USERS = 4
"""Queries of the clustered batch come from so many XQuAD articles: a batch of few users with one interest each."""


def gsm8k(folder: Path) -> list[str]:
    with open(folder / "gsm8k-train.jsonl", encoding="utf-8") as f:
        return [json.loads(line)["question"] for line in f]


def xquad(folder: Path) -> list[list[str]]:
    """Questions by article."""
    articles = json.loads((folder / "xquad-en.json").read_text("utf-8"))["data"]
    return [[qa["question"] for p in article["paragraphs"] for qa in p["qas"]] for article in articles]


def examples(questions: Sequence[str]) -> list[Example]:
    return [
        Example(str(i), [{"role": "user", "content": q}, {"role": "assistant", "content": "-"}])
        for i, q in enumerate(questions)
    ]


def simulate(seed: int, inside: list[str], outside: list[list[str]]) -> dict[str, bool]:
    """One draw of everything; whether each kind of batch alarms."""
    import numpy as np

    rng = np.random.default_rng(seed)
    drawn = [inside[i] for i in rng.permutation(len(inside))[: TRAIN + CALIBRATION + QUERIES]]
    train, unseen, batch = drawn[:TRAIN], drawn[TRAIN : TRAIN + CALIBRATION], drawn[TRAIN + CALIBRATION :]
    built = reference(examples(train), {"calibration": examples(unseen)})
    usual = [built.distance(q) for q in batch]
    flat = [q for article in outside for q in article]
    foreign = [built.distance(flat[i]) for i in rng.permutation(len(flat))[:QUERIES]]
    found = {}
    for share in SHARES:
        changed = round(share * QUERIES)
        found[f"{share:.0%}"] = check(foreign[:changed] + usual[changed:], built.calibration, ALPHA).alarm
    found["clustered"] = clustered(rng, outside)
    return found


def clustered(rng: Any, articles: list[list[str]]) -> bool:
    """No drift, but few users: training and calibration from all articles, the queries from a few of them."""
    pool = [(a, q) for a, article in enumerate(articles) for q in article]
    drawn = [pool[i] for i in rng.permutation(len(pool))]
    train, unseen = drawn[:TRAIN], drawn[TRAIN : TRAIN + CALIBRATION]
    few = set(rng.permutation(len(articles))[:USERS].tolist())
    built = reference(examples([q for _, q in train]), {"calibration": examples([q for _, q in unseen])})
    batch = [built.distance(q) for a, q in drawn[TRAIN + CALIBRATION :] if a in few][:QUERIES]
    return check(batch, built.calibration, ALPHA).alarm


def one(task: tuple[int, list[str], list[list[str]]]) -> dict[str, bool]:
    return simulate(*task)


def render(result: dict[str, Any]) -> str:
    names = {"0%": "no drift (false alarms)", "clustered": f"no drift, but only {USERS} users"}
    rows = [
        [names.get(kind, f"{kind} of the queries from another subject"), str(r["alarms"]), _percent(r)]
        for kind, r in result["batches"].items()
    ]
    return tables.table(["batch of queries", f"alarms in {result['simulations']}", "rate [95 % interval]"], rows)


def _percent(rate: dict[str, Any]) -> str:
    return f"{rate['value']:.1%} [{rate['low']:.1%}, {rate['high']:.1%}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    inside, outside = gsm8k(args.data), xquad(args.data)
    began = time.monotonic()
    with ProcessPoolExecutor(args.workers) as pool:
        tasks = [(seed, inside, outside) for seed in range(args.simulations)]
        found = list(pool.map(one, tasks, chunksize=4))
    counts = {kind: sum(f[kind] for f in found) for kind in found[0]}
    result = {
        "machine": machine(),
        "alpha": ALPHA,
        "simulations": args.simulations,
        "prompts": {"training": TRAIN, "calibration": CALIBRATION, "queries": QUERIES},
        "seconds": round(time.monotonic() - began, 1),
        "batches": {k: {"alarms": n, **wilson(n, args.simulations).to_json()} for k, n in counts.items()},
    }
    content = render(result)
    print(content)
    written = save("drift", result)
    print(f"\nwritten: {written.name}, table in {', '.join(tables.update('drift', content)) or 'no page'}")
    # The stated rate must lie in the interval or above it.
    return 0 if result["batches"]["0%"]["low"] <= ALPHA else 1


if __name__ == "__main__":
    sys.exit(main())
