"""`make bench`: the demo from nothing, the same run again, and the commands that must answer at once.

Writes `results/demo.json` and the table `demo`.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks import tables
from benchmarks.project import SCRATCH, Project, balanced, machine, median_seconds, save

COLUMNS = ("base", "few_shot", "candidate", "service")
NAMES = {"base": "base alone", "few_shot": "base with the best few-shot prompt", "service": "service (simulated)"}


def measure() -> dict[str, Any]:
    project = Project("course-advisor", SCRATCH / "bench" / "demo")
    first = project.run()
    shown = project.show()
    second = project.run()
    return {
        "machine": machine(),
        "first_run_s": round(first.seconds, 1),
        "second_run_s": round(second.seconds, 2),
        "second_run_all_cached": all(stage["cached"] for stage in project.show()["stages"]),
        "help_s": round(median_seconds(project, "--help"), 3),
        "plan_s": round(median_seconds(project, "plan"), 3),
        "ledger_balanced": balanced(shown),
        "verdict_passed": (shown["verdict"] or {}).get("passed"),
        "simulated": shown.get("simulated", []),
        "stages": shown["stages"],
        "rounds": shown["rounds"],
        "held": shown["held"],
        "differences": shown["differences"],
    }


def render(result: dict[str, Any]) -> str:
    """Rounds on dev, models on held, differences, then the times."""
    simulated = " (simulated judge)" if "judge" in result["simulated"] else ""
    head = ["course advisor", "rows", f"coverage{simulated}", "exact facts (no judge)"]
    rows = []
    for r in result["rounds"]:
        arm = ", untargeted" if r["arm"] == "untargeted" else ""
        rows.append([f"dev, round {r['round']}{arm}", str(r["rows"]), *_pair(r["dev"])])
    for name in COLUMNS:
        if name in result["held"]:
            rows.append([f"held, {NAMES.get(name, name)}", "", *_pair(result["held"][name])])
    for pair, values in result["differences"].items():
        rows.append([f"held, {pair.replace('-', ' minus ').replace('_', '-')}", "", *_pair(values)])
    times = [
        ["`make demo` after installation", tables.seconds(result["first_run_s"])],
        ["the same again, nothing changed", tables.seconds(result["second_run_s"])],
        ["`understudy --help`", f"{result['help_s']:.2f} s"],
        ["`understudy plan`", f"{result['plan_s']:.2f} s"],
    ]
    return tables.table(head, rows) + "\n\n" + tables.table([f"time, {result['machine']['cores']} cores", ""], times)


def _pair(values: dict[str, Any]) -> list[str]:
    return [tables.interval(values.get(metric), percent=True) for metric in ("coverage", "exact_facts")]


def main() -> int:
    result = measure()
    content = render(result)
    print(content)
    print(f"\nwritten: {save('demo', result).name}, table in {', '.join(tables.update('demo', content)) or 'no page'}")
    return 0 if result["ledger_balanced"] else 1


if __name__ == "__main__":
    sys.exit(main())
