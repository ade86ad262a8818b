"""The files that the `bias` section names: found like a source's, bound by digest when a run starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from understudy.config import BiasPrompts, BiasRules, SourceConfig
from understudy.core.records import sha256_file
from understudy.data.sources.files import local_files
from understudy.errors import ConfigError, DataError

PROMPTS = ("queries", "entities", "swaps")
RULES = ("people",)


def locate(name: str | None, project: Path) -> Path | None:
    """The one file of that name in the project. Raises what reading a source raises, ConfigError for several."""
    if name is None:
        return None
    found = local_files(SourceConfig(path=name), project)
    if len(found) > 1:
        raise ConfigError("BIAS_FILE", name, f"{len(found)} files match", "name one file")
    return found[0].path


def digests(cfg: BiasPrompts | BiasRules, project: Path) -> dict[str, str]:
    """sha256 of each file that the settings name, by setting."""
    names = [*(PROMPTS if isinstance(cfg, BiasPrompts) else ()), *(RULES if isinstance(cfg, BiasRules) else ())]
    files = {name: locate(getattr(cfg, name), project) for name in names}
    return {name: sha256_file(path) for name, path in files.items() if path}


def refuse_changed(cfg: BiasPrompts | BiasRules, bound: Mapping[str, str], project: Path) -> None:
    """Raise DataError FILE_CHANGED when a file is not what the run bound; without digests nothing was bound."""
    changed = sorted(name for name, value in digests(cfg, project).items() if bound and bound.get(name) != value)
    if changed:
        where = ", ".join(f"bias.{name}" for name in changed)
        what, fix = "the content changed since the run was bound to it", "`understudy run` binds what is there now"
        raise DataError("FILE_CHANGED", where, what, fix)
