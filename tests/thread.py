"""A small course-advisor project for tests: the real generator, the real base, fewer rows and steps, an easier gate."""

from __future__ import annotations

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
"""


def make_project(folder: Path, extra: str = SMALL) -> Path:
    """Write the example into `folder` with `extra` settings appended; returns the folder."""
    folder.mkdir(parents=True)
    for name in ("generate.py", "pages.sql"):
        shutil.copy(EXAMPLE / name, folder / name)
    text = (EXAMPLE / "understudy.yaml").read_text("utf-8")
    replaced = {line.split(":")[0] for line in extra.strip().splitlines()}
    kept = [line for line in text.splitlines() if line.split(":")[0] not in replaced]
    (folder / "understudy.yaml").write_text("\n".join(kept) + "\n" + extra, "utf-8")
    subprocess.run([sys.executable, "generate.py"], cwd=folder, check=True, capture_output=True)
    return folder


def understudy(*args: str, timeout_s: float = 600, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", **variables}
    command = [sys.executable, "-m", "understudy", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=env)
