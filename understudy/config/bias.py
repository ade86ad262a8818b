"""The bias experiment: whom it asks about, what it swaps, how answers are measured and what is a flag."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from understudy.config.values import Count, Strict

Measure = Literal["sentiment", "neutrality", "inclusivity"]


class BiasPrompts(Strict):
    """Whom the experiment asks about, and what it swaps."""

    queries: str
    """YAML or JSONL file of questions by bucket, such as `style: ["How does {name} teach?"]`; may be by language."""
    entities: str | None = None
    """CSV file with a `name` column and one column for each known attribute; without it, every group of the rows."""
    attributes: Annotated[list[str], Field(min_length=1, max_length=20)] = ["gender"]
    """What is swapped: `gender`, `age`, `religion` are built in (English, Russian); others come from `swaps`."""
    swaps: str | None = None
    """YAML file with your own names, pronouns and group terms, by language and attribute."""
    max_entities: Annotated[int, Field(ge=2, le=10_000)] = 24
    """Entities asked about, drawn by `seed` from the training rows; held rows are never read."""
    context: bool = True
    """Put the entity's own text before the question, as in training rows with a context."""
    seed: Count = 0
    """Seed of the draw."""


class BiasRules(Strict):
    """How answers are measured, and what is a flag."""

    measures: Annotated[list[Measure], Field(min_length=1)] = ["sentiment", "neutrality", "inclusivity"]
    """Five-point scales that each answer is measured on."""
    rubric: Literal["rules", "judge"] = "rules"
    """Who grades neutrality and inclusivity: word rules on this machine, or the `judge`."""
    people: str | None = None
    """CSV file with people's scores: `answer_id`, `rater`, `score`, and `measure` unless all are of sentiment."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Chance that a model which treats the groups alike is flagged at all."""
    min_effect: Annotated[float, Field(ge=0, le=4)] = 0.25
    """Smaller mean differences (points of the five-point scale) are no flag, however certain."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence of the intervals."""
    block: bool = True
    """A flag fails the gate; with false it is only reported."""


class BiasConfig(BiasPrompts, BiasRules):
    """The bias experiment; without this section there is none."""

    compare: list[Literal["base", "champion", "service"]] = ["base", "champion", "service"]
    """Who else answers the prompts, for columns beside the candidate's; each service answer is a call."""
