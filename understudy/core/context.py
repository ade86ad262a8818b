"""What a running stage may know of its surroundings: where to cache, where to keep partial work, how to report.

None of it is identity. A stage called directly (in a test, in a notebook) gets the default: no cache, no scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

Progress = Callable[[int, int, dict[str, float]], None]


def _silent(done: int, total: int, values: dict[str, float]) -> None:
    return None


@dataclass(frozen=True)
class Context:
    project: Path = field(default_factory=Path.cwd)
    """Folder of `understudy.yaml`; relative paths of the configuration start here."""
    cache: Path | None = None
    """Survives runs: replies of services, by request."""
    run: Path | None = None
    """Folder of the run: what its steps have to share, such as what they spent."""
    scratch: Path | None = None
    """Survives a crash of this step, removed at its commit: training checkpoints."""
    progress: Progress = _silent
    """Called with (done, total, values to show)."""
    measured: dict[str, object] = field(default_factory=dict)
    """Times and counts that the step wants kept outside its content."""


_CURRENT: ContextVar[Context | None] = ContextVar("understudy_context", default=None)


def current() -> Context:
    return _CURRENT.get() or Context()


@contextmanager
def use(context: Context) -> Iterator[Context]:
    token = _CURRENT.set(context)
    try:
        yield context
    finally:
        _CURRENT.reset(token)
