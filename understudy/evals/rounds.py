"""What a round has gained on dev, and whether the next one is worth its rows and its money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from understudy.config import ScoreStep
from understudy.evals import stats
from understudy.evals.score import better, load_values, main_setting, stretched


def gain(now: Path, before: Path, metric: str, confidence: float) -> stats.Interval:
    """How much better the metric is on the dev items that both folders of scores have, paired; above 0 is better."""
    ours, theirs = (load_values(scores, main_setting(scores), metric) for scores in (now, before))
    shared = ours.keys() & theirs.keys()
    a, b = ({k: side[k] for k in shared} for side in (ours, theirs))
    if better(metric) == "lower":
        a, b = b, a
    return stats.paired_difference(stretched(metric, a), stretched(metric, b), confidence)


@dataclass(frozen=True, slots=True)
class Money:
    """What the run has spent, what the last round cost, and what deciding on held will cost."""

    limit: float
    spent: float
    round: float
    held: float

    def enough(self, rounds: float) -> bool:
        """Whether so many more rounds like the last leave what held needs."""
        return self.spent + self.round * rounds + self.held <= self.limit


def reached(cfg: ScoreStep, found: Mapping[str, float]) -> bool:
    """Whether the near end of the metric's interval on dev is at the target; a target of 1 is never reached early."""
    if cfg.target >= 1.0:
        return False
    return found["high"] <= cfg.target if better(cfg.metric) == "lower" else found["low"] >= cfg.target


def verdict(cfg: ScoreStep, done: bool, gained: stats.Interval | None, money: Money | None) -> str:
    """Why no further round is needed: `target`, `gain`, `budget`; empty when there is no reason to stop.

    `done`: the target is reached.
    """
    if done:
        return "target"
    if gained is not None and cfg.min_gain is not None and gained.value <= cfg.min_gain:
        return "gain"
    return "budget" if money and not money.enough(cfg.next_rounds) else ""
