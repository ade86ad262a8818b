"""How models answer, how answers are graded, and what decides."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from understudy.config.values import EXECUTION, Count, Grade, Rate, Strict


class AnswerConfig(Strict):
    """How models answer prompt sets."""

    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 64
    """Longest answer, in tokens."""
    batch_size: Annotated[int, Field(ge=1, le=4096, json_schema_extra=EXECUTION)] = 32
    """Prompts answered at once."""
    shots: list[Annotated[int, Field(ge=1, le=64)]] = [1, 2, 4, 8]
    """Few-shot baselines tried on dev; the best one goes to held."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """0 is greedy; above it, `samples` answers are drawn per prompt."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: the likeliest tokens with this total probability are drawn from."""
    samples: Annotated[int, Field(ge=1, le=100)] = 1
    """Answers drawn per prompt when `temperature` is above 0."""
    seed: Count = 0
    """Seed of sampling."""


class ScoreConfig(Strict):
    """Which scores are taken, and the thresholds of a covered answer."""

    scorers: list[str] = ["exact", "f1", "bleu", "chrf", "rouge1", "rouge2", "rougeL", "exact_facts"]
    """Reference scorers by name; judge scorers join when `judge` is set."""
    similarity: Grade = 70
    """A covered answer has at least this judge grade for similarity."""
    precision: Grade = 70
    """A covered answer has at least this judge grade for precision."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence of the intervals."""


class LoopConfig(Strict):
    """Rounds of synthesis and training."""

    rounds: Annotated[int, Field(ge=1, le=20)] = 2
    """Rounds; each trains from the base on the union of all rows so far."""
    target: Rate = 1.0
    """Rounds after the lower bound of dev coverage reaches this are skipped."""
    compare_untargeted: bool = True
    """Train one more last round on as many rows without aim, for comparison."""


class GateConfig(Strict):
    """Rules of the verdict."""

    metric: str = "coverage"
    """Metric of the bar and of the comparisons; without a judge `exact_facts`, `exact` or `loss` fits."""
    bar: Rate | None = 0.60
    """The lower end of the metric's interval on held must reach this; null for no bar."""
    must_beat: list[Literal["base", "few_shot", "champion"]] = ["base", "few_shot", "champion"]
    """Baselines that the candidate must beat: the paired interval of the difference lies above zero."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence of the intervals that decide."""
