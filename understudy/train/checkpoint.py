"""Checkpoints of a running training that survive being killed at any point.

A save writes a staging folder, syncs it, puts a manifest with sha256 per file last and renames the folder; a resume
takes the newest folder whose every file matches its manifest. Tensors are safetensors, the rest is JSON: no pickle.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.core.records import sha256_file, sync_path

KEEP = 2
_STAGING = ".staging-"


@dataclass(frozen=True, slots=True)
class Saved:
    """One verified checkpoint: tensors by name, and what JSON holds."""

    step: int
    tensors: dict[str, Any]
    state: dict[str, Any]


def save(folder: Path, step: int, tensors: dict[str, Any], state: dict[str, Any]) -> Path:
    """Commit one checkpoint; afterwards the newest KEEP remain and staging folders of dead runs are gone."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / f"{_STAGING}{step:08d}"
    target = folder / f"step-{step:08d}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, str(staging / "tensors.safetensors"))
    (staging / "state.json").write_text(json.dumps(state | {"step": step}, sort_keys=True), encoding="utf-8")
    files = {p.name: sha256_file(p) for p in sorted(staging.iterdir())}
    (staging / "manifest.json").write_text(json.dumps({"files": files}, sort_keys=True), encoding="utf-8")
    for file in staging.iterdir():
        sync_path(file)
    sync_path(staging)
    shutil.rmtree(target, ignore_errors=True)
    os.rename(staging, target)
    sync_path(folder)
    for old in _steps(folder)[KEEP:]:
        shutil.rmtree(old, ignore_errors=True)
    for dead in folder.glob(f"{_STAGING}*"):
        shutil.rmtree(dead, ignore_errors=True)
    return target


def newest(folder: Path, run: str) -> Saved | None:
    """The newest intact checkpoint whose state names the same `run` (a digest of config, rows and base), or None."""
    from safetensors.torch import load_file

    for path in _steps(folder):
        if not intact(path):
            continue
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if state.get("run") == run:
            return Saved(int(state["step"]), load_file(str(path / "tensors.safetensors")), state)
    return None


def intact(path: Path) -> bool:
    """Whether every file that the manifest names is there with its digest."""
    try:
        files = json.loads((path / "manifest.json").read_text(encoding="utf-8"))["files"]
        return set(files) >= {"tensors.safetensors", "state.json"} and all(
            sha256_file(path / name) == value for name, value in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _steps(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    return sorted(folder.glob("step-*"), reverse=True)
