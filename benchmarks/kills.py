"""`make bench-kills`: kill -9 (every fifth time Ctrl-C) at a random moment of each step, then a run to the end.

Two equal small projects: one runs undisturbed, the other is struck while each step of the plan runs. A step that was
faster than the blow is taken out of the store, with what follows it, and struck at again. Writes `results/kills.json`
and the table `kills`; exit 1 when a step was never hit, a finished one was touched, a stray file stayed, or the content
digests at the end differ.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
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
TRIES = 12


@dataclass(frozen=True, slots=True)
class Blow:
    """The last signal at a step; `in_step`: it came before the step had ended."""

    step: str
    signal: str
    tries: int
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


def forget(project: Path, steps: list[str]) -> None:
    for step in steps:
        shutil.rmtree(project / "store" / step, ignore_errors=True)


def strike(project: Path, step: str, wait_s: float, number: signal.Signals, tries: int) -> Blow:
    """Start a run, wait until `step` starts, then `wait_s`, and send the signal."""
    done, earlier = manifests(project), journals(project, step)
    command = [sys.executable, "-m", "understudy", "run", "--quiet", "-C", str(project)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline and not journals(project, step) - earlier:
        time.sleep(POLL_S)
    time.sleep(wait_s)
    process.send_signal(number)
    status = process.wait(timeout=60)
    attempts = "".join(path.read_text() for path in journals(project, step) - earlier)
    after = manifests(project)
    untouched = all(after.get(path) == state for path, state in done.items())
    return Blow(step, number.name, tries, bool(attempts) and '"finished"' not in attempts, status, untouched)


def main() -> int:
    parser = argparse.ArgumentParser(description="Strike a run in every step, then compare digests.")
    parser.add_argument("--seed", type=int, default=0)
    rng = random.Random(parser.parse_args().seed)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell would have its children ignore it
    with tempfile.TemporaryDirectory() as folder:
        whole, hurt = make_project(Path(folder) / "whole", SMALL), make_project(Path(folder) / "hurt", SMALL)
        understudy("run", "--quiet", "-C", str(whole))
        blows: list[Blow] = []
        steps = timed_steps(whole)
        for index, (step, seconds) in enumerate(steps):
            number = signal.SIGINT if index % 5 == 4 else signal.SIGKILL
            for tries in range(1, TRIES + 1):
                forget(hurt, [name for name, _ in steps[index:]])
                blow = strike(hurt, step, rng.random() * seconds / tries, number, tries)
                if blow.in_step or not blow.finished_untouched:
                    break
            blows.append(blow)
            print(blow, flush=True)
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
    return 0 if same and untouched and not strays and hits == len(blows) else 1


if __name__ == "__main__":
    sys.exit(main())
