"""`make bench-forecast`: what `understudy plan` foretells of three runs, beside what they use.

The course advisor with prices; instructions without a teacher; the course advisor once more with other sizes, other
splits and an empty cache of replies, foretold from what its first run has shown. Writes `results/forecast.json` and the
table `forecast`; exit status 1 where a target is missed. Run it alone: beside other work, times say nothing.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from typing import Any

from benchmarks import tables
from benchmarks.project import SCRATCH, Project, machine, save
from understudy.forecast.table import amount, count, duration, size

PRICES = {"teacher": (2.0, 8.0), "judge": (1.0, 4.0), "service": (2.0, 8.0)}
"""For a million tokens of prompts and replies, in no currency: the simulated roles are paid in none."""
TARGETS = {"tokens": 0.15, "money": 0.15, "time": 0.30, "peak memory": 0.30, "disk": 0.30}
"""How far off a prediction may be, as a share of what was used."""
SHOWN = {"tokens": count, "money": amount, "time": duration, "peak memory": size, "disk": size}
INSTRUCTIONS = 1200


def priced(project: Project) -> None:
    """Give the simulated roles their prices."""
    file = project.path / "understudy.yaml"
    text = file.read_text("utf-8")
    for role, (prompt, reply) in PRICES.items():
        price = f"price: {{prompt: {prompt}, completion: {reply}}}"
        text = text.replace(f"{role}: {{provider: simulated, ", f"{role}: {{provider: simulated, {price}, ")
    file.write_text(text, "utf-8")


def other_sizes(project: Project) -> None:
    """One round of more rows, other splits, and no reply in the cache."""
    file = project.path / "understudy.yaml"
    text = file.read_text("utf-8").replace("loop: {rounds: 2}", "loop: {rounds: 1}\nsynthesize: {rows: 400}")
    file.write_text(text.replace("split: {", "split: {seed: 1, "), "utf-8")
    shutil.rmtree(project.path / "cache")


def instructions() -> Project:
    """Made-up additions and comparisons; equal rows each time."""
    project = Project("instructions", SCRATCH / "bench" / "forecast-instructions")
    draw = random.Random(7)
    rows = []
    for _ in range(INSTRUCTIONS):
        a, b = draw.randint(2, 999), draw.randint(2, 999)
        more = "more" if a > b else "less" if a < b else "as much"
        rows.append({"prompt": f"What is {a} plus {b}?", "response": f"{a} plus {b} is {a + b}."})
        rows.append({"prompt": f"Is {a} more or less than {b}?", "response": f"{a} is {more} as {b}."})
    data = project.path / "data"
    data.mkdir(exist_ok=True)
    unique = {row["prompt"]: row for row in rows}
    (data / "instructions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in unique.values()), "utf-8")
    return project


def compared(project: Project, name: str) -> dict[str, Any]:
    """Foretell with a probe, run, and compare; the run keeps the forecast without a probe, which is not used here."""
    foretold = json.loads(project.command("plan", "--json", "--probe").stdout)
    told = foretold["total"]
    project.run()
    used = {row["what"]: row["actual"] for row in project.show()["forecast"]}
    predicted = {
        "tokens": told["prompt_tokens"]["value"] + told["completion_tokens"]["value"],
        "money": told["money"]["value"],
        "time": told["seconds"]["value"],
        "peak memory": told["memory_mb"]["value"],
        "disk": sum(step["disk_mb"]["value"] for step in foretold["steps"]),
    }
    actual = {"tokens": used.get("tokens in", 0) + used.get("tokens out", 0)}
    actual |= {what: used.get(what, 0.0) for what in ("money", "time", "peak memory", "disk")}
    rows = {what: _row(what, predicted[what], actual[what]) for what in TARGETS if predicted[what] or actual[what]}
    return {"run": name, "figures": rows}


def _row(what: str, predicted: float, actual: float) -> dict[str, Any]:
    off = (predicted - actual) / actual if actual else None
    return {"predicted": predicted, "actual": actual, "off": off, "met": off is not None and abs(off) <= TARGETS[what]}


def measure() -> dict[str, Any]:
    advisor = Project("course-advisor", SCRATCH / "bench" / "forecast-advisor")
    priced(advisor)
    runs = [compared(advisor, "course advisor, nothing seen before")]
    runs.append(compared(instructions(), "instructions, no teacher, nothing seen before"))
    other_sizes(advisor)
    runs.append(compared(advisor, "course advisor, 400 rows in one round, after the first run"))
    return {"machine": machine(), "targets": TARGETS, "runs": runs}


def render(result: dict[str, Any]) -> str:
    """One line a run and quantity."""
    head = ["run", "needed", "predicted", "actual", "off by", "target"]
    rows = []
    for run in result["runs"]:
        for what, found in run["figures"].items():
            shown = SHOWN[what]
            off = (
                "-" if found["off"] is None else f"{100 * found['off']:+.0f} %" + ("" if found["met"] else " (missed)")
            )
            target = f"{100 * result['targets'][what]:.0f} %"
            rows.append([run["run"], what, shown(found["predicted"]), shown(found["actual"]), off, target])
    return tables.table(head, rows)


def main() -> int:
    result = measure()
    content = render(result)
    print(content)
    pages = ", ".join(tables.update("forecast", content)) or "no page"
    print(f"\nwritten: {save('forecast', result).name}, table in {pages}")
    return 0 if all(f["met"] for run in result["runs"] for f in run["figures"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
