"""Decides a run again from its stored verdicts, under other thresholds or another bar: no model is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.config import GateConfig
from understudy.core.records import read_jsonl, write_jsonl
from understudy.errors import DataError
from understudy.evals import coverage, gate
from understudy.evals.verdicts import FILE


def regate(
    cfg: GateConfig,
    held: gate.Held,
    similarity: float,
    precision: float,
    out: Path,
    *,
    champion: bool,
    blocks: Mapping[str, Any],
) -> dict[str, Any]:
    """The verdict under these thresholds; see `gate.decide`, whose `bias` and `canaries` are `blocks`.

    Writes into `out` only.

    Raises DataError NO_VERDICTS for scores that no judge has graded.
    """
    anew: dict[str, tuple[Path, str]] = {}
    for who, (scores, setting) in held.items():
        folder = out / who
        folder.mkdir(parents=True)
        write_jsonl(folder / "scores.jsonl", _rows(scores, similarity, precision))
        anew[who] = (folder, setting)
    return gate.decide(cfg, anew, out, champion=champion, control=None, **blocks)


def thresholds(scores: Path) -> tuple[int, int]:
    """(similarity, precision) under which the scores were decided."""
    about = json.loads(_needed(scores / "judging.json").read_text("utf-8"))
    return about["similarity"], about["precision"]


def _rows(scores: Path, similarity: float, precision: float) -> list[dict[str, Any]]:
    by_setting: dict[str, list[dict[str, Any]]] = {}
    for verdict in read_jsonl(_needed(scores / FILE)):
        by_setting.setdefault(verdict["setting"], []).append(verdict)
    grades = {setting: coverage.judged_answers(verdicts) for setting, verdicts in by_setting.items()}
    rows = []
    for row in read_jsonl(scores / "scores.jsonl"):
        judged = grades.get(row["setting"], {}).get((row["id"], row.get("sample", 0)))
        if judged is not None:
            row["values"]["coverage"] = int(coverage.answer_covered(judged, similarity, precision))
        rows.append(row)
    return rows


def _needed(file: Path) -> Path:
    if not file.is_file():
        what = "its answers were not judged, or by a release that kept no verdicts"
        raise DataError("NO_VERDICTS", file.parent.name, what, "set `judge` and run again: cached replies cost nothing")
    return file
