"""Commands that carry data out of the project."""

from __future__ import annotations

from typing import Annotated

import typer

from understudy.cli.app import RunId, app, open_project


@app.command()
def upload(
    run_id: RunId = None,
    to: Annotated[str | None, typer.Option(help="Instead of upload.to: s3://bucket/prefix or a folder.")] = None,
) -> None:
    """Write a run's prepared data to an object store or folder."""
    project = open_project()
    done = project.upload(project.run(run_id), to)
    for file in done.files:
        typer.echo(f"{file['rows']:>8} rows  {file['bytes']:>10} bytes  {file['name']}")
    typer.echo(f"{'wrote' if done.written else 'already there:'} {done.folder}")
