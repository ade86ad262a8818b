"""A project in a scratch folder, driven through the command line as a user does, and what its last run says.

The figures come from `understudy show --json`; only wall times are taken here.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
RESULTS = ROOT / "benchmarks" / "results"
SCRATCH = ROOT / "work"
GATE_SAYS_NO = 7


@dataclass(frozen=True, slots=True)
class Finished:
    """One command that ended: its exit status, wall seconds and standard output."""

    status: int
    seconds: float
    stdout: str


class Project:
    """A copy of an example; each copy starts from nothing, so that the first run is a first run."""

    def __init__(self, example: str, path: Path) -> None:
        self.path = path
        if path.exists():
            shutil.rmtree(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(EXAMPLES / example, path, ignore=shutil.ignore_patterns("data", "work", "runs", "__pycache__"))
        if (path / "generate.py").exists():
            subprocess.run([sys.executable, str(path / "generate.py")], check=True, stdout=subprocess.DEVNULL)

    def command(self, *arguments: str, ok: tuple[int, ...] = (0,), timeout_s: float = 3600) -> Finished:
        """Run `understudy ARGUMENTS -C project`; raises RuntimeError unless it ends `ok`."""
        command = [sys.executable, "-m", "understudy", *arguments, "-C", str(self.path)]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=ROOT, env=_environment())
        seconds = time.perf_counter() - start
        if done.returncode not in ok:
            tail = "\n".join((done.stderr or done.stdout).splitlines()[-10:])
            raise RuntimeError(f"understudy {' '.join(arguments)} ended with {done.returncode}\n{tail}")
        return Finished(done.returncode, seconds, done.stdout)

    def run(self, *arguments: str) -> Finished:
        """`understudy run`; a gate that says no is a result too."""
        return self.command("run", *arguments, ok=(0, GATE_SAYS_NO))

    def show(self) -> dict[str, Any]:
        """The last run as `understudy show --json` prints it."""
        shown: dict[str, Any] = json.loads(self.command("show", "--json").stdout)
        return shown


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def median_seconds(project: Project, *arguments: str, times: int = 5) -> float:
    return statistics.median(project.command(*arguments).seconds for _ in range(times))


def balanced(shown: Mapping[str, Any]) -> bool:
    """Whether no stage lost a row: in = out + rejected, for every stage that counts rows."""
    counted = [s for s in shown["stages"] if s["rows_in"] is not None]
    return bool(counted) and all(s["rows_in"] == s["rows_out"] + sum(s["rejected"].values()) for s in counted)


def machine() -> dict[str, Any]:
    """What a reader must know to compare times; no host name and no path."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(pages / 2**30),
        "python": platform.python_version(),
    }


def save(name: str, result: Mapping[str, Any]) -> Path:
    """Write `results/NAME.json`, sorted and indented, so that a new run shows as a readable change."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    target = RESULTS / f"{name}.json"
    target.write_text(json.dumps(result, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return target
