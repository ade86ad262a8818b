"""Takes a judge's verdicts on a set of answers and keeps every one of them, so that coverage can be decided again.

With a bar, items are judged in a fixed random order and a few planned looks; what is clear after one is not asked on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from understudy.config import ScoreConfig
from understudy.core.records import Example, Ledger, digest, write_jsonl
from understudy.evals import coverage, looks
from understudy.evals.judge import Failure, Judge, Verdict, Worded, judge, refuse_unusable
from understudy.evals.scorers.base import references

Progress = Callable[[int, int], None]
Row = dict[str, Any]
FILE = "verdicts.jsonl"


def take(
    cfg: ScoreConfig,
    model: Judge,
    items: Sequence[tuple[Example, str]],
    rows: list[Row],
    ledger: Ledger,
    out: Path,
    progress: Progress | None = None,
) -> float:
    """Judge the answers, put the values into their `rows`, and write `verdicts.jsonl`; `rows` stand beside `items`.

    Returns the confidence at which the rate's interval is drawn: the configured one, or that of the look at which
    judging stopped. Raises RemoteError JUDGE_UNUSABLE.
    """
    stop_at = model.stop_at if isinstance(model, Worded) else None
    places = [i for i, (example, _) in enumerate(items) if references(example)]
    if len(places) < len(items):
        # An open task has no answer to compare with; the rubrics of `score.by` can still judge it.
        ledger.note("not_scored:coverage", len(items) - len(places))
    parts, confidences = _looks(cfg, rows, places, stop_at)
    kept: list[Row] = []
    outcomes: list[Verdict | Failure] = []
    confidence = cfg.confidence
    for part, confidence in zip(parts, confidences, strict=True):
        new = judge(model, [items[i] for i in part], progress, times=cfg.verdicts)
        outcomes += new
        for n, i in enumerate(part):
            of = new[n * cfg.verdicts : (n + 1) * cfg.verdicts]
            kept += [_kept(rows[i], time, outcome) for time, outcome in enumerate(of)]
            _value(cfg, rows[i], of, ledger)
        if stop_at is not None and len(parts) > 1:
            values = coverage.item_values(kept, cfg.similarity, cfg.precision)
            found = looks.outcome(coverage.rate(values, confidence, coverage.samples_of(rows)), stop_at)
            if found and len(values) < len({rows[i]["id"] for i in places}):
                ledger.note(f"judging_stopped:{found}")
                ledger.note("not_judged", len(places) - sum(len(p) for p in parts[: parts.index(part) + 1]))
                break
    refuse_unusable(outcomes)
    write_jsonl(out / FILE, sorted(kept, key=lambda row: (row["setting"], row["id"], row["sample"], row["verdict"])))
    about = {
        "similarity": cfg.similarity,
        "precision": cfg.precision,
        "verdicts": cfg.verdicts,
        "confidence": confidence,
    }
    (out / "judging.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    return confidence


def _looks(
    cfg: ScoreConfig, rows: list[Row], places: list[int], stop_at: float | None
) -> tuple[list[list[int]], list[float]]:
    """The places to judge, look by look, and the confidence of each look's interval; one look where none may stop."""
    if stop_at is None or not places:
        return [places], [cfg.confidence]
    order = sorted({rows[i]["id"] for i in places}, key=lambda item: digest(["look", item]))
    planned = looks.plan(len(order))
    rank = {item: next(k for k, end in enumerate(planned) if n < end) for n, item in enumerate(order)}
    parts: list[list[int]] = [[] for _ in planned]
    for i in places:
        parts[rank[rows[i]["id"]]].append(i)
    return parts, looks.confidences(planned, cfg.confidence)


def _kept(row: Row, time: int, outcome: Verdict | Failure) -> Row:
    place = {"id": row["id"], "setting": row["setting"], "sample": row["sample"], "verdict": time}
    if isinstance(outcome, Failure):
        return {**place, "failed": outcome.code, "reason": outcome.reason}
    return {
        **place, "similarity": outcome.similarity, "precision": outcome.precision, "reason": outcome.reason,
    }  # fmt: skip


def _value(cfg: ScoreConfig, row: Row, outcomes: list[Verdict | Failure], ledger: Ledger) -> None:
    graded = [v for v in outcomes if isinstance(v, Verdict)]
    if failed := len(outcomes) - len(graded):
        ledger.note("judge_failed", failed)
    if not graded:
        first = outcomes[0]
        assert isinstance(first, Failure)
        row["values"]["coverage"] = 0
        row["reasons"]["coverage"] = f"not covered: the judge failed ({first.code}: {first.reason})"
        return
    covered = coverage.answer_covered([(v.similarity, v.precision) for v in graded], cfg.similarity, cfg.precision)
    row["values"] |= {
        "coverage": int(covered),
        "judge_similarity": _mean([v.similarity for v in graded]),
        "judge_precision": _mean([v.precision for v in graded]),
    }
    alike = [v for v in graded if (v.similarity >= cfg.similarity and v.precision >= cfg.precision) == covered]
    row["reasons"]["coverage"] = (alike or graded)[0].reason


def _mean(grades: list[int]) -> float:
    mean = sum(grades) / len(grades)
    return int(mean) if mean == int(mean) else round(mean, 6)
