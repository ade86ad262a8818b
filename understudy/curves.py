"""Coverage by rows for the terminal: how many rows each point has, and the points as a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from understudy.errors import ConfigError
from understudy.project import Project, Run


def halvings(project: Project, run: Run, points: int) -> list[int]:
    """Numbers of rows, each half of the next; the last is all that the run's last round trained on.

    Raises ConfigError RUN_UNFINISHED before its rounds are done.
    """
    packs = [s for s in run.plan().steps if s.stage == "pack" and s.name.removeprefix("pack-").isdigit()]
    found = project.store.find(packs[-1].name, packs[-1].fingerprint) if packs else None
    if found is None:
        raise ConfigError("RUN_UNFINISHED", run.id, "its rounds are not done yet", "understudy run carries it on")
    rows = int(found.facts["train"]["examples"])
    return sorted({max(1, rows >> k) for k in range(points)})


def table(data: dict[str, Any]) -> Iterator[str]:
    """The curve in at most 80 columns, with a bar for the eye."""
    metric = data["metric"]
    yield f"{'rows':>8}  {metric + ' on dev':<24}  gained per 1,000 rows"
    gains = [None, *(g["gain_per_1000_rows"] for g in data["gains"])]
    top = max(p["value"] for p in data["points"]) or 1.0
    for point, gained in zip(data["points"], gains, strict=True):
        per = f"{gained:+.3f}" if gained is not None else ""
        bar = "#" * round(30 * max(0.0, point["value"]) / top)
        shown = f"{point['value']:.3f} [{point['low']:.3f}, {point['high']:.3f}]"
        yield f"{point['rows']:>8,}  {shown:<24}  {per:<8} {bar}"
    for name, value in data["levels"].items():
        yield f"{'':>8}  {value:.3f}: {name}"
