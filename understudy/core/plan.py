"""A plan: the ordered, readable JSON list of steps that a runner or a target sees, and why a step is stale."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from understudy.configfile import hidden
from understudy.core.artifact import write_synced
from understudy.core.records import canonical
from understudy.core.stage import STAGES, Needs, SkipIf, Step, without_execution
from understudy.errors import ConfigError

SCHEMA = 1
BIND = "understudy plan --bind"


class _Skip(BaseModel):
    """A step's `skip_if` in a plan file; `artifact` and `alias` are names of steps."""

    model_config = ConfigDict(extra="forbid", strict=True)

    artifact: str
    field: str
    equals: Any
    alias: str


class _Row(BaseModel):
    """One step in a plan file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    stage: str
    revision: int
    kind: str
    fingerprint: str
    inputs: dict[str, str | list[str] | None]
    config: dict[str, Any]
    libraries: dict[str, str]
    needs: Needs
    skip_if: _Skip | None = None
    address: str | None = None

    def wants(self) -> list[str]:
        """Names of the steps that this one follows."""
        names: list[str] = []
        for value in self.inputs.values():
            names += value if isinstance(value, list) else [value] if value else []
        return names + ([self.skip_if.artifact, self.skip_if.alias] if self.skip_if else [])


class _File(BaseModel):
    """A plan file of this schema."""

    name: str = "plan"
    steps: list[_Row]


@dataclass(frozen=True)
class Plan:
    """Steps in an order in which each follows its inputs."""

    steps: tuple[Step, ...]
    name: str = "plan"

    @classmethod
    def of(cls, name: str, finals: Iterable[Step]) -> Plan:
        """Gather the finals and everything they need. Raises ConfigError on two steps of one name or a cycle."""
        ordered: dict[str, Step] = {}
        path: list[Step] = []

        def visit(step: Step) -> None:
            if step in path:
                loop = " > ".join([s.name for s in path[path.index(step) :]] + [step.name])
                raise ConfigError("DAG_CYCLE", "plan", f"the steps need each other: {loop}")
            known = ordered.get(step.name)
            if known is not None:
                if known.fingerprint != step.fingerprint:
                    raise ConfigError("STEP_TWICE", step.name, "two different steps have this name", "rename one")
                return
            path.append(step)
            for parent in step.parents():
                visit(parent)
            path.pop()
            ordered[step.name] = step

        for final in finals:
            visit(final)
        return cls(tuple(ordered.values()), name)

    def step(self, name: str) -> Step:
        for step in self.steps:
            if step.name == name:
                return step
        raise ConfigError("STEP_UNKNOWN", name, "the plan has no such step", f"it has {[s.name for s in self.steps]}")

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "name": self.name, "steps": [_step_json(s) for s in self.steps]}

    def save(self, path: Path) -> None:
        write_synced(path, json.dumps(self.to_json(), indent=1, ensure_ascii=False))

    def save_steps(self, folder: Path) -> None:
        """Write each step to a file of its own, which changes only when the step does; files of other steps go."""
        rows = {f"{step.name}.json": _step_json(step) for step in self.steps if step.stage != "adopt"}
        for name, row in rows.items():
            write_synced(folder / name, json.dumps(row, indent=1, ensure_ascii=False))
        for path in folder.glob("*.json"):
            if path.name not in rows:
                path.unlink()

    @classmethod
    def load(cls, path: Path, *, stale: bool = False) -> Plan:
        """Read a plan file. Raises ConfigError when it is no plan, newer, or not what this release would plan.

        `stale` lets a plan of another release pass, for those who read about it and run nothing.
        """
        try:
            text = path.read_text("utf-8")
            schema = json.loads(text)["schema"]
        except FileNotFoundError:
            raise ConfigError("PLAN_NOT_FOUND", path, "no such file", f"{BIND} writes one") from None
        except (ValueError, KeyError, TypeError) as e:
            raise ConfigError("PLAN_SYNTAX", path, f"is no plan ({type(e).__name__})", BIND) from None
        if schema != SCHEMA:
            raise ConfigError("PLAN_VERSION", path, f"schema {schema}; this release reads {SCHEMA}", "upgrade")
        try:
            file = _File.model_validate_json(text)
        except ValidationError as e:
            raise ConfigError("PLAN_SYNTAX", path, _first(e), BIND) from None
        _refuse_disorder(file.steps, path)
        built: dict[str, Step] = {}
        for row in file.steps:
            built[row.name] = _from_row(row, built, path)
            if not stale:
                _refuse_stale(built[row.name], path)
        return cls(tuple(built.values()), file.name)


def _first(error: ValidationError) -> str:
    """The first of pydantic's complaints: `steps.3.needs.retries: Input should be a valid integer`."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _refuse_disorder(rows: list[_Row], path: Path) -> None:
    """Each row comes once, and after what it needs; a loop is told from a mere disorder."""
    wants = {row.name: row.wants() for row in rows}
    for row in rows:
        if loop := _loop(row.name, wants):
            raise ConfigError("DAG_CYCLE", path, f"the steps need each other: {' > '.join(loop)}", BIND)
    done: set[str] = set()
    for row in rows:
        if row.name in done:
            raise ConfigError("STEP_TWICE", path, f"two steps have the name {row.name}", BIND)
        for name in row.wants():
            if name not in wants:
                raise ConfigError("PLAN_SYNTAX", path, f"{row.name} needs {name}, which the plan does not have", BIND)
            if name not in done:
                raise ConfigError("PLAN_ORDER", path, f"{row.name} needs {name}, which does not come before it", BIND)
        done.add(row.name)


def _loop(start: str, wants: dict[str, list[str]]) -> list[str]:
    """The way from `start` through what it needs back to `start`; empty when there is none."""
    ways, seen = [[start]], set[str]()
    while ways:
        way = ways.pop()
        for name in wants.get(way[-1], []):
            if name == start:
                return [*way, start]
            if name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return []


def _names(value: Step | list[Step] | None) -> Any:
    return [s.name for s in value] if isinstance(value, list) else value.name if value else None


def _step_json(step: Step) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": step.name,
        "stage": step.stage,
        "revision": step.revision,
        "kind": step.kind,
        "fingerprint": step.fingerprint,
        "inputs": {key: _names(value) for key, value in step.inputs.items()},
        "config": step.config,
        "libraries": step.libraries,
        "needs": asdict(step.needs),
    }
    if step.skip_if:
        condition = step.skip_if
        row["skip_if"] = {
            "artifact": condition.of.name,
            "field": condition.field,
            "equals": condition.equals,
            "alias": condition.alias.name,
        }
    if step.address:
        row["address"] = step.address
    return row


def _from_row(row: _Row, built: dict[str, Step], path: Path) -> Step:
    if row.stage != "adopt" and row.stage not in STAGES:
        raise ConfigError("STAGE_UNKNOWN", path, f"no stage {row.stage}", f"there are {sorted(STAGES)}")
    inputs: dict[str, Step | list[Step] | None] = {}
    for key, value in row.inputs.items():
        inputs[key] = [built[n] for n in value] if isinstance(value, list) else built[value] if value else None
    skip = row.skip_if
    condition = SkipIf(built[skip.artifact], skip.field, skip.equals, built[skip.alias]) if skip else None
    return Step(
        row.name, row.stage, row.revision, row.config, inputs, row.kind, row.needs,
        row.fingerprint, condition, row.address, row.libraries,
    )  # fmt: skip


def _refuse_stale(step: Step, path: Path) -> None:
    """A step's output may stand under its fingerprint only when this release's code would give it the same one."""
    if step.stage == "adopt":
        return
    stage = STAGES[step.stage]
    if step.revision != stage.revision:
        what = f"{step.name} is of revision {step.revision} of {stage.name}; this release has {stage.revision}"
        raise ConfigError("PLAN_STALE", path, what, BIND)
    try:
        stage.config_type.model_validate_json(canonical(step.config))
    except ValidationError as e:
        raise ConfigError("PLAN_SYNTAX", path, f"{step.name}: config.{_first(e)}", BIND) from None
    if step.fingerprint != stage.fingerprint(step.config, step.libraries, step.inputs, step.skip_if):
        raise ConfigError("PLAN_STALE", path, f"{step.name} has not the fingerprint of what it says", BIND)


def why(step: Step, before: dict[str, Any] | None) -> list[str]:
    """What makes `step` differ from its form in an earlier plan: fields, inputs, revision, libraries."""
    if before is None:
        return ["never ran"]
    if before["fingerprint"] == step.fingerprint:
        return []
    now = _step_json(step)
    model = STAGES[step.stage].config_type
    was, is_now = (without_execution(model, row["config"]) for row in (before, now))
    found: list[str] = []
    if before["revision"] != step.revision:
        found.append(f"revision {before['revision']} > {step.revision}")
    found += [f"config {line}" for line in _differences(was, is_now)]
    found += [f"library {line}" for line in _differences(before["libraries"], now["libraries"])]
    found += [f"input {line}" for line in _differences(before["inputs"], now["inputs"])]
    if before.get("skip_if") != now.get("skip_if"):
        found.append("skip_if")
    return found or ["an input changed"]


def _differences(old: Any, new: Any, at: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        lines: list[str] = []
        for key in sorted(old.keys() | new.keys()):
            lines += _differences(old.get(key), new.get(key), f"{at}.{key}" if at else str(key))
        return lines
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [line for i, pair in enumerate(zip(old, new, strict=True)) for line in _differences(*pair, f"{at}.{i}")]
    return [] if old == new else [f"{at}: {_short(old, at)} > {_short(new, at)}"]


def _short(value: Any, at: str) -> str:
    text = json.dumps(hidden(value, tuple(at.split("."))), ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
