"""What would run and why, what a step is, and what nobody needs any more. Nothing here runs a stage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from understudy.configfile import Loaded, hidden
from understudy.core.artifact import MANIFEST, Release, read_sealed
from understudy.core.plan import why
from understudy.core.stage import STAGES
from understudy.project import Project

KEPT_RUNS = 3


def settings(loaded: Loaded) -> Iterator[str]:
    """Every resolved value with where it came from."""
    for key, value, origin in loaded.values():
        yield f"{key} = {json.dumps(value, ensure_ascii=False)}  ({origin})"


def _present(project: Project, name: str, fingerprint: str) -> bool:
    return (project.store.address(name, fingerprint) / MANIFEST).is_file()


def describe(project: Project, *, why: bool, as_of: str | None = None) -> Iterator[str]:
    """One line a step: done, or what it would do; with `why`, what makes it stale."""
    runs = project.runs()
    last = runs[-1] if runs else None
    plan = project.preview(as_of)
    before = {row["name"]: row for row in last.read("plan.json")["steps"]} if last else {}
    done = 0
    for step in plan.steps:
        ready = step.stage == "adopt" or _present(project, step.name, step.fingerprint)
        done += ready
        yield f"{'done' if ready else 'run ':<5}{step.name:<26}{step.kind:<11}{step.fingerprint[:8]}"
        if why and not ready:
            for reason in _reasons(step, before):
                yield f"       because {reason}"
    yield f"{len(plan.steps)} steps, {done} done, {len(plan.steps) - done} to run"


def foretell(
    project: Project, *, steps: bool = False, probe: bool = False, as_json: bool = False, as_of: str | None = None
) -> Iterator[str]:
    """What the plan needs, by group or by step; with `probe`, this machine's speed is measured first."""
    from understudy.forecast.probe import measure
    from understudy.forecast.table import lines

    plan = project.preview(as_of)
    probed = measure(project.config, project.root) if probe else None
    found = project.forecast(plan, probed)
    if as_json:
        yield json.dumps(found.to_json(), indent=1)
        return
    yield from lines(found, steps=steps)


def _reasons(step: Any, before: dict[str, Any]) -> list[str]:
    row = before.get(step.name)
    if row is not None and row["fingerprint"] == step.fingerprint:
        return ["not finished yet"]
    reasons = why(step, row)
    changed = [p.name for p in step.parents() if before.get(p.name, {}).get("fingerprint") != p.fingerprint]
    if reasons == ["an input changed"] and changed:
        return [f"input {name} changed" for name in changed]
    return reasons


def explain_step(project: Project, name: str) -> Iterator[str]:
    """What a step is, what it was given, what it made and where that lies."""
    run = project.last_run()
    step = run.plan().step(name)
    found = project.store.find(step.name, step.fingerprint) if step.stage != "adopt" else None
    stage = STAGES.get(step.stage)
    yield f"{name}: {(stage.__doc__ or '').strip().splitlines()[0] if stage else 'an earlier run made it'}"
    yield f"stage {step.stage} revision {step.revision}, fingerprint {step.fingerprint[:16]}"
    for key, value in step.inputs.items():
        given = ", ".join(s.name for s in value) if isinstance(value, list) else value.name if value else "none"
        yield f"input {key}: {given}"
    for key, setting in hidden(step.config).items():
        yield f"config {key} = {json.dumps(setting, ensure_ascii=False)[:200]}"
    if found is None:
        yield "not made yet"
        return
    if alias := found.manifest.get("alias_of"):
        yield f"skipped; stands for {alias}"
    if found.ledger:
        yield f"rows {found.ledger.rows_in} in, {found.ledger.rows_out} out, rejected {found.ledger.rejected or 'none'}"
    yield f"content {found.content_digest[:16]}, {found.measured.get('seconds', 0)} s"
    yield f"in {found.path}"


def collect_garbage(project: Project, *, delete: bool) -> Iterator[str]:
    """Artifacts outside the last runs and the lineage of registered versions, and partial work on what no run plans."""
    planned = _planned(project)
    needed = _needed(project, planned)
    partial = {project.store.scratch(path.parent.name, path.name) for path in planned}
    unneeded = [path for path in project.store.all() if path not in needed]
    unneeded += [path for path in project.store.scratches() if path not in partial]
    freed = 0
    for path in unneeded:
        size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
        freed += size
        yield f"{'removed' if delete else 'would remove'} {path.relative_to(project.root)} ({size / 1e6:.1f} MB)"
        if delete:
            shutil.rmtree(path)
    verb, hint = ("freed", "") if delete else ("would free", "; --delete removes them" if unneeded else "")
    yield f"{len(unneeded)} artifacts, {verb} {freed / 1e6:.1f} MB{hint}"


def _planned(project: Project) -> set[Path]:
    """Addresses of every step in the last runs' plans."""
    steps = [step for run in project.runs()[-KEPT_RUNS:] for step in run.read("plan.json")["steps"]]
    return {project.store.address(step["name"], step["fingerprint"]) for step in steps}


def _needed(project: Project, planned: set[Path]) -> set[Path]:
    """What is planned, every release that passed (those are the registered ones, of every name), and their inputs."""
    keep: set[Path] = set()
    frontier = [*planned, *_releases(project)]
    while frontier:
        path = frontier.pop()
        if path in keep:
            continue
        keep.add(path)
        if not (path / MANIFEST).is_file():
            continue
        manifest = read_sealed(path / MANIFEST)
        if alias := manifest.get("alias_of"):
            frontier.append(project.store.root / alias)
        frontier += [project.store.address(name, entry["fingerprint"]) for name, entry in manifest["inputs"].items()]
    return keep


def _releases(project: Project) -> Iterator[Path]:
    for path in project.store.all():
        manifest = read_sealed(path / MANIFEST)
        if manifest.get("kind") == Release.kind and manifest["facts"].get("passed"):
            yield path
