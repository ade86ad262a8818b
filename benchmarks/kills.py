"""kill -9 at a random moment of each step, and Ctrl-C; then the digests of an undisturbed run.

Writes `results/kills.json`: for every step of the plan, whether the next run left finished steps untouched, and at
the end whether all content digests equal those of a run that nobody disturbed. Exit 1 when one does not.
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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from thread import SMALL, make_project, understudy

RESULTS = Path(__file__).resolve().parent / "results" / "kills.json"


def digests(project: Path) -> dict[str, str]:
    """Content digest of every step of the last run."""
    status = json.loads((sorted((project / "runs").glob("run-*"))[-1] / "status.json").read_text())
    return {name: row["content_digest"] for name, row in status["steps"].items()}


def manifests(project: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every committed manifest: equal means untouched."""
    found = (project / "store").glob("*/*/artifact.json")
    return {str(p.relative_to(project)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}


def steps_of(project: Path) -> list[tuple[str, float]]:
    plan = json.loads((sorted((project / "runs").glob("run-*"))[-1] / "plan.json").read_text())
    status = json.loads((sorted((project / "runs").glob("run-*"))[-1] / "status.json").read_text())
    return [(s["name"], status["steps"][s["name"]]["seconds"]) for s in plan["steps"]]


def disturb(project: Path, step: str, seconds: float, number: signal.Signals, rng: random.Random) -> str:
    """Start a run, wait until `step` has started, then a random share of its time, and send the signal."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "understudy", "run", "--quiet", "-C", str(project)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if list((project / "runs").glob(f"run-*/journal/{step}.*.jsonl")):
            time.sleep(rng.random() * max(seconds, 0.02))
            break
        time.sleep(0.005)
    process.send_signal(number)
    code = process.wait(timeout=60)
    return "finished first" if code in (0, 7) else f"ended by {code}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="disturb every n-th step only")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, hurt = make_project(Path(folder) / "whole", SMALL), make_project(Path(folder) / "hurt", SMALL)
        understudy("run", "--quiet", "-C", str(whole))
        rows = []
        for index, (step, seconds) in enumerate(steps_of(whole)):
            if index % args.every:
                continue
            number = signal.SIGINT if index % 5 == 4 else signal.SIGKILL
            before = manifests(hurt)
            how = disturb(hurt, step, seconds, number, rng)
            after = manifests(hurt)
            untouched = all(after.get(path) == state for path, state in before.items())
            rows.append({"step": step, "signal": number.name, "how": how, "finished_untouched": untouched})
            print(f"{step:<26}{number.name:<8} {how:<16} finished steps {'untouched' if untouched else 'CHANGED'}")
        understudy("run", "--quiet", "-C", str(hurt))
        same = digests(whole) == digests(hurt)
        strays = [str(p) for p in (hurt / "store" / ".tmp").glob("*")]
    ok = same and not strays and all(r["finished_untouched"] for r in rows)
    result = {"seed": args.seed, "steps": rows, "digests_equal": same, "stray_files": len(strays), "passed": ok}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{len(rows)} disturbed, digests {'equal' if same else 'DIFFER'}, {len(strays)} stray files")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
