"""One append-only file per run, step and attempt: started, progress, finished, failed. Readers merge them."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def length(folder: Path) -> int:
    """How many attempts have a file: what comes later has a higher number, whatever the clock does meanwhile."""
    return len(list(folder.glob("*.jsonl")))


class Journal:
    """Appends events of one attempt; a line is written whole or not at all.

    `number` is the attempt's place among all attempts of the run: events are ordered by it, times are for people.
    """

    def __init__(self, folder: Path, step: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        attempt = len(list(folder.glob(f"{step}.*.jsonl"))) + 1
        self.path = folder / f"{step}.{attempt}.jsonl"
        self.step, self.attempt, self.number = step, attempt, length(folder) + 1
        self._last_progress = 0.0

    def write(self, event: str, **values: Any) -> None:
        place = {"at": now(), "number": self.number, "step": self.step, "attempt": self.attempt}
        line = json.dumps({**place, "event": event, **values}).encode() + b"\n"
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            before = os.fstat(fd).st_size
            if os.write(fd, line) < len(line):  # the disk filled up within the line
                os.ftruncate(fd, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        finally:
            os.close(fd)

    def progress(self, done: int, total: int, values: dict[str, float]) -> None:
        """Keep at most one progress event a second, and the last one."""
        if done >= total or time.monotonic() - self._last_progress >= 1.0:
            self._last_progress = time.monotonic()
            self.write("progress", done=done, total=total, values=values)


def events(folder: Path) -> Iterator[dict[str, Any]]:
    """All events of a run, attempt by attempt in the order they began; a line cut by a crash is passed over."""
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text("utf-8", "replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    yield from sorted(found, key=lambda e: (e.get("number", 0), e["step"], e["attempt"]))  # a file's lines keep theirs
