"""The prompt templates that a project may have as files of its own: which there are, and what a run binds.

Each has a setting that names the file, the template that ships, and its placeholders. What is asked with them is the
business of `data.synthesis` and `evals.judge`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from understudy.config import Config, SourceConfig
from understudy.core.artifact import write_synced
from understudy.core.records import sha256_file
from understudy.data.sources.files import local_files
from understudy.data.synthesis import faithful, requests
from understudy.errors import ConfigError, DataError
from understudy.evals import judge
from understudy.models.template import Template

FOLDER = "prompts"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One template; `setting` is the dotted key that names a file in its place."""

    setting: str
    shipped: Path
    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()


PROMPTS = {
    "synthesize": Prompt("synthesize.prompt", requests.PROMPT, requests.NEEDED, requests.OPTIONAL),
    "faithful": Prompt("synthesize.faithful.prompt", faithful.PROMPT, faithful.NEEDED),
    "judge": Prompt("score.prompt", judge.PROMPT, judge.NEEDED),
}


def named(cfg: Config) -> dict[str, str]:
    """Name -> file of each template that the project has of its own."""
    check = cfg.synthesize.faithful
    files = {
        "synthesize": cfg.synthesize.prompt,
        "faithful": check.prompt if check else None,
        "judge": cfg.score.prompt,
    }
    return {name: file for name, file in files.items() if file is not None}


def digests(cfg: Config, project: Path) -> dict[str, str]:
    """sha256 of each file of `named`. Raises what `locate` does."""
    return {name: sha256_file(locate(name, file, project)) for name, file in named(cfg).items()}


def locate(name: str, file: str, project: Path) -> Path:
    """The one file. Raises ConfigError PROMPT_NOT_FOUND, and what reading a source raises."""
    setting = PROMPTS[name].setting
    try:
        found = local_files(SourceConfig(path=file), project)
    except ConfigError as e:
        if e.code != "SOURCE_NOT_FOUND":
            raise
        raise ConfigError("PROMPT_NOT_FOUND", setting, f"no file {file}", "`understudy prompts` writes one") from None
    if len(found) > 1:
        raise ConfigError("PROMPT_NOT_FOUND", setting, f"{len(found)} files match {file}", "name one file")
    return found[0].path


def template(
    name: str, file: str | None, project: Path, *, bound: Mapping[str, str] | None = None, also: Sequence[str] = ()
) -> Template:
    """The project's template, or the one that ships; `also`: optional placeholders that are needed here.

    Raises DataError FILE_CHANGED when the file is not what the run bound, and ConfigError of `Template` and `locate`.
    """
    prompt = PROMPTS[name]
    if file is None:
        return Template(prompt.shipped.read_text("utf-8"), f"shipped {name}.txt", prompt.needed, prompt.optional)
    path = locate(name, file, project)
    if bound and bound.get(name) != sha256_file(path):
        what, fix = "the content changed since the run was bound to it", "`understudy run` binds what is there now"
        raise DataError("FILE_CHANGED", prompt.setting, what, fix)
    return Template.read(path, file, (*prompt.needed, *also), prompt.optional)


def check(cfg: Config, project: Path) -> None:
    """Read every template that the project has of its own. Raises ConfigError for the first that could not be used."""
    for name, file in named(cfg).items():
        template(name, file, project, also=requests.aimed(cfg.synthesize) if name == "synthesize" else ())


def write(project: Path) -> Iterator[tuple[Path, str, bool]]:
    """Copy the shipped templates into the project: (file, setting, whether it was written); none is overwritten."""
    for name, prompt in PROMPTS.items():
        file = project / FOLDER / f"{name}.txt"
        fresh = not file.exists()
        if fresh:
            file.parent.mkdir(exist_ok=True)
            write_synced(file, prompt.shipped.read_text("utf-8"))
        yield file, prompt.setting, fresh
