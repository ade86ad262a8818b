"""`make bench-intervals`: do the intervals of the coverage rate hold what they state, and what do they cost in width.

Each trial is a whole loop: three rounds on dev, judged in looks and stopped early, then held, judged once. The judge
errs, an item's answers are alike, every round's true rate is the bar, so that each promotion is a false one. Writes
`results/intervals.json` and the tables `intervals*`; exit status 1 when a cell of the grid misses.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from benchmarks import rivals, tables
from benchmarks.project import machine, save
from understudy.evals import calibration, coverage, exact, looks
from understudy.evals.stats import wilson

RATES, SIZES = (0.5, 0.8, 0.95), (30, 90, 300)
JUDGES = {"perfect": (1.0, 1.0), "0.9 / 0.9": (0.9, 0.9), "0.8 / 0.95": (0.8, 0.95)}
"""Sensitivity / specificity."""
SAMPLES = (1, 4)
ALIKE = 0.3
"""Intraclass correlation of an item's answers (beta-binomial), within a round and between rounds."""
SLICE = 250
"""Labelled answers, one of an item each, drawn as they come: at a rate of 0.95 about 12 of them are not covered."""
ROUNDS = 3
CONFIDENCE, STATED, ENOUGH, WIDEST = 0.95, 0.025, 0.93, 1.3
TRIALS, BATCH = 20_000, 5_000
OURS, AT_ITS_WORD = "ours", "judge at its word"
"""The judge at its word is shown beside the corrections; where its mistakes cancel out it is no method to prefer."""


@dataclass(frozen=True)
class Cell:
    """One world. `design`: no labels (`none`), on other answers (`separate`), on the held answers (`same`)."""

    rate: float
    n: int
    judge: str
    samples: int = 1
    design: str = "none"
    labels: int = 0
    alike: float = ALIKE
    bar: float | None = None
    rounds: int = 0


def grid() -> list[Cell]:
    """The cells that must not miss: a perfect judge is taken at its word, the others are corrected."""
    found = []
    for judge, rate, n, samples in product(JUDGES, RATES, SIZES, SAMPLES):
        own = Cell(rate, n, judge, samples, rounds=ROUNDS)
        found.append(own if judge == "perfect" else replace(own, design="separate", labels=SLICE))
    return found


def others() -> dict[str, list[Cell]]:
    """What else one wants to know; reported, not decided on."""
    worlds = [Cell(rate, n, judge, k) for judge, rate, n, k in product(JUDGES, RATES, SIZES, SAMPLES)]
    perfect = [c for c in worlds if c.judge == "perfect"]
    half = [replace(c, design="same", labels=min(c.n // 2, 100)) for c in worlds]
    return {
        "same": half,
        "needless": [replace(c, design="separate", labels=SLICE) for c in perfect],
        "small": [replace(c, design="separate", labels=100) for c in worlds if c.judge != "perfect"],
        "alike": [replace(c, alike=alike) for c in perfect if c.samples > 1 for alike in (0.1, 0.6)],
        "looks": [Cell(rate, 90, "perfect", bar=0.8, rounds=1) for rate in (0.5, 0.65, 0.75, 0.8, 0.85, 0.95)],
    }


# One batch of trials


class World:
    """Items, answers, verdicts and labels of a batch, all drawn from one generator."""

    def __init__(self, cell: Cell, trials: int, seed: list[int]) -> None:
        self.cell, self.trials, self.rng = cell, trials, np.random.default_rng(seed)
        self.right, self.wrong = JUDGES[cell.judge]

    def items(self) -> Any:
        """(trials, items): how likely each item's answers are to be covered."""
        weight = 1 / self.cell.alike - 1
        rate = self.cell.rate
        return self.rng.beta(rate * weight, (1 - rate) * weight, (self.trials, self.cell.n))

    def answers(self, items: Any) -> tuple[Any, Any, Any]:
        """(trials, items): covered answers of each item, those of them that the judge calls so, and others it does."""
        good = self.rng.binomial(self.cell.samples, items)
        hits = self.rng.binomial(good, self.right)
        return good, hits, self.rng.binomial(self.cell.samples - good, 1 - self.wrong)

    def slice(self) -> tuple[Any, Any, Any, Any]:
        """(hits, good, clean, bad) of the labelled answers of other items."""
        good = self.rng.binomial(self.cell.labels, self.cell.rate, self.trials)
        bad = self.cell.labels - good
        return self.rng.binomial(good, self.right), good, self.rng.binomial(bad, self.wrong), bad


def interval(said: Any, cell: Cell, labels: tuple[Any, ...] | None, confidence: float) -> tuple[Any, Any, Any]:
    """(low, high, usable) by the product's functions, from verdicts (trials, items so far)."""
    n, values = said.shape[1], said / cell.samples
    mean = said.sum(axis=1) / (n * cell.samples)
    low, high = coverage.ends(mean, ((values - mean[:, None]) ** 2).sum(axis=1), n, confidence, cell.samples)
    if labels is None:
        return low, high, np.ones(len(mean), bool)
    hits, good, clean, bad = labels
    _, low, high, usable = calibration.rogan_gladen(
        (mean, low, high), _three(hits, good, confidence), _three(clean, bad, confidence)
    )
    return low, high, usable & (good > 0) & (bad > 0)


def _three(part: Any, whole: Any, confidence: float) -> calibration.Three:
    some = whole > 0
    low, high = exact.jeffreys(np.where(some, part, 0), np.where(some, whole, 1), confidence)
    return np.where(some, part / np.maximum(whole, 1), 0.5), np.where(some, low, 0), np.where(some, high, 1)


def _open_three(part: Any, whole: Any) -> calibration.Three:
    """Wilson's interval, and everything where nothing is labelled, as the product has it for labels on judged items."""
    some, size = whole > 0, np.maximum(whole, 1).astype(float)
    low, high = rivals.wilson(part / size, size)
    return np.where(some, part / size, 0.5), np.where(some, low, 0), np.where(some, high, 1)


def develop(world: World, labels: tuple[Any, ...] | None) -> dict[str, float]:
    """The rounds on dev: same items, new answers; a round stops at a look, the loop stops at a round that clears."""
    cell, items, trials = world.cell, world.items(), world.trials
    bar = cell.rate if cell.bar is None else cell.bar
    planned = looks.plan(cell.n)
    levels = looks.confidences(planned, CONFIDENCE)
    going, found = np.ones(trials, bool), dict.fromkeys(("rounds", "inside", "judged", "cleared"), 0.0)
    for _ in range(cell.rounds):
        _, hits, false = world.answers(items)
        said = hits + false
        open_, cleared = going.copy(), np.zeros(trials, bool)
        for n, level in zip(planned, levels, strict=True):
            low, high, usable = interval(said[:, :n], cell, labels, level)
            clears, cannot = usable & (low >= bar), usable & (high < bar)
            stops = open_ & (clears | cannot | (n == cell.n))
            found["inside"] += float((stops & (~usable | ((low <= cell.rate) & (cell.rate <= high)))).sum())
            found["judged"] += n / cell.n * float(stops.sum())
            cleared |= stops & clears
            open_ &= ~stops
        found["rounds"] += float(going.sum())
        found["cleared"] += float(cleared.sum())
        going &= ~cleared
    return found


def batch(task: tuple[Cell, int, int]) -> dict[str, Any]:
    """Counts over the trials of one batch, for ours and each rival."""
    cell, trials, number = task
    world = World(cell, trials, [20_261_121, number, round(cell.rate * 100), cell.n, cell.samples, len(cell.judge)])
    labels = world.slice() if cell.design == "separate" else None
    found: dict[str, Any] = {"dev": develop(world, labels)} if cell.rounds else {}
    drawn = world.answers(world.items())
    methods = same(world, *drawn) if cell.design == "same" else held(world, drawn[1] + drawn[2], labels)
    found["methods"] = {name: tally(cell, *ends) for name, ends in methods.items()}
    return found


def tally(cell: Cell, low: Any, high: Any, usable: Any = None) -> dict[str, float]:
    """How often the truth is inside, how often the lower end reaches it, and the width."""
    low, high = np.clip(np.nan_to_num(low, nan=0.0), 0, 1), np.clip(np.nan_to_num(high, nan=1.0), 0, 1)
    use = np.ones(len(low), bool) if usable is None else usable
    inside, above = (low <= cell.rate) & (cell.rate <= high), low >= cell.rate
    return {
        "trials": float(len(use)),
        "used": float(use.sum()),
        "inside": float((inside & use).sum()),
        "promoted": float((above & use).sum()),
        "width": float((high - low)[use].sum()),
    }


def held(world: World, said: Any, labels: tuple[Any, ...] | None) -> dict[str, tuple[Any, ...]]:
    """Intervals of the held set's rate."""
    cell, n = world.cell, said.shape[1]
    mean = said.sum(axis=1) / (n * cell.samples)
    spread = ((said / cell.samples - mean[:, None]) ** 2).sum(axis=1)
    items = rivals.design_items(mean, spread, n, cell.samples)
    found: dict[str, tuple[Any, ...]] = {OURS: interval(said, cell, labels, CONFIDENCE)}
    if labels is None:
        counts = np.stack([(said == k).sum(axis=1) for k in range(cell.samples + 1)], axis=1)
        return found | {
            "Wilson, answers of an item as one": rivals.wilson(mean, np.full(len(mean), float(n))),
            "Wilson, effective items": rivals.wilson(mean, items),
            "Jeffreys, effective items": rivals.jeffreys(mean, items),
            "Clopper-Pearson, effective items": rivals.clopper_pearson(mean, items),
            "bootstrap over items": rivals.bootstrap(counts, n, world.rng),
        }
    return found | {
        "Rogan-Gladen, delta method": rivals.wald(mean, items, *labels),
        "Lang-Reiczigel": rivals.lang_reiczigel(mean, items, *labels),
        "MOVER with Wilson": rivals.mover_wilson(mean, items, *labels),
        "posterior draws, Jeffreys": rivals.posterior(mean, items, *labels, rng=world.rng),
        AT_ITS_WORD: rivals.wilson(mean, items),
    }


def same(world: World, good: Any, hits: Any, false: Any) -> dict[str, tuple[Any, ...]]:
    """Labels on one answer of each of the first held items; items come in random order."""
    cell, m, said = world.cell, world.cell.labels, hits + false
    n, values = said.shape[1], said / cell.samples
    mean = said.sum(axis=1) / (n * cell.samples)
    spread = ((values - mean[:, None]) ** 2).sum(axis=1)
    items = rivals.design_items(mean, spread, n, cell.samples)
    good, hits, false = good[:, :m], hits[:, :m], false[:, :m]
    # One answer at random is covered as often as its item's answers are, and judged as those of its kind are.
    covered = world.rng.random(good.shape) < good / cell.samples
    chance = np.where(covered, hits / np.maximum(good, 1), false / np.maximum(cell.samples - good, 1))
    verdict = world.rng.random(good.shape) < chance
    yes, no, ups = (covered & verdict).sum(axis=1), (covered & ~verdict).sum(axis=1), verdict.sum(axis=1)
    low, high = coverage.ends(mean, spread, n, CONFIDENCE, cell.samples)
    parts = _open_three(yes, ups), _open_three(no, m - ups)
    labelled, size = covered.mean(axis=1), np.full(len(mean), float(m))
    return {
        OURS: calibration.double_sampling((mean, low, high), *parts)[1:],
        "PPI++": rivals.prediction_powered(covered.astype(float), verdict.astype(float), values[:, m:]),
        "labels alone, Clopper-Pearson": rivals.clopper_pearson(labelled, size),
        "labels alone, Wilson": rivals.wilson(labelled, size),
        "posterior draws, Jeffreys": rivals.double_posterior(mean, items, (yes, ups), (no, m - ups), world.rng),
    }


# What it amounts to


def study(cells: Iterable[Cell], trials: int, pool: ProcessPoolExecutor) -> list[dict[str, Any]]:
    """One result for each cell: what each method did, and ours beside the best of them."""
    size = min(trials, BATCH)
    asked = [(cell, size, i) for cell in cells for i in range(-(-trials // size))]
    sums: dict[Cell, dict[str, Any]] = {}
    for (cell, _, _), found in zip(asked, pool.map(batch, asked), strict=True):
        of = sums.setdefault(cell, {"dev": {}, "methods": {}})
        _add(of["dev"], found.get("dev", {}))
        for name, counts in found["methods"].items():
            _add(of["methods"].setdefault(name, {}), counts)
    return [result(cell, of) for cell, of in sums.items()]


def _add(to: dict[str, float], counts: dict[str, float]) -> None:
    for name, value in counts.items():
        to[name] = to.get(name, 0.0) + value


def result(cell: Cell, of: dict[str, Any]) -> dict[str, Any]:
    methods = {
        name: {
            "coverage": round(m["inside"] / m["used"], 4),
            "width": round(m["width"] / m["used"], 4),
            "promoted": round(m["promoted"] / m["trials"], 4),
            "refused": round(1 - m["used"] / m["trials"], 5),
        }
        for name, m in of["methods"].items()
    }
    covering = [k for k, m in methods.items() if k not in (OURS, AT_ITS_WORD) and m["coverage"] >= ENOUGH]
    counts = {k: wilson(of["methods"][k]["promoted"], int(of["methods"][k]["trials"])) for k in methods}
    # What covers enough but promotes more than is stated is not a method that one could use instead.
    best = min((k for k in covering if counts[k].low <= STATED), key=lambda k: methods[k]["width"], default=OURS)
    narrowest = min(covering, key=lambda k: methods[k]["width"], default=OURS)
    dev, trials = of["dev"], of["methods"][OURS]["trials"]
    found = {
        "cell": asdict(cell),
        "methods": methods,
        "best": best,
        "ratio": round(methods[OURS]["width"] / methods[best]["width"], 3),
        "narrowest": narrowest,
        "ratio_to_narrowest": round(methods[OURS]["width"] / methods[narrowest]["width"], 3),
        "promoted": counts[OURS].to_json(),
    }
    if dev:
        found["dev"] = {
            "coverage": round(dev["inside"] / dev["rounds"], 4),
            "judged": round(dev["judged"] / dev["rounds"], 4),
            "cleared": round(dev["cleared"] / trials, 4),
        }
    return found


def misses(results: Iterable[dict[str, Any]]) -> list[str]:
    """What a cell of the grid fails in; the promotion rate only where the simulation's own interval excludes chance."""
    found = []
    for r in results:
        cell, ours, name = r["cell"], r["methods"][OURS], place(r["cell"])
        if ours["coverage"] < ENOUGH:
            found.append(f"{name}: held covers {ours['coverage']:.1%}")
        if r["dev"]["coverage"] < ENOUGH:
            found.append(f"{name}: dev covers {r['dev']['coverage']:.1%}")
        if r["ratio"] > WIDEST:
            found.append(f"{name}: {r['ratio']:.2f} times as wide as {r['best']}")
        if r["promoted"]["low"] > STATED:
            found.append(f"{name}: promotes {r['promoted']['value']:.2%} at a rate of {cell['rate']}")
    return found


def wider(results: Iterable[dict[str, Any]]) -> list[str]:
    """Cells in which a method that covers enough, but promotes more than is stated, is much narrower."""
    return [
        f"{place(r['cell'])}: {r['ratio_to_narrowest']:.2f} times as wide as {r['narrowest']}, which promotes "
        f"{r['methods'][r['narrowest']]['promoted']:.1%}"
        for r in results
        if r["ratio_to_narrowest"] > WIDEST and r["narrowest"] != r["best"]
    ]


def place(cell: dict[str, Any]) -> str:
    return f"judge {cell['judge']}, rate {cell['rate']}, n {cell['n']}, K {cell['samples']}"


# Tables


def render(results: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Table name -> Markdown."""
    main = results["grid"]
    groups = {
        "the rate, judge at its word": [r for r in main if r["cell"]["design"] == "none"],
        f"corrected by {SLICE} labels on other answers": [r for r in main if r["cell"]["design"] == "separate"],
        "corrected by labels on half of the held items": [
            r for r in results["same"] if r["cell"]["judge"] != "perfect"
        ],
    }
    return {
        "intervals": grid_table(main),
        "intervals-methods": methods_table(groups),
        "intervals-beyond": beyond_table(results),
        "intervals-looks": looks_table(results["looks"]),
    }


def grid_table(results: list[dict[str, Any]]) -> str:
    by_place: dict[tuple[Any, ...], dict[int, dict[str, Any]]] = {}
    for r in results:
        cell = r["cell"]
        by_place.setdefault((cell["judge"], cell["rate"], cell["n"]), {})[cell["samples"]] = r
    header = ["judge", "true rate", "n", *(f"{what}, K = {k}" for k in SAMPLES for what in COLUMNS)]
    rows = []
    for (judge, rate, n), of in by_place.items():
        cells = [text for k in SAMPLES for text in columns(of[k])] if len(of) == len(SAMPLES) else []
        rows.append([judge, f"{rate:g}", str(n), *cells])
    return tables.table(header, rows)


COLUMNS = ("covers held / dev", "width (x best)", "false promotion")


def columns(r: dict[str, Any]) -> list[str]:
    ours = r["methods"][OURS]
    return [
        f"{ours['coverage']:.1%} / {r['dev']['coverage']:.1%}",
        f"{ours['width']:.3f} ({r['ratio']:.2f})",
        f"{ours['promoted']:.1%}",
    ]


def methods_table(groups: dict[str, list[dict[str, Any]]]) -> str:
    """Each method over the cells of its group: does it hold, and where is it worst."""
    header = ["", "method", "cells covered >= 93 %", "least coverage", "most false promotion", "width beside ours"]
    rows = []
    for group, of in groups.items():
        for name in (OURS, *sorted(of[0]["methods"].keys() - {OURS})):
            each = [r["methods"][name] for r in of]
            beside = [m["width"] / r["methods"][OURS]["width"] for m, r in zip(each, of, strict=True)]
            rows.append([
                group if name == OURS else "", name, f"{sum(m['coverage'] >= ENOUGH for m in each)} of {len(each)}",
                f"{min(m['coverage'] for m in each):.1%}", f"{max(m['promoted'] for m in each):.1%}",
                f"{min(beside):.2f} to {max(beside):.2f}",
            ])  # fmt: skip
    return tables.table(header, rows)


BEYOND = {
    "needless": f"perfect judge, corrected all the same by {SLICE} labels",
    "small": "other judges, corrected by 100 labels",
    "same": "labels on half of the held items, 100 at most",
    "alike": "4 answers with a correlation of 0.1 or 0.6, judge at its word",
}


def beyond_table(results: dict[str, list[dict[str, Any]]]) -> str:
    header = ["outside the grid", "cells", "least coverage", "most false promotion", "width x best", "refused"]
    rows = []
    for name, text in BEYOND.items():
        ours, ratios = [r["methods"][OURS] for r in results[name]], [r["ratio"] for r in results[name]]
        rows.append([
            text, str(len(ours)), f"{min(m['coverage'] for m in ours):.1%}", f"{max(m['promoted'] for m in ours):.1%}",
            f"{min(ratios):.2f} to {max(ratios):.2f}", f"{max(m['refused'] for m in ours):.1%}",
        ])  # fmt: skip
    return tables.table(header, rows)


def looks_table(results: list[dict[str, Any]]) -> str:
    rows = [
        [
            f"{r['cell']['rate']:g}",
            f"{r['dev']['judged']:.0%}",
            f"{r['dev']['cleared']:.1%}",
            f"{r['dev']['coverage']:.1%}",
        ]
        for r in results
    ]
    return tables.table(["true rate (bar 0.8, n 90)", "answers judged", "clears the bar", "covers"], rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--fast", action="store_true", help="500 trials a cell; writes nothing")
    args = parser.parse_args()
    trials, began = 500 if args.fast else args.trials, time.monotonic()
    with ProcessPoolExecutor(args.workers) as pool:
        results = {name: study(cells, trials, pool) for name, cells in ({"grid": grid()} | others()).items()}
    contents = render(results)
    print("\n\n".join(contents.values()))
    missed, notes = misses(results["grid"]), wider(results["grid"])
    print(
        "\n"
        + "".join(f"note: {n}\n" for n in notes)
        + ("\n".join(f"MISSED {m}" for m in missed) or f"all {len(results['grid'])} cells hold")
    )
    if not args.fast:
        seconds = round(time.monotonic() - began, 1)
        stated = {
            "trials": trials,
            "slice": SLICE,
            "alike": ALIKE,
            "rounds": ROUNDS,
            "stated": STATED,
            "missed": missed,
            "notes": notes,
        }
        written = save("intervals", {"machine": machine(), "seconds": seconds, **stated, "results": results})
        pages = {page for name, content in contents.items() for page in tables.update(name, content)}
        print(f"written: {written.name}, tables in {', '.join(sorted(pages)) or 'no page'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
