"""The result of a run as one structure: what `understudy show --json` prints and the report draws.

Read from stored artifacts only. `Summary` is the published schema (`understudy schema show`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from understudy.config import ReportStep
from understudy.core.artifact import Artifact
from understudy.core.plan import Plan
from understudy.core.records import Example, read_examples, read_jsonl
from understudy.forecast.compare import ForecastRow, compare
from understudy.ledger import accounts

if TYPE_CHECKING:
    from understudy.evals.report import ReportData


class IntervalRow(BaseModel):
    value: float
    low: float
    high: float
    n: int


class StageRow(BaseModel):
    name: str
    seconds: float
    cached: bool
    rows_in: int | None
    rows_out: int | None
    rejected: dict[str, int]
    notes: dict[str, int] = {}


class RoundRow(BaseModel):
    round: int
    arm: str
    """`targeted`, `untargeted` (a last round for comparison only) or `mitigated` (counterfactually augmented)."""
    rows: int
    """Examples that the round trained on, all earlier rounds' included."""
    skipped: bool = False
    gain: IntervalRow | None = None
    """What the gate's metric gained on dev over the round before, paired; above 0 is better."""
    gain_per_1000_rows: float | None = None
    """The gain by the rows that the round added, times 1,000."""
    cost: float | None = None
    """Money that teacher and judge took for the round; null where no model has a price."""
    gain_per_money: float | None = None
    stop: str = ""
    """Why the rounds after it were skipped: `target`, `gain` or `budget`."""
    dev: dict[str, IntervalRow]


class DecodingRow(BaseModel):
    setting: str
    """`greedy`, or temperature and top-p as in `t=0.7,p=0.9`."""
    chosen: bool
    """The best by the gate's metric: it answers held and travels with the release."""
    seconds_per_answer: float | None
    dev: dict[str, IntervalRow]
    by_category: dict[str, dict[str, IntervalRow]]


class RuleRow(BaseModel):
    name: str
    passed: bool
    text: str


class VerdictRow(BaseModel):
    passed: bool
    rules: list[RuleRow]


class Summary(BaseModel):
    """One run."""

    schema_version: int = 1
    project: str
    run: str
    finished: str | None
    control: str | None = None
    simulated: list[str]
    """Roles that the simulated service played; every number of theirs is simulated."""
    stages: list[StageRow]
    metric: str = "coverage"
    """The gate's metric."""
    rounds: list[RoundRow]
    decoding: list[DecodingRow] = []
    """The candidate on dev under each setting of `answer.grid`."""
    held: dict[str, dict[str, IntervalRow]]
    differences: dict[str, dict[str, IntervalRow]]
    share_of_service: IntervalRow | None = None
    """The candidate's rate by the gate's metric over the service's own, on held."""
    verdict: VerdictRow | None
    forecast: list[ForecastRow] = []
    """What the run was predicted to need beside what it has used."""
    version: int | None
    report: str | None


def stage_rows(artifacts: Sequence[Artifact], ran: Collection[str] = ()) -> list[StageRow]:
    """One row a step; `ran` names the steps that ran in the last invocation."""
    rows = []
    for a in artifacts:
        ledger = a.ledger
        rows.append(
            StageRow(
                name=a.name,
                seconds=float(a.measured.get("seconds", 0.0)),
                cached=a.name not in ran,
                rows_in=ledger.rows_in if ledger else None,
                rows_out=ledger.rows_out if ledger else None,
                rejected=ledger.rejected if ledger else {},
                notes=ledger.notes if ledger else {},
            )
        )
    return rows


def round_rows(artifacts: Sequence[Artifact]) -> list[RoundRow]:
    """The rounds in order, the untargeted arm last."""
    from understudy.evals.score import load_summary, main_setting

    by_name = {a.name: a for a in artifacts}
    rows = []
    for name, packed in by_name.items():
        arm = name.removeprefix("pack-")
        if packed.kind != "Packed" or arm == name:
            continue
        scores = by_name.get(f"score-dev-{arm}")
        trained = by_name.get(f"train-{arm}")
        dev = load_summary(scores.path)[main_setting(scores.path)] if scores else {}
        rows.append(
            RoundRow(
                round=int(scores.manifest["config"]["round"]) if scores else 1,
                arm=arm if arm in ("untargeted", "mitigated") else "targeted",
                rows=int(packed.facts["train"]["examples"]),
                skipped=bool(trained and trained.manifest.get("alias_of")),
                dev={k: IntervalRow(**v) for k, v in dev.items() if k != "by_category"},
            )
        )
    rows.sort(key=lambda r: (r.arm != "targeted", r.arm, r.round))
    return [_valued(row, rows, by_name) for row in rows]


def cost_of(artifact: Artifact) -> float:
    """Money that a step's calls have cost, whether they are kept for one role or by role."""
    calls = artifact.measured.get("calls") or {}
    roles = [calls] if "requests" in calls else list(calls.values())
    return sum(float(of.get("cost", 0.0)) for of in roles)


def _valued(row: RoundRow, rows: Sequence[RoundRow], by_name: Mapping[str, Artifact]) -> RoundRow:
    """The round with what it gained, by its rows and its money."""
    arm = str(row.round) if row.arm == "targeted" else row.arm
    scores, written = by_name.get(f"score-dev-{arm}"), by_name.get(f"synthesize-{arm}")
    if not scores or row.skipped:
        return row
    cost = sum(cost_of(a) for a in (scores, written) if a) or None
    found = scores.facts.get("gain")
    before = next((r.rows for r in rows if r.arm == "targeted" and r.round == row.round - 1), 0)
    gain = IntervalRow(**found) if found else None
    added = row.rows - before
    return row.model_copy(
        update={
            "gain": gain,
            "gain_per_1000_rows": gain.value / added * 1000 if gain and added > 0 else None,
            "cost": cost,
            "gain_per_money": gain.value / cost if gain and cost else None,
            "stop": str(scores.facts.get("stop", "")),
        }
    )


def decoding_rows(artifacts: Sequence[Artifact]) -> list[DecodingRow]:
    """The settings of the grid in order; empty where none was tried."""
    from understudy.evals.score import best_setting, load_summary

    by_name = {a.name: a for a in artifacts}
    answers, scores = by_name.get("answer-dev-decoding"), by_name.get("score-dev-decoding")
    if not answers or not scores:
        return []
    best = best_setting(scores.path, str(scores.manifest["config"]["metric"]))
    counts = Counter(row["setting"] for row in read_jsonl(answers.path / "answers.jsonl"))
    rows = []
    for setting, found in load_summary(scores.path).items():
        seconds = (answers.measured.get(setting) or {}).get("seconds")
        rows.append(
            DecodingRow(
                setting=setting,
                chosen=setting == best,
                seconds_per_answer=seconds / counts[setting] if seconds is not None else None,
                dev={m: IntervalRow(**v) for m, v in found.items() if m != "by_category"},
                by_category={
                    category: {m: IntervalRow(**v) for m, v in of.items()}
                    for category, of in found["by_category"].items()
                },
            )
        )
    return rows


def decoding_texts(artifacts: Sequence[Artifact]) -> list[dict[str, Any]]:
    """The first sample of every dev request under every setting of the grid, with its scores."""
    by_name = {a.name: a for a in artifacts}
    answers, scores = by_name.get("answer-dev-decoding"), by_name.get("score-dev-decoding")
    if not answers or not scores:
        return []
    asked = by_name.get("prompt") or by_name["split"]
    items: dict[str, dict[str, Any]] = {
        e.id: {"question": e.prompt[-1]["content"], "category": e.meta.get("category"), "answers": {}}
        for e in read_examples(asked.path / "dev.jsonl")
    }
    for row in _first_samples(answers.path / "answers.jsonl"):
        items[row["id"]]["answers"][row["setting"]] = {"text": row["text"], "values": {}}
    for row in _first_samples(scores.path / "scores.jsonl"):
        items[row["id"]]["answers"][row["setting"]]["values"] = row["values"]
    return list(items.values())


def verdict_of(artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """The gate's whole verdict; empty when the gate has not run."""
    for a in artifacts:
        if a.kind == "Verdict":
            value: dict[str, Any] = json.loads((a.path / "verdict.json").read_text("utf-8"))
            return value
    return {}


def bias_of(artifacts: Sequence[Artifact]) -> dict[str, Any] | None:
    """The whole bias report; None without one."""
    for a in artifacts:
        if a.kind == "BiasReport":
            value: dict[str, Any] = json.loads((a.path / "bias.json").read_text("utf-8"))
            return value
    return None


def summarise(
    run: str,
    plan: Plan,
    artifacts: Sequence[Artifact],
    *,
    status: dict[str, Any],
    control: str | None,
    ran: set[str],
    forecast: Sequence[ForecastRow] = (),
) -> Summary:
    """The summary of one run from the artifacts that it has so far; `ran` names the steps of the last invocation."""
    verdict = verdict_of(artifacts)
    reports = [a.path / "report.html" for a in artifacts if a.kind == "Report"]
    reported = [s for s in plan.steps if s.stage == "report"]
    return Summary(
        project=plan.name,
        run=run,
        finished=status.get("finished"),
        control=control,
        simulated=reported[0].config["simulated"] if reported else [],
        stages=stage_rows(artifacts, ran),
        metric=reported[0].config["metric"] if reported else "coverage",
        rounds=round_rows(artifacts),
        decoding=decoding_rows(artifacts),
        held=verdict.get("held", {}),
        differences=verdict.get("differences", {}),
        share_of_service=verdict.get("share_of_service"),
        verdict=VerdictRow(**{k: verdict[k] for k in ("passed", "rules")}) if verdict else None,
        forecast=list(forecast),
        version=status.get("version"),
        report=str(reports[0].resolve()) if reports else None,
    )


def report_data(
    cfg: ReportStep, artifacts: Sequence[Artifact], held: Sequence[Example], run: Path | None = None
) -> ReportData:
    """What the report draws, from artifacts alone, but for the forecast that the folder `run` keeps."""
    from understudy.evals.report import ReportData

    return ReportData(
        project=cfg.project,
        metric=cfg.metric,
        verdict=verdict_of(artifacts),
        rounds=[r.model_dump() for r in round_rows(artifacts)],
        decoding=[r.model_dump() for r in decoding_rows(artifacts)],
        decoding_texts=decoding_texts(artifacts),
        items=_items(held, artifacts),
        stages=[{**r.model_dump(), "cached": False} for r in stage_rows(artifacts)],
        flow=accounts("", artifacts).flow,
        versions=_versions(artifacts),
        thresholds={"similarity": cfg.similarity, "precision": cfg.precision, "bar": cfg.bar},
        simulated=cfg.simulated,
        by=_given_by(artifacts),
        latency=_latency(artifacts),
        licences=cfg.licences,
        control=cfg.control,
        bias=bias_of(artifacts),
        forecast=[(r.what, *r.texts()) for r in (compare(run, artifacts) if run else ())],
    )


def _given_by(artifacts: Sequence[Artifact]) -> dict[str, str]:
    """Metric -> `judge` or the classifier's name, where `score.by` put one in place of the own scorer."""
    scored = next((a for a in artifacts if a.kind == "Scores"), None)
    given: dict[str, Any] = scored.manifest["config"].get("by") or {} if scored else {}
    return {metric: who if who == "judge" else str(who["model"]) for metric, who in given.items()}


def _latency(artifacts: Sequence[Artifact]) -> dict[str, float]:
    """Who -> seconds per held answer, in the setting that the verdict compares."""
    settings: dict[str, str] = verdict_of(artifacts).get("settings") or {}
    held = {a.name.removeprefix("score-held-"): a for a in artifacts if a.name.startswith("score-held-")}
    times = {who: (a.measured.get("latency_s") or {}).get(settings.get(who)) for who, a in held.items()}
    return {who: seconds for who, seconds in times.items() if seconds is not None}


def held_items(artifacts: Sequence[Artifact]) -> list[dict[str, Any]]:
    """The held items with every model's first answer and its scores; empty before the held set is made."""
    held = next((a for a in artifacts if a.kind == "HeldSet" and (a.path / "held.jsonl").is_file()), None)
    return _items(read_examples(held.path / "held.jsonl"), artifacts) if held else []


def _items(held: Sequence[Example], artifacts: Sequence[Artifact]) -> list[dict[str, Any]]:
    answers = {a.name.removeprefix("answer-held-"): a for a in artifacts if a.name.startswith("answer-held-")}
    scores = {a.name.removeprefix("score-held-"): a for a in artifacts if a.name.startswith("score-held-")}
    items = [_item(e) for e in held]
    _fill(items, answers, scores)
    return items


def _item(example: Example) -> dict[str, Any]:
    prompt = example.prompt[-1]["content"] if example.prompt else ""
    return {
        "id": example.id,
        "category": example.meta.get("category"),
        "group": example.meta.get("group"),
        "context": example.meta.get("context"),
        "question": example.meta.get("question") or prompt,
        "reference": example.answer,
        "answers": {},
    }


def _fill(items: list[dict[str, Any]], answers: dict[str, Artifact], scores: dict[str, Artifact]) -> None:
    """Add each model's first answer and its scores to the items."""
    by_id = {item["id"]: item for item in items}
    for who, artifact in answers.items():
        for row in _first_samples(artifact.path / "answers.jsonl"):
            if row["id"] in by_id:
                by_id[row["id"]]["answers"][who] = {"text": row["text"], "values": {}, "reasons": {}}
    for who, artifact in scores.items():
        for row in _first_samples(artifact.path / "scores.jsonl"):
            answer = by_id.get(row["id"], {}).get("answers", {}).get(who)
            if answer is not None:
                answer["values"], answer["reasons"] = row["values"], row.get("reasons", {})


def _first_samples(path: Path) -> list[dict[str, Any]]:
    return [row for row in read_jsonl(path) if row.get("sample", 0) == 0]


def _versions(artifacts: Sequence[Artifact]) -> dict[str, str]:
    import platform

    from understudy import __version__

    found: dict[str, str] = {}
    for a in artifacts:
        found |= a.manifest.get("libraries", {})
    return {"understudy": __version__, "python": platform.python_version(), **dict(sorted(found.items()))}
