"""Scores a folder of answers: every value and reason kept, an interval per setting and metric, also by category.

An item with several samples counts once, with the mean over them. Reads stored answers only: a new scorer costs no
generation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.config import ScoreConfig
from understudy.core.records import Example, Ledger, read_jsonl, write_jsonl
from understudy.errors import DataError
from understudy.evals import coverage, scorers, soft, stats, verdicts
from understudy.evals.judge import Judge
from understudy.evals.scorers.base import missing

Progress = Callable[[int, int, dict[str, float]], None]
Row = dict[str, Any]
JUDGED = {"coverage": "rate", "judge_similarity": "mean", "judge_precision": "mean"}


def better(metric: str) -> str:
    """`higher` or `lower`: which value of the metric is the good one."""
    if metric == "loss":
        return "lower"
    return "higher" if metric in JUDGED else scorers.about(metric).better


def kind(metric: str) -> str:
    """`rate` or `mean`: how its interval is drawn."""
    return JUDGED.get(metric) or ("mean" if metric == "loss" else scorers.about(metric).kind)


def score(
    cfg: ScoreConfig,
    answers: Path,
    examples: list[Example],
    out: Path,
    *,
    judge_model: Judge | None = None,
    project: Path | None = None,
    progress: Progress | None = None,
) -> Ledger:
    """Write `scores.jsonl`, `summary.json` and `measured.json` (latencies) for the answers in the folder `answers`.

    With a judge also `verdicts.jsonl`, from which coverage can be decided again. Paths of classifiers start at
    `project`. Raises DataError when the answers are not those of `examples`, ConfigError for an unknown scorer, and
    RemoteError for an unusable judge.
    """
    chosen = [scorers.about(name) for name in cfg.scorers]
    given = list(read_jsonl(answers / "answers.jsonl"))
    by_id = {e.id: e for e in examples}
    _check(given, by_id, answers)
    ledger = Ledger(rows_in=len(given))
    own = [s for s in chosen if s.name not in cfg.by]
    each = [s for s in own if not isinstance(s, scorers.SetScorer)]
    rows = [_own_scores(each, by_id[answer["id"]], answer, ledger) for answer in given]
    items = [(by_id[a["id"]], str(a["text"])) for a in given]
    for scorer in own:
        if isinstance(scorer, scorers.SetScorer):
            _set_scores(scorer, items, rows)
    if cfg.by:
        soft.score(cfg.by, items, rows, ledger, judge_model=judge_model, project=project or Path.cwd())
    sure = dict.fromkeys(JUDGED, cfg.confidence)
    if judge_model is not None:
        report = (lambda done, total: progress(done, total, {})) if progress else None
        sure["coverage"] = verdicts.take(cfg, judge_model, items, rows, ledger, out, report)
    ledger.rows_out = write_jsonl(out / "scores.jsonl", rows)
    confidences = dict.fromkeys([s.name for s in chosen], cfg.confidence) | sure | {"loss": cfg.confidence}
    summary = {setting: _summary(of, confidences) for setting, of in _grouped(rows, "setting").items()}
    (out / "summary.json").write_text(json.dumps(summary, ensure_ascii=False, indent=1) + "\n", "utf-8")
    if latency := _latency(answers / "measured.json", given):
        (out / "measured.json").write_text(json.dumps({"latency_s": latency}, indent=1) + "\n", "utf-8")
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


def _latency(measured: Path, given: list[Row]) -> dict[str, float]:
    """Setting -> seconds per answer; outside the content, since times differ between machines."""
    times: dict[str, Any] = json.loads(measured.read_text("utf-8")) if measured.is_file() else {}
    counts = {setting: len(rows) for setting, rows in _grouped(given, "setting").items()}
    found = {setting: of.get("seconds") for setting, of in times.items() if setting in counts and isinstance(of, dict)}
    return {setting: seconds / counts[setting] for setting, seconds in found.items() if seconds is not None}


def _own_scores(chosen: Sequence[scorers.Scorer], example: Example, answer: Row, ledger: Ledger) -> Row:
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


def _set_scores(scorer: scorers.SetScorer, items: list[tuple[Example, str]], rows: list[Row]) -> None:
    """Values of each setting's answers against each other."""
    settings: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        settings.setdefault(row["setting"], []).append(i)
    for places in settings.values():
        for i, result in zip(places, scorer([items[i] for i in places]), strict=True):
            rows[i]["reasons"][scorer.name] = (
                result.reason if result else "not scored: fewer than two answers to compare"
            )
            if result:
                rows[i]["values"][scorer.name] = round(result.value, 6)


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


def _summary(rows: list[Row], confidences: Mapping[str, float]) -> dict[str, Any]:
    """Intervals of every metric, each at its confidence, for all rows and by category."""
    summary: dict[str, Any] = _intervals(rows, confidences)
    categories = _grouped([row for row in rows if row["category"] is not None], "category")
    summary["by_category"] = {name: _intervals(categories[name], confidences) for name in sorted(categories)}
    return summary


def _intervals(rows: list[Row], confidences: Mapping[str, float]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for metric, confidence in confidences.items():
        values = _item_values(rows, metric)
        if values:
            found[metric] = interval(metric, values, confidence, coverage.samples_of(rows)).to_json()
    return found


def interval(metric: str, values: Mapping[str, float], confidence: float, samples: int = 1) -> stats.Interval:
    """The metric over items, each the mean over `samples` answers: exact for a rate, bootstrap for a mean."""
    if kind(metric) == "rate":
        return coverage.rate(values, confidence, samples)
    return stats.mean_interval(list(stretched(metric, values).values()), confidence)


def stretched(metric: str, values: Mapping[str, float]) -> Mapping[str, float]:
    """Items of a statistic over a set, moved away from their mean by its degree, so that they spread as it does."""
    factor = 1.0 if metric in JUDGED or metric == "loss" else scorers.about(metric).spread
    if factor == 1.0:
        return values
    mean = sum(values.values()) / len(values)
    return {k: mean + factor * (v - mean) for k, v in values.items()}
