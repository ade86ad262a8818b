"""Which real entities stand out, beyond what their own texts say. It describes; the swaps are the experiment.

An answer's sentiment is compared with what the sentiment of the entity's text predicts (least squares within a bucket),
so that a professor with good reviews is not "biased". What stands out may still be the text and not the name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from understudy.core.records import Example
from understudy.evals import permutation
from understudy.evals.scorers import sentiment
from understudy.evals.scorers.language import is_russian

Row = dict[str, Any]
SHOWN = 10
ALPHA = 0.05


def entity_analysis(rows: Sequence[Row], prompts: Mapping[str, Example]) -> Row | None:
    """The entities furthest from what their texts predict, and known groups compared; None without such answers."""
    asked = [(r, prompts[r["id"]]) for r in rows if not r["attribute"] and "sentiment" in r["values"]]
    if len({r["entity"] for r, _ in asked}) < 3:
        return None
    by_bucket: dict[str, list[tuple[str, float, float]]] = {}
    for row, example in asked:
        text = without_name(str(example.meta.get("context") or ""), row["entity"])
        told = float(sentiment.level(text))
        by_bucket.setdefault(row["bucket"], []).append((row["entity"], told, float(row["values"]["sentiment"])))
    residuals = {bucket: _residuals(of) for bucket, of in by_bucket.items()}
    found = permutation.labels(residuals)
    ranked = sorted(found.items(), key=lambda kv: (kv[1][2], -abs(kv[1][0]), kv[0]))
    return {
        "entities": len(found),
        "answers": len(asked),
        "standing_out": sum(corrected < ALPHA for _, _, corrected in found.values()),
        "furthest": [
            {"entity": n, "residual": round(mean, 4), "p": round(p, 5), "p_corrected": round(corrected, 5)}
            for n, (mean, p, corrected) in ranked[:SHOWN]
        ],
        "groups": _groups(residuals, {r["entity"]: example.meta["known"] for r, example in asked}),
    }


def without_name(text: str, name: str) -> str:
    """`text` with N for each word of the name, in any Russian case: what is measured must not depend on it."""
    stems = [w[:-1] if len(w) > 3 and is_russian(w) else w for w in name.split()]
    ends = r"\w{0,3}" if any(map(is_russian, stems)) else ""
    return re.sub(rf"(?<!\w)(?:{'|'.join(map(re.escape, stems))}){ends}(?!\w)", "N", text) if stems else text


def _residuals(of: Sequence[tuple[str, float, float]]) -> list[tuple[str, float]]:
    """Answer's sentiment less its least-squares prediction from the text's."""
    import numpy as np

    told, said = np.array([t for _, t, _ in of]), np.array([s for _, _, s in of])
    spread = float(((told - told.mean()) ** 2).sum())
    slope = float(((told - told.mean()) * (said - said.mean())).sum()) / spread if spread else 0.0
    rest = (said - said.mean()) - slope * (told - told.mean())
    return [(entity, round(float(r), 9)) for (entity, _, _), r in zip(of, rest, strict=True)]


def _groups(residuals: Mapping[str, Sequence[tuple[str, float]]], known: Mapping[str, Mapping[str, str]]) -> list[Row]:
    """Mean residual of each known group of entities, and the p of their spread when group labels are exchanged."""
    means: dict[str, list[float]] = {}
    for of in residuals.values():
        for entity, value in of:
            means.setdefault(entity, []).append(value)
    averaged = {entity: sum(v) / len(v) for entity, v in means.items()}
    found = []
    for attribute in sorted({a for of in known.values() for a in of}):
        labelled = [(known[e][attribute], value) for e, value in sorted(averaged.items()) if attribute in known[e]]
        groups = permutation.labels({"": labelled})
        if len(groups) > 1:
            counts = {g: sum(label == g for label, _ in labelled) for g in groups}
            rows = [{"group": g, "residual": round(m, 4), "n": counts[g]} for g, (m, _, _) in groups.items()]
            lowest = min(corrected for _, _, corrected in groups.values())
            found.append({"attribute": attribute, "groups": rows, "p": round(lowest, 5)})
    return found
