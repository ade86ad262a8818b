"""`make bench-real`: fine-tune the shipped tiny base on public data that nobody on this project wrote.

Each data set is copied into the project's `data/`, as a user would do. Writes `results/real.json` and the table `real`.
What it shows: loading, the row ledger, truncation and loss on real text. The tiny base is no product, so its answers
prove nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.project import ROOT, SCRATCH, Project, balanced, machine, save


@dataclass(frozen=True, slots=True)
class Case:
    """One data set in one example; `edits` are literal replacements in its `understudy.yaml`."""

    name: str
    example: str
    file: str
    target: str
    edits: tuple[tuple[str, str], ...] = ()


SHORT = ("size: toy\n", "size: toy\ntrain: {max_steps: 20}\n")
"""For data that is here for the way through the stages: the tiny base learns nothing of it in minutes."""

CASES = (
    Case("xquad-en", "context-qa", "xquad-en.json", "data/squad.json"),
    Case(
        "gsm8k",
        "instructions",
        "gsm8k-train.jsonl",
        "data/instructions.jsonl",
        edits=(
            ("{prompt: prompt, response: response}", "{prompt: question, response: answer}"),
            # One pass over 7,473 rows; the toy size's four are meant for some hundreds.
            ("size: toy\n", "size: toy\ntrain: {epochs: 1}\n"),
        ),
    ),
    Case(
        "xquad-ru",
        "context-qa",
        "xquad-ru.json",
        "data/squad.json",
        edits=(("size: toy\n", "size: toy\nbase: {path: tiny-ru}\n"), SHORT),
    ),
    Case(
        "llamaduo",
        "instructions",
        "llamaduo-synth-classification-gpt4o.jsonl",
        "data/instructions.jsonl",
        edits=(("{prompt: prompt, response: response}", "{messages: messages}"), SHORT),
    ),
)


def prepare(case: Case, data: Path) -> Project:
    """The example with the data set in place; raises ValueError when an edit no longer fits its `understudy.yaml`."""
    project = Project(case.example, SCRATCH / "bench-real" / case.name)
    target = project.path / case.target
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(data / case.file, target)
    settings = project.path / "understudy.yaml"
    text = settings.read_text(encoding="utf-8")
    for old, new in case.edits:
        if old not in text:
            raise ValueError(
                f"examples/{case.example}/understudy.yaml no longer holds {old!r}; mend benchmarks/real.py"
            )
        text = text.replace(old, new)
    settings.write_text(text, encoding="utf-8")
    return project


def truncated(shown: dict[str, Any]) -> dict[str, Any] | None:
    """Rows that packing cut at `seq_len_tokens`, and their share of the rows that it took in."""
    packs = [s for s in shown["stages"] if s["name"].startswith("pack") and s["rows_in"]]
    if not packs:
        return None
    count = sum(s["notes"].get("truncated", 0) for s in packs)
    rows = sum(s["rows_in"] for s in packs)
    return {"rows": count, "share": round(count / rows, 4)}


def measure(case: Case, data: Path) -> dict[str, Any]:
    project = prepare(case, data)
    finished = project.run()
    shown = project.show()
    collected = next(s for s in shown["stages"] if s["name"].startswith("collect"))
    rejected: dict[str, int] = {}
    for stage in shown["stages"]:
        for reason, count in stage["rejected"].items():
            rejected[reason] = rejected.get(reason, 0) + count
    return {
        "file": case.file,
        "rows": collected["rows_in"],
        "rejected": rejected,
        "truncated": truncated(shown),
        "ledger_balanced": balanced(shown),
        "loss_untuned": shown["held"].get("base", {}).get("loss"),
        "loss_tuned": shown["held"].get("candidate", {}).get("loss"),
        "loss_tuned_minus_untuned": shown["differences"].get("candidate-base", {}).get("loss"),
        "verdict_passed": (shown["verdict"] or {}).get("passed"),
        "seconds": round(finished.seconds, 1),
    }


def render(cases: dict[str, dict[str, Any]]) -> str:
    header = [
        "data",
        "rows",
        "loss untuned",
        "loss tuned",
        "tuned - untuned",
        "truncated",
        "rows accounted for",
        "time",
    ]
    rows = [
        [
            name,
            f"{r['rows']:,}",
            tables.interval(r["loss_untuned"]),
            tables.interval(r["loss_tuned"]),
            tables.interval(r["loss_tuned_minus_untuned"]),
            f"{r['truncated']['share']:.1%}" if r["truncated"] else tables.MISSING,
            "all" if r["ledger_balanced"] else "NOT ALL",
            tables.seconds(r["seconds"]),
        ]
        for name, r in cases.items()
    ]
    return tables.table(header, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description="Fine-tune the tiny base on public data.")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with the data sets")
    parser.add_argument("--only", choices=[c.name for c in CASES], help="one data set; nothing is written")
    arguments = parser.parse_args()
    chosen = [c for c in CASES if arguments.only in (None, c.name)]
    absent = [c.file for c in chosen if not (arguments.data / c.file).is_file()]
    if absent:
        print(
            f"error: {arguments.data} lacks {', '.join(absent)}; name their folder: make bench-real DATA=...",
            file=sys.stderr,
        )
        return 2
    results = {case.name: measure(case, arguments.data) for case in chosen}
    content = render(results)
    print(content)
    if arguments.only is None:
        written = save("real", {"machine": machine(), "cases": results})
        print(f"\nwritten: {written.name}, table in {', '.join(tables.update('real', content)) or 'no page'}")
    return 0 if all(r["ledger_balanced"] for r in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
