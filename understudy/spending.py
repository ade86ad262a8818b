"""What a run has spent on rented models so far, and what it will still need: for the rounds and the summary."""

from __future__ import annotations

from understudy.config import ScoreStep
from understudy.core.artifact import Dataset
from understudy.core.context import Context
from understudy.evals.rounds import Money

FILE = "spending.jsonl"
"""In the folder of a run: its account."""


def money(cfg: ScoreStep, data: Dataset, judged: int, context: Context) -> Money | None:
    """The budget's state after a round whose dev answers were just judged; None without a budget.

    A round is taken to cost what the rounds so far cost on average, and an answer to a held prompt what one to a dev
    prompt did; what is kept back for the service's own answers is as much again as for judging them.
    """
    from understudy.models.account import spending

    if cfg.budget is None or context.run is None:
        return None
    spent = sum(of["cost"] for of in spending(context.run / FILE).values())
    calls = context.measured.get("calls")
    each = float(calls["cost"]) / max(1, judged) if isinstance(calls, dict) else 0.0
    held = (data.ledger.rejected.get("held", 0) if data.ledger else 0) * cfg.decides * each
    return Money(cfg.budget, spent, spent / max(1, cfg.round), held)
