"""Projects for tests and the command line over them.

`make_project` is the course advisor with fewer rows and steps and an easier gate; `make_tiny` is a config and 40 rows.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "course-advisor"

SMALL = """
synthesize: {rows: 48}
train: {max_steps: 30, save_every_steps: 8}
answer: {shots: [1, 2], max_new_tokens: 40}
gate: {metric: loss, bar: null, must_beat: [base]}
bias: null
"""

TINY = """
version: 1
name: tiny-task
sources:
  - {path: data/rows.jsonl, fields: {prompt: q, response: a}}
gate: {metric: exact, bar: null, must_beat: []}
"""


def make_project(folder: Path, extra: str = SMALL) -> Path:
    """Write the example into `folder` with `extra` settings appended; returns the folder."""
    folder.mkdir(parents=True)
    for name in ("generate.py", "pages.sql", "bias-queries.yaml"):
        shutil.copy(EXAMPLE / name, folder / name)
    text = (EXAMPLE / "understudy.yaml").read_text("utf-8")
    replaced = {line.split(":")[0] for line in extra.strip().splitlines()}
    kept = [line for line in text.splitlines() if line.split(":")[0] not in replaced]
    (folder / "understudy.yaml").write_text("\n".join(kept) + "\n" + extra, "utf-8")
    subprocess.run([sys.executable, "generate.py"], cwd=folder, check=True, capture_output=True)
    return folder


def make_tiny(folder: Path) -> Path:
    """Write TINY and its rows into `folder`; returns the folder."""
    (folder / "data").mkdir(parents=True)
    rows = [{"q": f"What is {i} plus {i}?", "a": str(2 * i)} for i in range(40)]
    (folder / "data" / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "understudy.yaml").write_text(TINY)
    return folder


def understudy(*args: str, timeout_s: float = 600, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", **variables}
    command = [sys.executable, "-m", "understudy", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=env)


def one_line(result: subprocess.CompletedProcess[str], code: str, status: int) -> str:
    """The one line on stderr besides warnings; fails unless it is `error[code]` and the exit status is `status`."""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("warning")]
    assert result.returncode == status, result.stderr
    assert len(lines) == 1 and lines[0].startswith(f"error[{code}]"), result.stderr
    return lines[0]
