"""How a metric on dev grows with the rows that were trained on: the figure of a page of its own, and its data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Curve:
    """Points `{rows, value, low, high, n}` by rows, and levels to compare them with."""

    project: str
    metric: str
    points: Sequence[Row]
    levels: Mapping[str, float]
    simulated: bool

    def to_json(self) -> Row:
        gains = [
            {"rows": b["rows"], "gain_per_1000_rows": _per_1000(a, b)}
            for a, b in zip(self.points, self.points[1:], strict=False)
        ]
        return {
            "project": self.project, "metric": self.metric, "points": list(self.points), "gains": gains,
            "levels": dict(self.levels), "simulated": self.simulated,
        }  # fmt: skip


def _per_1000(a: Row, b: Row) -> float | None:
    """None where both were trained on as many rows: two sizes may pack to the same number."""
    added = b["rows"] - a["rows"]
    return 1000 * (b["value"] - a["value"]) / added if added else None


def render(curve: Curve, out: Path) -> None:
    """Write `curve.json` and `curve.html`."""
    from understudy.evals import plots
    from understudy.evals.metrics import describe
    from understudy.evals.report import pages

    about = describe(curve.metric)
    found = [*curve.points, *({"low": v, "high": v} for v in curve.levels.values())]
    scale = plots.axis(min(p["low"] for p in found), max(p["high"] for p in found), factor=about.factor)
    slots = [(f"{p['rows']:,}", "rows") for p in curve.points]
    points = [
        plots.Point(i, p["value"], p["low"], p["high"], scale.label(p["value"])) for i, p in enumerate(curve.points)
    ]
    said = "; ".join(f"{p['rows']} rows: {p['value']:.3f} [{p['low']:.3f}, {p['high']:.3f}]" for p in curve.points)
    figure = plots.rounds(
        scale, slots, [plots.Series("dev", "s1", points)], f"{about.name} on dev by rows. {said}", levels=curve.levels
    )
    page = (
        pages()
        .get_template("curve.html")
        .render(curve=curve, metric=about, figure=figure, scale=scale, data=curve.to_json())
    )
    (out / "curve.json").write_text(json.dumps(curve.to_json(), indent=1) + "\n", "utf-8")
    (out / "curve.html").write_text(page, "utf-8")
