"""Looks before a run spends anything: missing variables, missing packages, and what a person should know."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec

from understudy.config import Config, ServiceConfig, SourceConfig
from understudy.configfile import env_references
from understudy.core import machine
from understudy.core.journal import now
from understudy.core.plan import Plan
from understudy.errors import ConfigError, ResourceError
from understudy.models.providers import endpoint, terms_warning
from understudy.project import Project
from understudy.promptfiles import check as prompt_templates

WEB = ("httpx2", "selectolax")
OPENVINO = ("gguf", "openvino_genai")
LOCAL = ("torch", "transformers", "tokenizers", "peft", "numpy", "sacrebleu", "mlflow")
FILES = 32
"""Open files of a run, less two for each request under way; a whole run was seen to need less than 20."""
GRADED = ("judge_similarity", "judge_precision")
"""Metrics from 1 to 100."""


def refuse(project: Project) -> None:
    """Raise for what would surely fail later: a metric that nothing measures, an unset variable, a missing package."""
    _refuse_metrics(project.config)
    for source in project.config.web_sources():
        _refuse_web(source)
    for key, name in env_references(project.config):
        value = os.environ.get(name, "")
        if not value.strip() or "\n" in value or "\r" in value:
            state = "is not set" if name not in os.environ else "is empty or holds a line break"
            raise ConfigError("ENV_MISSING", key, f"the environment variable {name} {state}", f"export {name}=...")
    services = {name: getattr(project.config, name) for name in ("teacher", "judge", "second_judge", "service")}
    for name, service in services.items():
        if service and service.provider != "simulated":
            endpoint(service, name)
    prompt_templates(project.config, project.root)
    machine.require_files(FILES + 2 * max(s.concurrency if s else 0 for s in services.values()))
    for package in LOCAL:
        if find_spec(package) is None:
            raise ResourceError("EXTRA_MISSING", package, "is not installed", "pip install 'understudy[local]'")
    if project.config.answer.engine == "openvino":
        _refuse_openvino(project)
    if project.config.notify and find_spec("apprise") is None:
        raise ResourceError("EXTRA_MISSING", "apprise", "is not installed", "pip install 'understudy[notify]'")


def _refuse_openvino(project: Project) -> None:
    """Raise where the base cannot be served by OpenVINO, or its packages are missing."""
    from understudy.models.base_files import locate
    from understudy.train.export import exportable

    for package in OPENVINO:
        if find_spec(package) is None:
            raise ResourceError("EXTRA_MISSING", package, "is not installed", "pip install 'understudy[openvino]'")
    exportable(locate(project.config.base.path, project.root))


def refuse_full(project: Project, plan: Plan) -> None:
    """Raise ResourceError DISK_FULL when what the plan has still to make does not fit where the project lies."""
    from understudy.forecast.disk import estimate

    machine.require_room(project.root, estimate(project.config, project.root, plan, project.store))


def _refuse_web(source: SourceConfig) -> None:
    """Raise for a web source that could not be read at all: columns, URLs, a host that is a private address."""
    for package in WEB:
        if find_spec(package) is None:
            raise ResourceError("EXTRA_MISSING", package, "is not installed", "pip install 'understudy[web]'")
    from understudy.data.sources.mapping import roles_of
    from understudy.data.web.crawl import refuse_addresses

    roles_of(source)
    refuse_addresses(source, now()[:10])


def outlook(project: Project, as_of: str | None = None) -> Iterator[str]:
    """What each web source would read, without asking any site."""
    from understudy.data.web.crawl import outlook as line

    for source in project.config.web_sources():
        yield line(source, project.bind(as_of).as_of or now()[:10])


def _refuse_metrics(cfg: Config) -> None:
    from understudy.evals import scorers
    from understudy.evals.score import JUDGED

    chosen = [scorers.about(name) for name in cfg.score.scorers]
    if cfg.prompts:  # requests have no reference answer, no facts and no context
        bounded = cfg.prompts.min_answer_chars or cfg.prompts.max_answer_chars
        given = {"answer_chars"} if bounded else set()
        measured = [scorer.name for scorer in chosen if given.issuperset(scorer.needs)]
    else:
        own = [scorer.name for scorer in chosen if "answer_chars" not in scorer.needs]
        measured = [*own, "loss", *(JUDGED if cfg.judge else [])]
    for name in cfg.gate.floors:
        if name not in measured:
            fix = f"one of: {', '.join(measured)}"
            raise ConfigError("GATE_METRIC", f"gate.floors.{name}", f"nothing measures {name!r}", fix)
    metric = cfg.gate.metric
    graded = {*GRADED, *(scorer.name for scorer in chosen if scorer.unit != "share")}
    if metric not in measured:
        fix = "set `judge`, or one of: " if metric in JUDGED else "one of: "
        raise ConfigError("GATE_METRIC", "gate.metric", f"nothing measures {metric!r}", fix + ", ".join(measured))
    if metric == "exact_facts" and cfg.coverage and not cfg.coverage.fields.facts:
        fix = "map `facts` in coverage.fields, or choose another metric"
        raise ConfigError("GATE_METRIC", "gate.metric", "exact_facts needs each pair's facts", fix)
    if metric in graded and cfg.gate.bar is not None:
        raise ConfigError("GATE_METRIC", "gate.bar", f"is a share, but {metric} is no share", "set it to null")
    if metric in graded | {"loss"} and cfg.loop.target < 1.0:
        raise ConfigError("GATE_METRIC", "loop.target", f"is a share, but {metric} is no share", "leave it out")
    if "few_shot" in cfg.gate.must_beat and "must_beat" in cfg.gate.model_fields_set and not cfg.coverage:
        raise ConfigError("GATE_METRIC", "gate.must_beat", "few_shot needs a coverage set", "leave few_shot out")


def warnings(project: Project) -> Iterator[str]:
    """Check everything `run` would, without running; yields what deserves a look."""
    refuse(project)
    from understudy.data.sources.collect import costs

    plan: Plan = project.preview()
    runs = project.root / "runs"
    machine.probe(runs if runs.is_dir() else project.root)
    refuse_full(project, plan)
    cfg = project.config
    if cfg.teacher and (warning := terms_warning(cfg.teacher)):
        yield f"teacher {cfg.teacher.model}: {warning}"
    for role, service in (("teacher", cfg.teacher), ("judge", cfg.judge), ("service", cfg.service)):
        if service and service.provider == "simulated":
            yield f"{role} is simulated: its numbers are no real model's"
    yield from _unpriced(cfg)
    if not any(source.licence for source in cfg.sources):
        yield "no source states a licence; the model card will say so"
    yield from _label_leaks(project)
    yield from costs([*cfg.sources, *([cfg.coverage] if cfg.coverage else [])], project.root)
    if not plan.steps:
        yield "the plan is empty"


def _unpriced(cfg: Config) -> Iterator[str]:
    """Roles that a budget does not reach."""
    for role in ("teacher", "judge", "second_judge", "service"):
        service: ServiceConfig | None = getattr(cfg, role)
        if cfg.loop.budget is not None and service and service.price is None:
            yield f"{role} has no price, so its requests count as free and loop.budget does not limit them"


def _label_leaks(project: Project) -> Iterator[str]:
    """What the last run counted of examples that give their answer away."""
    for run in project.runs()[-1:]:
        for step in run.plan().steps:
            found = project.store.find(step.name, step.fingerprint) if step.stage in ("split", "hold") else None
            if found and found.ledger and (count := found.ledger.notes.get("label_leak")):
                where = "train, seed, dev or validation" if step.stage == "split" else "held"
                yield f"LABEL_LEAK: {count} examples of {where} have their answer in their own prompt ({run.id})"
