"""A plan: the ordered, readable JSON list of steps that a runner or a target sees, and why a step is stale."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from understudy.core.artifact import write_synced
from understudy.core.stage import STAGES, Needs, SkipIf, Step
from understudy.errors import ConfigError

SCHEMA = 1


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

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a plan file. Raises ConfigError when it is no plan, newer, or names an unknown stage."""
        try:
            data = json.loads(path.read_text("utf-8"))
            steps, schema = data["steps"], data["schema"]
        except FileNotFoundError:
            raise ConfigError("PLAN_NOT_FOUND", path, "no such file", "understudy plan --bind writes one") from None
        except (ValueError, KeyError, TypeError) as e:
            raise ConfigError(
                "PLAN_SYNTAX", path, f"is no plan ({type(e).__name__})", "understudy plan --bind"
            ) from None
        if schema != SCHEMA:
            raise ConfigError("PLAN_VERSION", path, f"schema {schema}; this release reads {SCHEMA}", "upgrade")
        built: dict[str, Step] = {}
        for row in steps:
            built[row["name"]] = _from_json(row, built, path)
        return cls(tuple(built.values()), data.get("name", "plan"))


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


def _from_json(row: dict[str, Any], built: dict[str, Step], path: Path) -> Step:
    if row["stage"] != "adopt" and row["stage"] not in STAGES:
        raise ConfigError("STAGE_UNKNOWN", path, f"no stage {row['stage']}", f"there are {sorted(STAGES)}")

    def find(name: str) -> Step:
        if name not in built:
            raise ConfigError("DAG_CYCLE", path, f"{row['name']} needs {name}, which does not come before it")
        return built[name]

    inputs: dict[str, Step | list[Step] | None] = {}
    for key, value in row["inputs"].items():
        inputs[key] = [find(n) for n in value] if isinstance(value, list) else find(value) if value else None
    skip = row.get("skip_if")
    condition = SkipIf(find(skip["artifact"]), skip["field"], skip["equals"], find(skip["alias"])) if skip else None
    return Step(
        row["name"], row["stage"], row["revision"], row["config"], inputs, row["kind"], Needs(**row["needs"]),
        row["fingerprint"], condition, row.get("address"), row["libraries"],
    )  # fmt: skip


def why(step: Step, before: dict[str, Any] | None) -> list[str]:
    """What makes `step` differ from its form in an earlier plan: fields, inputs, revision, libraries."""
    if before is None:
        return ["never ran"]
    if before["fingerprint"] == step.fingerprint:
        return []
    now = _step_json(step)
    found: list[str] = []
    if before["revision"] != step.revision:
        found.append(f"revision {before['revision']} > {step.revision}")
    found += [f"config {line}" for line in _differences(before["config"], now["config"])]
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
    return [] if old == new else [f"{at}: {_short(old)} > {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
