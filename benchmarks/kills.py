"""`make bench-kills`: kill -9 (every fifth time Ctrl-C) at a random moment of each step, then a run to the end.

Two equal small projects: one runs undisturbed, the other is struck once in every step of the plan. Writes
`results/kills.json` and the table `kills`; exit 1 when a finished step was touched, a stray file stayed, or the content
digests at the end differ.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import tables
from benchmarks.project import ROOT, machine, save

sys.path.insert(0, str(ROOT / "tests"))
from thread import SMALL, make_project, understudy

POLL_S = 0.002


@dataclass(frozen=True, slots=True)
class Blow:
    """One signal: `in_step` is False where the step ended before the signal came."""

    step: str
    signal: str
    in_step: bool
    exit_status: int
    finished_untouched: bool


def last_run(project: Path) -> Path:
    return max((project / "runs").glob("run-*"))


def digests(project: Path) -> dict[str, str]:
    """Content digest of every step of the last run."""
    status = json.loads((last_run(project) / "status.json").read_text())
    return {name: row["content_digest"] for name, row in status["steps"].items()}


def manifests(project: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every committed manifest: equal means untouched."""
    found = (project / "store").glob("*/*/artifact.json")
    return {str(p.relative_to(project)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}


def timed_steps(project: Path) -> list[tuple[str, float]]:
    """Steps of the last run in plan order, with their seconds."""
    plan = json.loads((last_run(project) / "plan.json").read_text())
    status = json.loads((last_run(project) / "status.json").read_text())
    return [(s["name"], status["steps"][s["name"]]["seconds"]) for s in plan["steps"]]


def journals(project: Path, step: str) -> set[Path]:
    """One file for each attempt at the step."""
    return set((project / "runs").glob(f"run-*/journal/{step}.*.jsonl"))


def strike(project: Path, step: str, seconds: float, number: signal.Signals, rng: random.Random) -> Blow:
    """Start a run, wait until `step` starts, then a random share of its time, and send the signal."""
    done, earlier = manifests(project), journals(project, step)
    command = [sys.executable, "-m", "understudy", "run", "--quiet", "-C", str(project)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline and not journals(project, step) - earlier:
        time.sleep(POLL_S)
    time.sleep(rng.random() * seconds)
    process.send_signal(number)
    status = process.wait(timeout=60)
    attempts = "".join(path.read_text() for path in journals(project, step) - earlier)
    after = manifests(project)
    untouched = all(after.get(path) == state for path, state in done.items())
    return Blow(step, number.name, bool(attempts) and '"finished"' not in attempts, status, untouched)


def main() -> int:
    parser = argparse.ArgumentParser(description="Strike a run in every step, then compare digests.")
    parser.add_argument("--seed", type=int, default=0)
    rng = random.Random(parser.parse_args().seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, hurt = make_project(Path(folder) / "whole", SMALL), make_project(Path(folder) / "hurt", SMALL)
        understudy("run", "--quiet", "-C", str(whole))
        blows = []
        for index, (step, seconds) in enumerate(timed_steps(whole)):
            number = signal.SIGINT if index % 5 == 4 else signal.SIGKILL
            blows.append(strike(hurt, step, seconds, number, rng))
            print(blows[-1], flush=True)
        understudy("run", "--quiet", "-C", str(hurt))
        same = digests(whole) == digests(hurt)
        strays = len(list((hurt / "store" / ".tmp").glob("*")))
    untouched = all(blow.finished_untouched for blow in blows)
    hits = sum(blow.in_step for blow in blows)
    content = tables.table(
        ["steps struck", "while the step ran", "finished steps", "stray files", "content digests at the end"],
        [[
            str(len(blows)),
            str(hits),
            "untouched" if untouched else "TOUCHED",
            str(strays),
            "equal" if same else "DIFFERENT",
        ]],
    )  # fmt: skip
    print(content)
    result = {"machine": machine(), "blows": [asdict(b) for b in blows], "digests_equal": same, "stray_files": strays}
    written = save("kills", result)
    print(f"\nwritten: {written.name}, table in {', '.join(tables.update('kills', content)) or 'no page'}")
    return 0 if same and untouched and not strays else 1


if __name__ == "__main__":
    sys.exit(main())
