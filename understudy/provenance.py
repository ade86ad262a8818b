"""Who answered in a run: model, versions, sampling, template and terms of each role, from artifacts to the card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from understudy.config import ServiceConfig
from understudy.core.context import current
from understudy.core.records import Ledger
from understudy.models.providers import terms_of

if TYPE_CHECKING:
    from understudy.models.service import ServiceModel

SHOWN = {"provider", "model", "base_url"}
"""Settings that may be shown; never `api_key`."""


def account(service: ServiceModel, template: str = "", ledger: Ledger | None = None) -> dict[str, Any]:
    """What a step's artifact keeps of the service that it asked; counts its calls, and notes a version that moved.

    `template`: digest of the prompt template.
    """
    current().measured["calls"] = dict(service.calls)
    found = service.provenance(template)
    if ledger and len(found["versions"]) > 1:
        ledger.note("service_versions", len(found["versions"]))
    return found


def merged(found: Iterable[Mapping[str, Any] | None]) -> dict[str, Any]:
    """One role in several steps: `versions` and `templates` list each once, in order; the rest is the first step's.

    Empty when no step says anything, as those of an earlier release.
    """
    known = [f for f in found if f]
    if not known:
        return {}
    versions = dict.fromkeys(v for f in known for v in f.get("versions", []))
    templates = dict.fromkeys(t for f in known for t in [f.get("template"), *f.get("templates", [])] if t)
    rest = {key: value for key, value in known[0].items() if key not in ("template", "templates", "versions")}
    return {**rest, "versions": list(versions), "templates": list(templates)}


def on_card(service: ServiceConfig | None, found: Iterable[Mapping[str, Any] | None] = ()) -> dict[str, Any] | None:
    """A role for the model card: its settings, what was found of it in the artifacts, and the terms that are known."""
    if service is None:
        return None
    return {**service.model_dump(mode="json", include=SHOWN), **merged(found), "terms": asdict(terms_of(service))}
