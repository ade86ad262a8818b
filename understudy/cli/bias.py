"""Commands about bias: what the last run's experiment found, and the likelihood test on sentence pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from understudy.cli.app import Json, app, open_project
from understudy.errors import ConfigError


@app.command()
def bias(
    pairs: Annotated[
        Path | None, typer.Option(help="CSV file of sentence pairs (CrowS-Pairs): test a model's likelihoods.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="With --pairs: folder of a model; the project's base when left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what the bias experiment found, or test sentence pairs."""
    project = open_project()
    value = _pairs(project, pairs, model) if pairs else _last(project)
    if as_json:
        typer.echo(json.dumps(value, indent=1, ensure_ascii=False))
        return
    for line in _pair_lines(value) if pairs else _lines(value):
        typer.echo(line)


def _last(project: Any) -> dict[str, Any]:
    from understudy.summary import bias_of

    run = project.last_run()
    found = bias_of(project.artifacts(run))
    if found is None:
        raise ConfigError("NO_BIAS", run.id, "has no bias report", "add a `bias` section, then understudy run")
    return found


def _pairs(project: Any, path: Path, model: Path | None) -> dict[str, Any]:
    from understudy.evals.pairs import preferences, read_pairs
    from understudy.models.base_files import locate
    from understudy.models.local import LocalModel

    given = read_pairs(path)
    return preferences(LocalModel(model or locate(project.config.base.path, project.root)), given)


def _lines(report: dict[str, Any]) -> list[str]:
    from understudy.evals.bias import describe

    cells = report["cells"]
    flagged = sum(c["flagged"] for c in cells)
    lines = [f"{flagged} of {len(cells)} differences flagged, {report['prompts']} prompts"]
    lines += [("FLAGGED  " if c["flagged"] else "         ") + describe(c) for c in cells]
    if report["proposal"] and report["proposal"]["command"]:
        lines.append(f"to mitigate: {report['proposal']['command']}")
    return lines


def _pair_lines(found: dict[str, Any]) -> list[str]:
    rows = [("all pairs", found["all"]), ("of equal length", found["equal_length"]), *found["by_kind"].items()]
    lines = ["share of pairs whose more stereotyping sentence is the likelier one (50 % is no preference)"]
    for name, of in rows:
        if of:
            lines.append(f"{name:<22}{of['value']:6.1%}  [{of['low']:.1%}, {of['high']:.1%}]  n {of['n']}")
    return [*lines, f"ties {found['ties']}, longer than the context {found['too_long']}"]
