"""One append-only file per run, step and attempt: started, progress, finished, failed. Readers merge them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Journal:
    """Appends events of one attempt; a line is written whole or not at all."""

    def __init__(self, folder: Path, step: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        attempt = len(list(folder.glob(f"{step}.*.jsonl"))) + 1
        self.path = folder / f"{step}.{attempt}.jsonl"
        self.step, self.attempt = step, attempt
        self._last_progress = 0.0

    def write(self, event: str, **values: Any) -> None:
        line = json.dumps({"at": now(), "step": self.step, "attempt": self.attempt, "event": event, **values})
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, line.encode() + b"\n")
        finally:
            os.close(fd)

    def progress(self, done: int, total: int, values: dict[str, float]) -> None:
        """Keep at most one progress event a second, and the last one."""
        if done >= total or time.monotonic() - self._last_progress >= 1.0:
            self._last_progress = time.monotonic()
            self.write("progress", done=done, total=total, values=values)


def events(folder: Path) -> Iterator[dict[str, Any]]:
    """All events of a run in time order; a line cut by a crash is passed over."""
    found: list[dict[str, Any]] = []
    for path in folder.glob("*.jsonl"):
        for line in path.read_text("utf-8", "replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    yield from sorted(found, key=lambda e: (e["at"], e["step"], e["attempt"]))
