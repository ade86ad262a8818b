"""The command that trains on growing parts of the rows."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from understudy.cli.app import Json, app, open_project
from understudy.errors import ConfigError


@app.command()
def curve(
    points: Annotated[int, typer.Option(min=2, max=12, help="Trainings; each on half of the next one's rows.")] = 5,
    rows: Annotated[str | None, typer.Option(help="Numbers of rows in place of that, e.g. 100,200,400.")] = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Train on growing parts of the rows: the metric on dev by rows."""
    from understudy.core.runner import Runner
    from understudy.curves import halvings, table
    from understudy.pipelines import Bound
    from understudy.pipelines import curve as planned
    from understudy.preflight import refuse, refuse_full
    from understudy.terminal import RunWatcher

    project = open_project()
    refuse(project)
    run = project.last_run()
    sizes = _sizes(rows) if rows else halvings(project, run, points)
    plan = planned(project.config, Bound(**run.read("bindings.json")["bound"]), sizes)
    with project.locked():
        refuse_full(project, plan)
        with RunWatcher(quiet) as watcher:
            page = Runner(project.root, project.store, run.journal, watcher).run(plan)[-1].artifact
    data = json.loads((page.path / "curve.json").read_text("utf-8"))
    typer.echo(json.dumps(data, indent=1) if as_json else "\n".join(table(data)))
    if not as_json:
        typer.echo(f"page: {page.path / 'curve.html'}")


def _sizes(text: str) -> list[int]:
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError:
        sizes = []
    if len(sizes) < 2 or sizes[0] < 1:
        raise ConfigError("USAGE", "--rows", f"{text!r} is no list of two numbers or more", "write e.g. 100,200,400")
    return sizes
