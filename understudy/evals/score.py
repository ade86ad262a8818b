"""Scores a folder of answers: every value and reason kept, an interval per setting and metric, also by category.

An item with several samples counts once, with the mean over them. Reads stored answers only: a new scorer costs no
generation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from understudy.config import ScoreConfig
from understudy.core.records import Example, Ledger, read_jsonl, write_jsonl
from understudy.errors import DataError
from understudy.evals import scorers, stats
from understudy.evals.judge import Failure, Judge, judge
from understudy.evals.scorers.base import missing

Progress = Callable[[int, int, dict[str, float]], None]
Row = dict[str, Any]
JUDGED = {"coverage": "rate", "judge_similarity": "mean", "judge_precision": "mean"}


def better(metric: str) -> str:
    """`higher` or `lower`: which value of the metric is the good one."""
    if metric == "loss":
        return "lower"
    return "higher" if metric in JUDGED else scorers.get(metric).better


def score(
    cfg: ScoreConfig,
    answers: Path,
    examples: list[Example],
    out: Path,
    *,
    judge_model: Judge | None = None,
    progress: Progress | None = None,
) -> Ledger:
    """Write `scores.jsonl` and `summary.json` for the answers in the folder `answers`.

    Raises DataError when the answers are not those of `examples`, ConfigError for an unknown scorer, and RemoteError
    for an unusable judge.
    """
    chosen = [scorers.get(name) for name in cfg.scorers]
    given = list(read_jsonl(answers / "answers.jsonl"))
    by_id = {e.id: e for e in examples}
    _check(given, by_id, answers)
    ledger = Ledger(rows_in=len(given))
    rows: list[Row] = []
    for answer in given:
        rows.append(_reference_scores(chosen, by_id[answer["id"]], answer, ledger))
    if judge_model is not None:
        _judge_scores(cfg, judge_model, [(by_id[a["id"]], a["text"]) for a in given], rows, ledger, progress)
    ledger.rows_out = write_jsonl(out / "scores.jsonl", rows)
    kinds = {s.name: s.kind for s in chosen} | JUDGED | {"loss": "mean"}
    summary = {setting: _summary(of, kinds, cfg.confidence) for setting, of in _grouped(rows, "setting").items()}
    (out / "summary.json").write_text(json.dumps(summary, ensure_ascii=False, indent=1) + "\n", "utf-8")
    if progress:
        progress(len(rows), len(rows), {})
    return ledger


def load_summary(scores: Path) -> dict[str, dict[str, Any]]:
    """`{setting: {metric: {value, low, high, n}, "by_category": {category: {metric: ...}}}}` of a folder of scores."""
    summary: dict[str, dict[str, Any]] = json.loads((scores / "summary.json").read_text("utf-8"))
    return summary


def main_setting(scores: Path) -> str:
    """The setting that stands for a model: `greedy` where it was used, else the first."""
    summary = load_summary(scores)
    return "greedy" if "greedy" in summary else next(iter(summary))


def best_index(metric: str, values: Sequence[float]) -> int:
    """Place of the best value; the first of equals."""
    sign = 1 if better(metric) == "higher" else -1
    return max(range(len(values)), key=lambda i: (sign * values[i], -i))


def load_values(scores: Path, setting: str, metric: str) -> dict[str, float]:
    """The metric per item (mean over its samples). Raises DataError when the setting or metric is not there."""
    rows = [row for row in read_jsonl(scores / "scores.jsonl") if row["setting"] == setting]
    values = _item_values(rows, metric)
    if not values:
        summary = load_summary(scores)
        known = sorted(summary.get(setting, summary).keys() - {"by_category"})
        kind = "metric" if setting in summary else "setting"
        name = metric if setting in summary else setting
        raise DataError("SCORES_MISSING", scores.name, f"no {kind} {name!r}", f"there are: {', '.join(known)}")
    return values


def best_setting(scores: Path, metric: str, prefix: str = "") -> str:
    """The setting (of those that start with `prefix`) with the best value; the first of equals."""
    found = {
        setting: of[metric]["value"]
        for setting, of in load_summary(scores).items()
        if setting.startswith(prefix) and metric in of
    }
    if not found:
        raise DataError("SCORES_MISSING", scores.name, f"no setting {prefix}* with metric {metric!r}", "score it first")
    return list(found)[best_index(metric, list(found.values()))]


def _check(given: list[Row], by_id: dict[str, Example], answers: Path) -> None:
    if not given:
        raise DataError("ANSWERS_EMPTY", answers.name, "holds no answers", "run the answer step again")
    for setting, rows in _grouped(given, "setting").items():
        ids = {row["id"] for row in rows}
        if ids != by_id.keys():
            odd = sorted(ids ^ by_id.keys())
            raise DataError(
                "ANSWERS_MISMATCH", answers.name,
                f"setting {setting!r} and the prompt set differ in {len(odd)} items, e.g. {odd[0]!r}",
                "answer the prompt set that is scored",
            )  # fmt: skip


def _reference_scores(chosen: Sequence[scorers.Scorer], example: Example, answer: Row, ledger: Ledger) -> Row:
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for scorer in chosen:
        lacking = missing(example, scorer.needs)
        if lacking:
            reasons[scorer.name] = f"not scored: the example has no {lacking}"
            ledger.note(f"not_scored:{scorer.name}")
            continue
        result = scorer(example, answer["text"])
        values[scorer.name], reasons[scorer.name] = round(result.value, 6), result.reason
    if answer.get("loss_tokens"):
        values["loss"] = round(answer["loss_sum"] / answer["loss_tokens"], 6)
    return {
        "id": answer["id"],
        "setting": answer["setting"],
        "sample": answer.get("sample", 0),
        "category": example.meta.get("category"),
        "group": example.meta.get("group"),
        "values": values,
        "reasons": reasons,
    }


def _judge_scores(
    cfg: ScoreConfig,
    model: Judge,
    items: list[tuple[Example, str]],
    rows: list[Row],
    ledger: Ledger,
    progress: Progress | None,
) -> None:
    report = (lambda done, total: progress(done, total, {})) if progress else None
    for row, verdict in zip(rows, judge(model, items, report), strict=True):
        if isinstance(verdict, Failure):
            ledger.note("judge_failed")
            row["values"]["coverage"] = 0
            row["reasons"]["coverage"] = f"not covered: the judge failed ({verdict.code}: {verdict.reason})"
            continue
        covered = verdict.similarity >= cfg.similarity and verdict.precision >= cfg.precision
        row["values"] |= {
            "coverage": int(covered),
            "judge_similarity": verdict.similarity,
            "judge_precision": verdict.precision,
        }
        row["reasons"]["coverage"] = verdict.reason


def _grouped(rows: list[Row], key: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row[key]), []).append(row)
    return groups


def _item_values(rows: list[Row], metric: str) -> dict[str, float]:
    sums: dict[str, list[float]] = {}
    for row in rows:
        if metric in row["values"]:
            sums.setdefault(row["id"], []).append(row["values"][metric])
    return {item: sum(values) / len(values) for item, values in sums.items()}


def _summary(rows: list[Row], kinds: dict[str, str], confidence: float) -> dict[str, Any]:
    summary: dict[str, Any] = _intervals(rows, kinds, confidence)
    categories = _grouped([row for row in rows if row["category"] is not None], "category")
    summary["by_category"] = {name: _intervals(categories[name], kinds, confidence) for name in sorted(categories)}
    return summary


def _intervals(rows: list[Row], kinds: dict[str, str], confidence: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for metric, kind in kinds.items():
        values = list(_item_values(rows, metric).values())
        if not values:
            continue
        rate = kind == "rate"
        interval = (
            stats.wilson(sum(values), len(values), confidence) if rate else stats.mean_interval(values, confidence)
        )
        found[metric] = interval.to_json()
    return found
