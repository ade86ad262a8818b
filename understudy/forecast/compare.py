"""The forecast that a run was created with beside what the run has used."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from understudy.core.artifact import Artifact
from understudy.forecast import table
from understudy.models.account import spending

FILE = "forecast.json"


class ForecastRow(BaseModel):
    """One quantity of a run; `off` is (predicted - actual) / actual, None where nothing was used."""

    what: str
    predicted: float
    actual: float
    off: float | None

    def texts(self) -> tuple[str, str, str]:
        """Predicted, actual and how far off, as they are shown."""
        shown = SHOWN.get(self.what, table.count)
        off = "-" if self.off is None else f"{100 * self.off:+.0f} %"
        return shown(self.predicted), shown(self.actual), off


SHOWN = {"money": table.amount, "time": table.duration, "peak memory": table.size, "disk": table.size}


def compare(run: Path, artifacts: Sequence[Artifact]) -> list[ForecastRow]:
    """Rows for what the steps that are finished were predicted to need; none without a forecast.

    Calls, tokens and money are those of the whole run's account, failed attempts included.
    """
    try:
        steps = json.loads((run / FILE).read_text("utf-8"))["steps"]
        return _compare(run, [s for s in steps if not s["done"]], {a.name: a for a in artifacts})
    except (OSError, ValueError, KeyError, TypeError):  # cut short, or of another release
        return []


def _compare(run: Path, steps: list[dict[str, Any]], artifacts: dict[str, Artifact]) -> list[ForecastRow]:
    made = [s for s in steps if s["name"] in artifacts]
    own = [a for s in made if "alias_of" not in (a := artifacts[s["name"]]).manifest]
    spent = spending(run / "spending.jsonl").values()
    used = {
        "calls": sum(s["requests"] for s in spent),
        "tokens in": sum(s["prompt_tokens"] for s in spent),
        "tokens out": sum(s["completion_tokens"] for s in spent),
        "money": sum(s["cost"] for s in spent),
        "time": sum(float(a.measured.get("seconds", 0)) for a in own),
        "peak memory": max((float(a.measured.get("peak_memory_mb", 0)) for a in own), default=0.0),
        "disk": _bytes(a.path for a in own) / 1e6,
    }
    keys = ("calls", "prompt_tokens", "completion_tokens", "money", "seconds", "memory_mb", "disk_mb")
    rows = [row(what, _predicted(made, key), used[what]) for what, key in zip(used, keys, strict=True)]
    return [r for r in rows if r.predicted or r.actual]


def _bytes(folders: Iterable[Path]) -> int:
    """Of all files below the folders; one that stands in several of them by hard links counts once."""
    files = (p.stat() for folder in folders for p in folder.rglob("*") if p.is_file())
    return sum({(f.st_dev, f.st_ino): f.st_size for f in files}.values())


def _predicted(steps: Sequence[dict[str, Any]], key: str) -> float:
    values = [float(s[key]["value"]) for s in steps]
    return max(values, default=0.0) if key == "memory_mb" else sum(values)


def row(what: str, predicted: float, actual: float) -> ForecastRow:
    off = (predicted - actual) / actual if actual else None
    return ForecastRow(what=what, predicted=round(predicted, 6), actual=round(actual, 6), off=off)
