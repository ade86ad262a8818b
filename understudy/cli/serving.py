"""Commands that listen: the endpoint, and the simulated service LLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from understudy.cli.app import AllowSecrets, app, open_project


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address; the configured one when left out.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = None,
    allow_secrets: AllowSecrets = False,
) -> None:
    """Answer OpenAI chat completions from the champion."""
    from understudy.serve.server import serve as start
    from understudy.upkeep import champion_of, log_of

    project = open_project(allow_secrets)
    cfg = project.config
    champion = champion_of(project)
    bound = {"host": host or cfg.serve.host, "port": cfg.serve.port if port is None else port}
    start(
        project.root / champion.path,
        cfg.serve.model_copy(update=bound),
        served_by=f"understudy v{champion.version}",
        service=cfg.service,
        traffic=log_of(project, champion),
        announce=lambda line: typer.echo(line, err=True),
    )


@app.command()
def simulate(
    knowledge: Annotated[Path | None, typer.Option(help="JSONL of examples that it answers chats from.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8011,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE, e.g. rate_429=0.3 or latency_s=0.1 (docs/simulated-service.md); repeatable."),
    ] = None,
) -> None:
    """Run the simulated service LLM: teacher, judge and chat. `GET /ledger` and its end tell what it was asked."""
    from understudy.models.simulated import run_forever
    from understudy.models.simulated.faults import Faults

    ready = lambda url: typer.echo(f"simulated service LLM at {url}", err=True)  # noqa: E731
    ledger = run_forever(knowledge, host, port, faults=Faults.parse(fault or []), on_ready=ready)
    typer.echo(json.dumps(ledger.to_json()))
