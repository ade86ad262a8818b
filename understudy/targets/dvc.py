"""A plan as `dvc.yaml`: one DVC stage a step, each running `understudy step`, each output at `work/<step>`.

The first stage writes the plan with one file a step; that file holds the step's fingerprint, so DVC reruns exactly the
steps whose settings, inputs or code moved. Later stages depend on the manifests of what they read, which hold no times.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from understudy.config import Config
from understudy.core.artifact import MANIFEST
from understudy.core.plan import Plan
from understudy.core.stage import Step
from understudy.errors import ConfigError

PLAN, WORK = "plan", "work"
HEAD = f"""\
# Written by `understudy export dvc` from understudy.yaml; write it again when the pipeline's shape changes.
#   dvc repro              runs what is stale; the same contents as `understudy run`
#   dvc push, dvc pull     outputs to and from a remote
# `{PLAN}` binds sources and settings anew each time; it costs a second and reruns nothing that did not move.
"""


def pipeline(config: Config, plan: Plan) -> dict[str, Any]:
    """The contents of `dvc.yaml`."""
    steps = [step for step in plan.steps if step.stage != "adopt"]
    stages: dict[str, Any] = {PLAN: _plan(config)}
    stages |= {step.name: _stage(step) for step in steps}
    return {"stages": stages, "metrics": [f"{WORK}/{s.name}/verdict.json" for s in steps if s.kind == "Verdict"]}


def write(folder: Path, config: Config, plan: Plan) -> Path:
    """Write `dvc.yaml` into the project's folder; raises ConfigError for one that understudy did not write."""
    from ruamel.yaml import YAML

    file = folder / "dvc.yaml"
    if file.exists() and not file.read_text("utf-8").startswith(HEAD.splitlines()[0]):
        raise ConfigError("DVC_EXISTS", file, "is there and was not written by understudy", "move it away")
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 120
    text = io.StringIO()
    yaml.dump(pipeline(config, plan), text)
    file.write_text(HEAD + text.getvalue(), "utf-8")
    return file


def _plan(config: Config) -> dict[str, Any]:
    """Always run: it sees what DVC cannot, such as a new file under a pattern or another release of understudy."""
    sources = [*config.sources, *([config.coverage] if config.coverage else [])]
    # An object store's files are no paths here; this stage runs always and binds them by itself.
    files = [s.path for s in sources if s.kind == "files" and s.path and "://" not in s.path]
    return {
        "cmd": f"understudy plan --to {PLAN}",
        "deps": ["understudy.yaml", *sorted({_before_pattern(file) for file in files})],
        "outs": [{output: {"cache": False}} for output in (f"{PLAN}/plan.json", f"{PLAN}/steps")],
        "always_changed": True,
    }


def _stage(step: Step) -> dict[str, Any]:
    parents = [p for p in step.parents() if p.stage != "adopt"]
    return {
        "cmd": f"understudy step {step.name} --plan {PLAN}/plan.json --store {WORK} --by-name",
        "deps": [f"{PLAN}/steps/{step.name}.json", *(f"{WORK}/{p.name}/{MANIFEST}" for p in parents)],
        # Kept over a rerun: a step whose fingerprint did not move finds its output and does nothing.
        "outs": [{f"{WORK}/{step.name}": {"persist": True}}],
    }


def _before_pattern(path: str) -> str:
    """The folder before the first wildcard; the path itself without one."""
    parts = Path(path).parts
    kept = [part for i, part in enumerate(parts) if not any(c in "".join(parts[: i + 1]) for c in "*?[")]
    return str(Path(*kept)) if kept else "."
