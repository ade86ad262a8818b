"""`make bench-targeted`: a last round aimed at what failed on dev beside one of equal size without aim, over seeds.

Each seed draws synthesis and training anew on the course advisor, up to the dev scores of both arms; held stays shut.
Differences are paired by item and, over seeds, by seed. Writes `results/targeted.json` and the table `targeted`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.project import SCRATCH, Project, machine, save
from understudy.evals.score import load_values
from understudy.evals.stats import mean_difference, paired_difference

METRIC = "coverage"
ARMS = ("score-dev-1", "score-dev-2", "score-dev-untargeted")
STUDENT_4 = 2.776
"""Student's quantile for 95 % and four degrees of freedom: five seeds."""


def run(seed: int) -> dict[str, dict[str, float]]:
    """Arm -> item -> value, of one seed."""
    project = Project("course-advisor", SCRATCH / "bench" / f"targeted-{seed}")
    with open(project.path / "understudy.yaml", "a", encoding="utf-8") as f:
        f.write(f"synthesize: {{seed: {seed}}}\ntrain: {{seed: {seed}}}\ncanary: {{probes: 0}}\n")
    plan = Path(project.command("plan", "--bind").stdout.strip())
    steps = json.loads((project.path / plan).read_text("utf-8"))["steps"]
    for step in steps:
        project.command("step", step["name"], "--plan", str(project.path / plan))
        if step["name"] == ARMS[-1]:
            break
    found = {}
    for step in steps:
        if step["name"] in ARMS:
            folder = project.path / "store" / step["name"] / step["fingerprint"][:16]
            found[step["name"]] = load_values(folder, "greedy", METRIC)
    return found


def measure(seeds: int) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    by_item: dict[str, list[float]] = {}
    for seed in range(seeds):
        values = run(seed)
        first, aimed, unaimed = (values[arm] for arm in ARMS)
        difference = paired_difference(aimed, unaimed)
        rates = {name: sum(v.values()) / len(v) for name, v in zip(ARMS, (first, aimed, unaimed), strict=True)}
        rows.append({"seed": seed, "rates": rates, "difference": difference.to_json()})
        for item in aimed:
            by_item.setdefault(item, []).append(aimed[item] - unaimed[item])
        print(json.dumps(rows[-1]), flush=True)
    # An item is asked in every seed: its mean over seeds is one unit.
    items = mean_difference([sum(of) / len(of) for of in by_item.values()], 1.0)
    means = [r["difference"]["value"] for r in rows]
    half = STUDENT_4 * statistics.stdev(means) / math.sqrt(seeds) if seeds == 5 else math.nan
    return {
        "machine": machine(), "seeds": rows, "by_item": items.to_json(),
        "by_seed": {"value": statistics.mean(means), "low": statistics.mean(means) - half,
                    "high": statistics.mean(means) + half, "n": seeds},
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    result = measure(parser.parse_args().seeds)
    print(f"written: {save('targeted', result).name}")
    rows = [
        [str(r["seed"]), *(f"{r['rates'][arm]:.3f}" for arm in ARMS), tables.interval(r["difference"])]
        for r in result["seeds"]
    ]
    rows.append(["all, by item", "", "", "", tables.interval(result["by_item"])])
    rows.append(["all, by seed", "", "", "", tables.interval(result["by_seed"])])
    header = ["seed", "round 1", "round 2, aimed", "round 2, without aim", "aimed minus without, dev coverage"]
    content = tables.table(header, rows)
    tables.update("targeted", content)
    print(content)
    # "Not worse": no interval may lie wholly below zero.
    return 0 if result["by_item"]["high"] >= 0 and result["by_seed"]["high"] >= 0 else 1


if __name__ == "__main__":
    sys.exit(main())
