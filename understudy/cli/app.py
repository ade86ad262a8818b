"""The application that every command joins, and the options that several share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

ORDER = (
    *("init", "prompts", "check", "plan", "run", "show", "runs", "explain", "ledger", "blame"),
    *("bias", "regate", "calibrate", "curve", "track", "notify", "upload", "export", "serve", "traffic"),
    *("watch", "harvest", "gc", "step", "schema", "simulate"),
)
"""Commands as a person meets them."""


class InOrder(TyperGroup):
    """Lists commands in ORDER; one that is not named there comes last."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    cls=InOrder,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Prepare a small model that you own to do the job of a large one that you rent."
    "  Every command takes -C DIR, before or after its name, to work in another folder.",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
AllowSecrets = Annotated[
    bool,
    typer.Option("--allow-secrets", help="Accept literal secrets in understudy.yaml; runs keep copies of them."),
]
AsOf = Annotated[
    str | None, typer.Option("--as-of", help="The day up to which web sources are read; today (UTC) when left out.")
]
RunId = Annotated[str | None, typer.Argument(help="A run's id; the last one when left out.")]


def open_project(allow_secrets: bool = False) -> Any:
    from understudy.project import Project

    return Project(Path.cwd(), allow_secrets=allow_secrets)
