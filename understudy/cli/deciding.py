"""Commands that decide about a finished run again, from its stored verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from understudy.cli.app import Json, app, open_project
from understudy.cli.rows import Run
from understudy.errors import GateError


@app.command()
def calibrate(
    labels: Annotated[Path | None, typer.Argument(help="CSV of people's labels, as --sheet makes it.")] = None,
    sheet: Annotated[int | None, typer.Option(min=2, max=100_000, help="Print a sheet of so many answers.")] = None,
    run_id: Run = None,
    as_json: Json = False,
) -> None:
    """Hold the judge against people's labels or a second judge."""
    from understudy.decisions import HeldScores, calibrated, calibration_table, label_sheet

    project = open_project()
    given = HeldScores(project, project.run(run_id))
    if sheet:
        typer.echo(label_sheet(given, sheet), nl=False)
        return
    found = calibrated(given, labels)
    typer.echo(json.dumps(found, indent=1) if as_json else "\n".join(calibration_table(found)))


@app.command()
def regate(
    similarity: Annotated[int | None, typer.Option(min=1, max=100, help="Threshold of the judge's grade.")] = None,
    precision: Annotated[int | None, typer.Option(min=1, max=100, help="Threshold of the judge's grade.")] = None,
    bar: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="The gate's bar.")] = None,
    run_id: Run = None,
    as_json: Json = False,
) -> None:
    """Decide a run again under other thresholds, without a call."""
    from understudy.decisions import HeldScores, decide_again, table

    project = open_project()
    found = decide_again(HeldScores(project, project.run(run_id)), similarity, precision, bar)
    if as_json:
        typer.echo(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        typer.echo("\n".join(table(found)))
    if not found["after"]["passed"]:
        raise typer.Exit(GateError.exit_code)
