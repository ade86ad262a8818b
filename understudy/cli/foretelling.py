"""What a run would do and need, before it does anything."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from understudy.cli.app import AllowSecrets, AsOf, Json, app, open_project


@dataclass(frozen=True)
class View:
    """What `plan` prints."""

    steps: Annotated[bool, typer.Option("--steps", help="A line for each step, not for each group of them.")] = False
    as_json: Json = False
    probe: Annotated[
        bool, typer.Option("--probe", help="First measure for some seconds how fast this machine trains and answers.")
    ] = False
    listed: Annotated[bool, typer.Option("--list", help="List the steps: done or to run, kind, fingerprint.")] = False
    why: Annotated[bool, typer.Option("--why", help="The same list, with what makes each step stale.")] = False
    values: Annotated[bool, typer.Option("--values", help="Print every setting with where it came from.")] = False


def _viewed(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of View in place of its first parameter."""
    hints = get_type_hints(View, include_extras=True)
    options = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in fields(View)
    ]
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]

    @wraps(command)
    def wrapped(**given: Any) -> None:
        command(View(**{f.name: given.pop(f.name) for f in fields(View)}), **given)

    wrapped.__annotations__ = {p.name: p.annotation for p in [*options, *own]}
    vars(wrapped)["__signature__"] = inspect.Signature([*options, *own])
    return wrapped


@app.command()
@_viewed
def plan(
    view: View,
    bind: Annotated[bool, typer.Option("--bind", help="Bind a new run and write its plan; print the path.")] = False,
    as_of: AsOf = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="Write the plan, and a file for each step, into this folder.")
    ] = None,
    allow_secrets: AllowSecrets = False,
) -> None:
    """Foretell calls, money, time, memory of `run`; list its steps."""
    project = open_project(allow_secrets)
    if to is not None:
        built = project.preview(as_of=as_of)
        built.save(to / "plan.json")
        built.save_steps(to / "steps")
        typer.echo(str(to / "plan.json"))
    elif bind:
        with project.locked():
            run, _, _ = project.open_run(new=True, control=None, as_of=as_of)
        typer.echo(str(run.path / "plan.json"))
    else:
        _print(view, project, as_of)


def _print(view: View, project: Any, as_of: str | None) -> None:
    from understudy.planning import describe, foretell, settings

    if view.values:
        lines = settings(project.loaded)
    elif view.listed or view.why:
        lines = describe(project, why=view.why, as_of=as_of)
    else:
        lines = foretell(project, steps=view.steps, probe=view.probe, as_json=view.as_json, as_of=as_of)
    for line in lines:
        typer.echo(line)
