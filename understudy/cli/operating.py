"""Commands that look after a served model."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from understudy.cli.app import Json, app, open_project


@app.command()
def traffic(
    since: Annotated[str, typer.Option(help="Only the last 30m, 24h or 7d; everything when left out.")] = "",
    as_json: Json = False,
) -> None:
    """Print who answered, failovers, errors, latencies, ratings."""
    from understudy import upkeep
    from understudy.monitor.service_level import lines

    level = upkeep.level(open_project(), upkeep.seconds(since, "--since") if since else None)
    typer.echo(json.dumps(level, indent=1) if as_json else "\n".join(lines(level)))


@app.command()
def harvest(
    keep_personal: Annotated[
        bool, typer.Option("--keep-personal", help="Also rows with e-mail addresses or long numbers.")
    ] = False,
) -> None:
    """Make a source for the next round of the log's consented rows."""
    from understudy import upkeep
    from understudy.models.providers import terms_warning

    project = open_project()
    found = upkeep.harvest(project, keep_personal=keep_personal)
    for path, rows, what in (
        (found.examples, found.ledger.rows_out, "examples"),
        (found.candidates, found.candidate_rows, "candidates for the coverage set, rated down"),
    ):
        typer.echo(f"{rows} {what}" + (f": {path.relative_to(project.root)}" if path else ""))
    left = ", ".join(f"{reason} {n}" for reason, n in sorted(found.ledger.rejected.items()))
    typer.echo(f"{found.ledger.rows_in} new rows with content" + (f"; not taken: {left}" if left else ""))
    if found.withdrawn:
        typer.echo(f"{found.withdrawn} examples of earlier harvests withdrawn: their answers were rated down since")
    service = project.config.service
    if found.examples and service and (warning := terms_warning(service)):
        typer.echo(f"note: service {service.model}: {warning}", err=True)
    if found.examples:
        typer.echo("note: names of people are not recognised; read the file before it trains a model", err=True)


@app.command()
def watch(
    every: Annotated[
        str, typer.Option(help="Time between two looks, such as 15m; the configured one when left out.")
    ] = "",
    once: Annotated[
        bool, typer.Option("--once", help="One look, for a scheduler; exit 0 also when it alarms.")
    ] = False,
) -> None:
    """Look at drift, failovers and errors, once or at intervals."""
    from understudy import upkeep
    from understudy.core.lease import hold
    from understudy.errors import UnderstudyError
    from understudy.monitor.watch import ticks

    project = open_project()
    every_s = upkeep.seconds(every, "--every") if every else project.config.watch.every_s
    with hold(upkeep.folder(project) / "watch.lock", what=f"watch of {project.root.name}"):
        if once:
            upkeep.check(project, typer.echo)
            return
        for _ in ticks(every_s):
            try:
                upkeep.check(project, typer.echo)
            except UnderstudyError as e:
                # Nothing logged yet, a registry that is busy: the next look may find it mended.
                typer.echo(e.line(), err=True)
