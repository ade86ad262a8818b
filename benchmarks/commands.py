"""Writes docs/commands.md: every command with its help and its real output in a finished demo project.

Usage: python -m benchmarks.commands [--demo demo]. The project must have run; it is copied, never changed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "commands.md"
MOST_LINES = 45

SHOWN: list[tuple[str, list[list[str]]]] = [
    ("init", [["init", "my-task"]]),
    ("prompts", []),
    ("check", [["check", "-C", "demo"]]),
    ("schema", [["schema", "show"]]),
    ("plan", [["plan", "-C", "demo"], ["plan", "--list", "-C", "demo"], ["plan", "--values", "-C", "demo"]]),
    ("run", [["run", "-C", "demo"]]),
    ("step", [["step", "collect", "--plan", "runs/run-0001/plan.json", "-C", "demo"]]),
    ("runs", [["runs", "-C", "demo"]]),
    ("show", [["show", "-C", "demo"]]),
    ("bias", [["bias", "-C", "demo"]]),
    ("explain", [["explain", "train-2", "-C", "demo"]]),
    ("ledger", [["ledger", "-C", "demo"], ["ledger", "--reason", "DUPLICATE", "-C", "demo"]]),
    ("blame", [["blame", "brochure-003", "-C", "demo"], ["blame", "--answer", "Please go to room B12.", "-C", "demo"]]),
    ("regate", [["regate", "--similarity", "80", "-C", "demo"]]),
    ("calibrate", [["calibrate", "--sheet", "2", "-C", "demo"]]),
    ("curve", []),
    ("track", []),
    ("notify", []),
    ("upload", []),
    ("export", []),
    ("gc", [["gc", "-C", "demo"]]),
    ("serve", []),
    ("traffic", []),
    ("harvest", []),
    ("watch", []),
    ("simulate", []),
]
NOTES = {
    "run": "A run with something to do prints one line per finished step (with a progress bar in a terminal), then the "
    "same summary as `show`. Exit codes: 0 passed, 7 the gate said no, 2 configuration, 3 data, 4 remote, 5 resources, "
    "6 integrity, 75 busy, 130 interrupted.",
    "step": "What an orchestrator calls. `understudy plan --bind` writes the plan and prints its path; a relative "
    "path counts from the project.",
    "serve": "OpenAI chat completions on `http://127.0.0.1:8080/v1`, streaming and not; any OpenAI client works with "
    "`model` set to `understudy` and any key. Ask as the model was trained: for pairs with a context, the context, an "
    "empty line, `Question: ` and the question. The reply's `model` and the header "
    "`x-understudy-served-by` name the version.",
    "notify": "Recipients and events: [notifications.md](notifications.md).",
    "upload": "Where to, in which format: [sources.md](sources.md).",
    "export": "`understudy export dvc` writes `dvc.yaml`; see [targets.md](targets.md).",
    "traffic": "Reads `traffic/traffic.db`, which `serve` writes; see [traffic.md](traffic.md).",
    "harvest": "Writes `data/harvest/`; two lines of configuration make it a source, see [traffic.md](traffic.md).",
    "watch": "Drift, failovers and errors; see [drift.md](drift.md).",
    "simulate": "A scripted service LLM for other programs; `run` starts its own where the configuration says "
    "`provider: simulated`. See [simulated-service.md](simulated-service.md).",
}


def run(args: list[str], folder: Path) -> str:
    """Output of one command in `folder`, without the machine's paths."""
    env = {**os.environ, "COLUMNS": "80", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "understudy", *args]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env, timeout=600)
    text = (found.stderr + found.stdout).replace(str(folder.resolve()) + "/", "").replace(str(folder) + "/", "")
    text = re.sub(r"[ \t]+$", "", text.strip("\n"), flags=re.M)
    lines = text.splitlines()
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], f"... ({len(lines) - MOST_LINES + 1} more lines)"]
    return "\n".join(lines)


def page(folder: Path) -> str:
    parts = [
        "# Commands",
        "Written by `python -m benchmarks.commands` from a finished `make demo`; every output below is real.",
        "```\n$ understudy --help\n" + run(["--help"], folder) + "\n```",
    ]
    for name, calls in SHOWN:
        parts += [f"## {name}", "```\n$ understudy " + name + " --help\n" + run([name, "--help"], folder) + "\n```"]
        if name in NOTES:
            parts.append(NOTES[name])
        for call in calls:
            parts.append("```\n$ understudy " + " ".join(call) + "\n" + run(call, folder) + "\n```")
    return "\n\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=ROOT / "demo")
    args = parser.parse_args()
    if not (args.demo / "runs").is_dir():
        print(f"error: {args.demo} has not run; make demo first", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shutil.copytree(args.demo, folder / "demo")
        TARGET.write_text(page(folder), "utf-8")
    print(f"wrote {TARGET.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
