"""Commands that write a plan as files of an orchestrator."""

from __future__ import annotations

import typer

from understudy.cli.app import AllowSecrets, app, open_project

export = typer.Typer(help="Write the plan as files of an orchestrator, without it.")
app.add_typer(export, name="export")


@export.callback()
def _export() -> None:
    """Write the plan as files of an orchestrator, without it."""


@export.command()
def dvc(allow_secrets: AllowSecrets = False) -> None:
    """Write dvc.yaml: `dvc repro` then makes the same contents as `understudy run`."""
    from understudy.targets.dvc import write

    project = open_project(allow_secrets)
    plan = project.preview()
    file = write(project.root, project.config, plan)
    typer.echo(f"wrote {file.name} with {len(plan.steps) + 1} stages; then: dvc init (--no-scm without git), dvc repro")
