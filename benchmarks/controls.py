"""`make bench-controls`: four runs of the demo that are broken on purpose; the gate must refuse every one.

Writes `results/controls.json` and the table `controls`; exit status 1 when a broken run passed.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks import tables
from benchmarks.project import SCRATCH, Project, machine, save

CONTROLS = {
    "shuffled_answers": "every answer belongs to another question",
    "blanked_contexts": "the passages are empty",
    "untrained_adapter": "no training step is taken",
    "wrong_teacher": "the teacher states other facts",
}


def measure(project: Project, control: str) -> dict[str, Any]:
    finished = project.run("--control", control)
    shown = project.show()
    if shown.get("control") != control:
        raise RuntimeError(f"the last run is not the control {control}: {shown.get('control')}")
    verdict = shown["verdict"]
    return {
        "passed": verdict["passed"],
        "failed_rules": [rule["name"] for rule in verdict["rules"] if not rule["passed"]],
        "coverage": shown["held"].get("candidate", {}).get("coverage"),
        "registered_version": shown["version"],
        "exit_status": finished.status,
        "seconds": round(finished.seconds, 1),
    }


def render(results: dict[str, dict[str, Any]]) -> str:
    rows = [
        [
            f"{name}: {CONTROLS[name]}",
            tables.interval(r["coverage"], percent=True),
            "PASSED" if r["passed"] else "refused",
        ]
        for name, r in results.items()
    ]
    return tables.table(["negative control", "held coverage", "gate"], rows)


def main() -> int:
    project = Project("course-advisor", SCRATCH / "bench" / "controls")
    results = {control: measure(project, control) for control in CONTROLS}
    content = render(results)
    print(content)
    written = save("controls", {"machine": machine(), "controls": results})
    print(f"\nwritten: {written.name}, table in {', '.join(tables.update('controls', content)) or 'no page'}")
    return 1 if any(r["passed"] for r in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
