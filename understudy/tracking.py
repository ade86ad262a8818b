"""Mirrors a run in MLflow: settings, averages with their intervals, texts. Artifacts and journal stay the truth.

One MLflow run for each run of the project, and one below it for each decoding setting of the grid. What is there
already is written again, so that the mirror of a run that went on is whole.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from understudy.errors import RemoteError, boundary
from understudy.registry import Registry
from understudy.summary import IntervalRow, Summary

RUN = "understudy.run"
SETTING = "understudy.setting"
MAX_PARAM = 500  # MLflow's bound on a parameter's text, in characters

_NO_PARAM = re.compile(r"[^\w.-]+")

Row = dict[str, Any]


def mirror(
    registry: Registry, summary: Summary, settings: Mapping[str, Any], *, held: Iterable[Row], texts: Iterable[Row]
) -> str:
    """Write the run to MLflow and return its id there; raises RemoteError when the server does not take it.

    `settings`: dotted key -> value. `held`: the held items with every model's answer. `texts`: the dev requests with
    the answer under each decoding setting, as `summary.decoding_texts` gives them.
    """
    client = registry.client()
    with boundary(RemoteError, "TRACKING", registry.name, "see the tracking server, or unset MLFLOW_TRACKING_URI"):
        experiment = registry.experiment(client)
        run_id = _open(client, experiment, {RUN: summary.run, SETTING: ""}, summary.run)
        held_already = client.get_run(run_id).data.params
        for key, value in settings.items():
            name, text = _NO_PARAM.sub(".", key).strip("."), str(value)[:MAX_PARAM]
            if held_already.get(name, text) == text:
                client.log_param(run_id, name, text)
            else:  # MLflow keeps a parameter for ever; what changed within the run (a budget, say) stands in a tag
                client.set_tag(run_id, f"now.{name}", text)
        _metrics(client, run_id, summary.held.get("candidate", {}), "held_")
        for row in summary.rounds:
            if row.arm == "targeted":
                _metrics(client, run_id, row.dev, "dev_", step=row.round)
        if summary.verdict:
            client.set_tag(run_id, "verdict", "passed" if summary.verdict.passed else "failed")
        _lines(client, run_id, "held.jsonl", held)
        if summary.report and Path(summary.report).is_file():
            client.log_artifact(run_id, summary.report)
        _settings(client, experiment, run_id, summary, list(texts))
        client.set_terminated(run_id)
    return run_id


def _settings(client: Any, experiment: str, parent: str, summary: Summary, texts: list[Row]) -> None:
    """One run below the run's own for each decoding setting: averages, seconds per answer, texts."""
    for row in summary.decoding:
        tags = {RUN: summary.run, SETTING: row.setting, "mlflow.parentRunId": parent, "chosen": str(row.chosen)}
        child = _open(client, experiment, tags, f"{summary.run} {row.setting}")
        _metrics(client, child, row.dev, "")
        if row.seconds_per_answer is not None:
            client.log_metric(child, "seconds_per_answer", row.seconds_per_answer)
        given = [
            {"question": t["question"], "category": t["category"], **t["answers"][row.setting]}
            for t in texts
            if row.setting in t["answers"]
        ]
        _lines(client, child, "texts.jsonl", given)
        client.set_terminated(child)


def _open(client: Any, experiment: str, tags: dict[str, str], name: str) -> str:
    """The run with these marks: the one that is there, or a new one."""
    query = f"tags.`{RUN}` = '{tags[RUN]}'"
    for found in client.search_runs([experiment], query, max_results=1000):
        if found.data.tags.get(SETTING, "") == tags[SETTING]:
            return str(found.info.run_id)
    return str(client.create_run(experiment, run_name=name, tags=tags).info.run_id)


def _metrics(client: Any, run_id: str, found: Mapping[str, IntervalRow], prefix: str, step: int = 0) -> None:
    for metric, interval in found.items():
        for end in ("value", "low", "high"):
            value = float(getattr(interval, end))
            if math.isfinite(value):
                name = f"{prefix}{metric}" + ("" if end == "value" else f"_{end}")
                client.log_metric(run_id, name, value, step=step)


def _lines(client: Any, run_id: str, name: str, rows: Iterable[Row]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
    if text:
        client.log_text(run_id, text, name)
