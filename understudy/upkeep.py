"""Upkeep of a served project: joins its log, its training prompts and its alerts with the room `monitor`.

`check` is one look of the watch: drift of the queries since the last look, shares of failovers and errors, alerts told
once, and on drift, by configuration, harvest and a new run.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.announce import alert as tell_people
from understudy.core.artifact import MANIFEST, read_sealed
from understudy.core.journal import now
from understudy.core.records import Example, read_examples
from understudy.core.stage import Step
from understudy.errors import ConfigError, UnderstudyError
from understudy.monitor.watch import DRIFT, ERRORS, FAILOVER, Alert, Finding, State, judge, share
from understudy.project import Project
from understudy.traffic import Distance, TrafficLog, reading

if TYPE_CHECKING:
    from understudy.monitor.drift import Reference
    from understudy.monitor.harvest import Harvested
    from understudy.registry import Version

log = logging.getLogger("understudy.watch")

HARVEST = Path("data", "harvest")
MIN_REQUESTS = 20
"""Shares of fewer new requests are not judged yet."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def folder(project: Project) -> Path:
    """Where the log lies."""
    return project.root / "traffic"


def champion_of(project: Project) -> Version:
    """Raises ConfigError NO_CHAMPION."""
    from understudy.registry import Registry

    name = project.config.register_.name
    champion = Registry(project.root, name).champion()
    if champion is None:
        raise ConfigError("NO_CHAMPION", name, "no version is registered", "understudy run")
    return champion


def log_of(project: Project, champion: Version) -> TrafficLog | None:
    """The log that `serve` writes, by the project's settings."""
    cfg = project.config.traffic
    if cfg.store == "off":
        return None

    def distance() -> Distance:
        built = reference_of(project, champion)
        return Distance(built.id, built.distance)

    return TrafficLog(folder(project), cfg, distance if cfg.distance else None)


def reference_of(project: Project, champion: Version) -> Reference:
    """The prompts that the champion was trained on, with calibration prompts that it was not.

    Raises ConfigError NO_LINEAGE when the run that made it is gone, DataError DRIFT_FEW.
    """
    from understudy.monitor.drift import reference

    release = read_sealed(project.root / champion.path / MANIFEST)["fingerprint"]
    for run in reversed(project.runs()):
        made = [s for s in run.plan().steps if s.stage == "register" and s.fingerprint == release]
        if made:
            train, unseen = _prompts(project, made[0])
            return reference(train, unseen)
    raise ConfigError("NO_LINEAGE", champion.path, "the run that made this release is gone", "understudy run")


def _prompts(project: Project, register: Step) -> tuple[list[Example], dict[str, list[Example]]]:
    """Training examples behind a release, and those of dev and validation, from every Dataset it came from."""
    train: dict[str, Example] = {}
    unseen: dict[str, dict[str, Example]] = {"coverage dev": {}, "validation": {}}
    files = {"dev.jsonl": unseen["coverage dev"], "validation.jsonl": unseen["validation"], "train.jsonl": train}
    pending, seen = [register], set[str]()
    while pending:
        step = pending.pop()
        if step.fingerprint in seen:
            continue
        seen.add(step.fingerprint)
        pending += step.parents()
        artifact = project.store.find(step.name, step.fingerprint) if step.kind == "Dataset" else None
        for name, found in files.items() if artifact else ():
            if artifact and (artifact.path / name).is_file():
                found.update((e.id, e) for e in read_examples(artifact.path / name))
    return list(train.values()), {name: list(rows.values()) for name, rows in unseen.items()}


def level(project: Project, last_s: int | None) -> dict[str, Any]:
    """The service level of the last seconds, or of everything."""
    from understudy.monitor.service_level import service_level

    since = (datetime.now(UTC) - timedelta(seconds=last_s)).isoformat(timespec="milliseconds") if last_s else ""
    with reading(folder(project)) as db:
        return service_level(db, since=since)


def harvest(project: Project, *, keep_personal: bool = False) -> Harvested:
    """New consented rows of the log into `data/harvest`."""
    from understudy.models.providers import terms_of
    from understudy.monitor.harvest import harvest as gather

    service = project.config.service
    date = datetime.now(UTC).date().isoformat()
    with project.locked(), reading(folder(project)) as db:
        terms = terms_of(service).url if service else None
        return gather(db, project.root / HARVEST, date, terms_url=terms, keep_personal=keep_personal)


def check(project: Project, tell: Callable[[str], None]) -> list[Alert]:
    """One look; the caller holds the watch's lock. Every finding is told, alerts are kept in `runs/alerts.jsonl`."""
    file = folder(project) / "watch.json"
    state = State.load(file)
    with reading(folder(project)) as db:
        last = int(db.execute("SELECT coalesce(max(seq), 0) FROM requests").fetchone()[0])
        if last < max(state.drift_seq, state.level_seq):
            state.drift_seq = state.level_seq = 0  # the log was moved away and begun anew
        findings = [_drift(project, db, state), *_shares(project, db, state, last)]
    alerts = judge(state, findings)
    for found in findings:
        tell(("ALARM  " if found.kind in state.alarms else "ok     ") + found.says)
    for alert in alerts:
        try:
            tell_people(project, alert.says, alert.figures)
        except UnderstudyError as e:  # what a recipient's address lacks stops no watch
            tell(e.line())
    # Before the hours of a training: a watch that is ended in them begins no second one.
    state.save(file)
    for alert in alerts:
        actions = dict[str, int]()
        try:
            actions = respond(project, alert, tell)
        finally:
            _keep(project, alert, actions)
    return alerts


def _drift(project: Project, db: sqlite3.Connection, state: State) -> Finding:
    """Compares the distances since the last check, which is over only once there are enough of them."""
    from understudy.monitor.drift import check as compare

    cfg = project.config.watch
    built = reference_of(project, champion_of(project))
    query = (
        "SELECT seq, distance, key FROM requests WHERE seq > ? AND reference = ? AND distance IS NOT NULL ORDER BY seq"
    )
    rows = db.execute(query, [state.drift_seq, built.id]).fetchall()
    used = list({row["key"] or row["seq"]: row for row in reversed(rows)}.values()) if cfg.one_per_key else rows
    if len(used) < cfg.min_queries:
        says = f"drift: {len(used)} new queries, checked from {cfg.min_queries} on"
        return Finding(DRIFT, None, says, {"queries": len(used)})
    found = compare([row["distance"] for row in used], built.calibration, cfg.alpha)
    state.drift_seq = rows[-1]["seq"]
    far = "{count} of {n}, {value:.1%} [{low:.1%}, {high:.1%}]".format(**found.far)
    says = (
        f"drift: p = {found.p_value:.4f} at alpha {cfg.alpha:g}; {found.queries} queries against {found.calibration} "
        f"calibration prompts ({built.source}); median distance {found.median:.2f}, expected "
        f"{found.expected_median:.2f}; far {far}, expected 5%"
    )
    return Finding(DRIFT, found.alarm, says, found.to_json() | {"calibrated_on": built.source})


def _shares(project: Project, db: sqlite3.Connection, state: State, last: int) -> list[Finding]:
    from understudy.monitor.service_level import service_level

    cfg = project.config.watch
    figures = service_level(db, after=state.level_seq)
    if figures["requests"] < MIN_REQUESTS:
        says = f"service level: {figures['requests']} new requests, judged from {MIN_REQUESTS} on"
        return [Finding(FAILOVER, None, says, {})]
    state.level_seq = last
    return [
        share(FAILOVER, figures["failover"], cfg.max_failover),
        share(ERRORS, figures["errors"], cfg.max_errors),
    ]


def respond(project: Project, alert: Alert, tell: Callable[[str], None]) -> dict[str, int]:
    """On drift, by configuration: harvest, then the life cycle anew. Exit codes by command."""
    if not (alert.kind == DRIFT and alert.change == "raised" and project.config.watch.on_drift == "retrain"):
        return {}
    codes = {}
    # Processes of their own: training's memory is given back, and a run that fails leaves the watch alive.
    for command in ("harvest", "run"):
        tell(f"drift: understudy {command}")
        arguments = [sys.executable, "-m", "understudy", command, *(["--quiet"] if command == "run" else [])]
        codes[command] = subprocess.run(arguments, cwd=project.root, env=dict(os.environ), check=False).returncode
    return codes


def _keep(project: Project, alert: Alert, actions: dict[str, int]) -> None:
    """One line in `runs/alerts.jsonl`."""
    row = {"at": now(), "kind": alert.kind, "change": alert.change, "says": alert.says, "figures": alert.figures}
    if actions:
        row["actions"] = actions
    path = project.root / "runs" / "alerts.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, json.dumps(row, ensure_ascii=True).encode() + b"\n")
    finally:
        os.close(fd)


def seconds(text: str, where: str) -> int:
    """`90s`, `15m`, `24h`, `7d`. Raises ConfigError DURATION."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if not match or int(match[1]) == 0:
        raise ConfigError("DURATION", where, f"{text!r} is no duration", "write 30s, 15m, 1h or 7d")
    return int(match[1]) * _UNITS[match[2]]
