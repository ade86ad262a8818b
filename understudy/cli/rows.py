"""Commands that say where the rows went: the ledger of a run, and the blame of a row or an answer."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from understudy.cli.app import Json, app, open_project
from understudy.errors import ConfigError, IntegrityError

Run = Annotated[str | None, typer.Option("--run", help="A run's id; the last one when left out.")]


@app.command()
def ledger(
    step: Annotated[str | None, typer.Argument(help="A step of the run: list the rows that it rejected.")] = None,
    reason: Annotated[str | None, typer.Option(help="List the rows that were rejected for this reason.")] = None,
    every: Annotated[bool, typer.Option("--all", help="List all of them, not the first 20.")] = False,
    run_id: Run = None,
    as_json: Json = False,
) -> None:
    """Show where every row went, and that the sums agree."""
    from understudy.ledger import accounts, listing, rejected, table

    project = open_project()
    run = project.run(run_id)
    if step:
        run.plan().step(step)
    artifacts = project.artifacts(run)
    if step or reason:
        rows = rejected(artifacts, step, reason)
        most = len(rows) if every or as_json else 20
        _print([asdict(row) for row in rows] if as_json else listing(rows, most), as_json)
        return
    books = accounts(run.id, artifacts)
    _print(books.model_dump() | {"balanced": books.balanced} if as_json else table(books), as_json)
    if not books.balanced:
        raise IntegrityError(
            "LEDGER", run.id, "the rows of two steps do not add up", "this is a bug: report the ledger"
        )


@app.command()
def blame(
    row: Annotated[str | None, typer.Argument(help="Id of a row, or its place (data/rows.jsonl:17).")] = None,
    answer: Annotated[str | None, typer.Option(help="Find the training rows nearest to this answer.")] = None,
    item: Annotated[str | None, typer.Option(help="Find those nearest to the answer to this held or dev item.")] = None,
    who: Annotated[str, typer.Option(help="Whose answer to the item: candidate, base, few_shot, ...")] = "candidate",
    count: Annotated[int, typer.Option("-n", min=1, max=100, help="How many rows.")] = 5,
    run_id: Run = None,
    as_json: Json = False,
) -> None:
    """Tell a row's way, or the training rows nearest to an answer."""
    from understudy import blame as work

    if sum(given is not None for given in (row, answer, item)) != 1:
        raise ConfigError("USAGE", "blame", "give one of: a row, --answer, --item", "understudy blame --help")
    project = open_project()
    artifacts = project.artifacts(project.run(run_id))
    if row is not None:
        found = work.history(artifacts, row)
        _print(asdict(found) if as_json else work.tell(found, artifacts), as_json)
        return
    step, prompt, text = work.answer_of(artifacts, str(item), who) if item else ("", "", str(answer))
    near = work.nearest(work.training_rows(artifacts), text, prompt, count)
    if as_json:
        rows = [asdict(n) | {"history": asdict(work.history(artifacts, n.row.id))["events"]} for n in near]
        _print({"answer": text, "prompt": prompt, "step": step, "nearest": rows}, True)
        return
    if item:
        typer.echo(f"{item}  {step}\nasked: {prompt}\nanswered: {text}\n")
    _print(work.tell_neighbours(near, artifacts), False)


def _print(value: Any, as_json: bool) -> None:
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False) if as_json else "\n".join(value))
