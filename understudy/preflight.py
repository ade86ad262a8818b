"""Looks before a run spends anything: missing variables, missing packages, and what a person should know."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec

from understudy.configfile import env_references
from understudy.core.plan import Plan
from understudy.errors import ConfigError, ResourceError
from understudy.project import Project

LOCAL = ("torch", "transformers", "tokenizers", "peft", "numpy", "sacrebleu")


def refuse(project: Project) -> None:
    """Raise for what would surely fail later: an unset variable, a missing package."""
    for key, name in env_references(project.config):
        value = os.environ.get(name, "")
        if not value.strip() or "\n" in value or "\r" in value:
            state = "is not set" if name not in os.environ else "is empty or holds a line break"
            raise ConfigError("ENV_MISSING", key, f"the environment variable {name} {state}", f"export {name}=...")
    for package in LOCAL:
        if find_spec(package) is None:
            raise ResourceError("EXTRA_MISSING", package, "is not installed", "pip install 'understudy[local]'")


def warnings(project: Project) -> Iterator[str]:
    """Check everything `run` would, without running; yields what deserves a look."""
    refuse(project)
    plan: Plan = project.preview()
    cfg = project.config
    if cfg.teacher and cfg.teacher.provider != "simulated":
        terms = cfg.teacher.terms_url or "its terms_url is not set"
        yield f"teacher {cfg.teacher.model}: does its provider allow training on its output? {terms}"
    for role, service in (("teacher", cfg.teacher), ("judge", cfg.judge), ("service", cfg.service)):
        if service and service.provider == "simulated":
            yield f"{role} is simulated: its numbers are no real model's"
    if not any(source.licence for source in cfg.sources):
        yield "no source states a licence; the model card will say so"
    if not plan.steps:
        yield "the plan is empty"
