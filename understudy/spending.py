"""What a run has spent on rented models so far, and what it will still need: for the rounds and the summary."""

from __future__ import annotations

from understudy.config import ScoreStep
from understudy.core.artifact import Dataset
from understudy.core.context import Context
from understudy.evals.rounds import Money

FILE = "spending.jsonl"
"""In the folder of a run: its account."""


def money(cfg: ScoreStep, data: Dataset, samples: int, context: Context) -> Money | None:
    """The budget's state after a round whose dev answers were just judged; None without a budget.

    A round is taken to cost what the rounds so far cost on average, and a verdict on a held answer what the judge's
    requests of this run cost on average; for the service's own answers as much again is kept back.
    """
    from understudy.models.account import spending

    if cfg.budget is None or context.run is None:
        return None
    so_far = spending(context.run / FILE)
    spent = sum(of["cost"] for of in so_far.values())
    judge = so_far.get("judge", {"cost": 0.0, "requests": 0})
    held = data.ledger.rejected.get("held", 0) if data.ledger else 0
    verdicts = held * cfg.decides * cfg.verdicts * samples
    return Money(cfg.budget, spent, spent / max(1, cfg.round), verdicts * judge["cost"] / max(1, judge["requests"]))
