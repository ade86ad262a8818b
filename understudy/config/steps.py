"""Settings of single steps: a section of the file plus what the plan knows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from understudy.config.bias import BiasPrompts, BiasRules
from understudy.config.data import DedupeConfig
from understudy.config.evals import AnswerConfig, GateConfig, PromptsConfig, ScoreConfig
from understudy.config.models import ServiceConfig, SynthesizeConfig
from understudy.config.operation import RegisterConfig
from understudy.config.values import EXECUTION, Count, Grade, Positive, Rate, Strict

CONTROLS = ("shuffled_answers", "blanked_contexts", "untrained_adapter", "wrong_teacher")
"""Negative controls of `understudy run --control`; each must fail the gate."""


class Paid(Strict):
    """What every step that asks a rented model shares."""

    budget: Annotated[float | None, Field(ge=0, json_schema_extra=EXECUTION)] = None
    """`loop.budget`: money that all such steps of the run may spend together."""


class SynthesizeStep(SynthesizeConfig, Paid):
    """Settings of one round's synthesis."""

    teacher: ServiceConfig
    judge: ServiceConfig | None = None
    """Only where `faithful` asks it."""
    near: DedupeConfig = DedupeConfig()
    """The project's `dedupe`: how near duplicates of earlier rows are told."""
    round: Positive = 1
    metric: str = "coverage"
    digests: dict[str, str] = {}
    """Bound by the run: digests of the prompt templates that are files of the project."""


class AnswerStep(AnswerConfig):
    """Settings of one model's answers to one prompt set."""

    who: str
    engine_version: str = ""
    """Bound by the plan: major.minor of the engine's package, where it is not transformers."""
    metric: str = "coverage"
    """Metric by which the few-shot setting was chosen on dev."""


class PromptsStep(PromptsConfig):
    """Settings of one set of requests."""

    as_of: str | None = None
    """The day of the run, ISO; only where the requests depend on it."""


class AskStep(AnswerConfig, Paid):
    """Settings of the service LLM's own answers."""

    service: ServiceConfig


class ScoreStep(ScoreConfig, Paid):
    """Settings of the scores of one model on one prompt set."""

    who: str
    round: Count = 0
    judge: ServiceConfig | None = None
    metric: str = "coverage"
    target: Rate = 1.0
    next_rounds: Annotated[float, Field(json_schema_extra=EXECUTION)] = 1.0
    """What the next round will cost, in rounds like this one."""
    min_gain: float | None = None
    """Of a round's own dev scores: what it must gain for another round."""
    rounds_budget: float | None = None
    """Of a round's own dev scores: `loop.budget`, since it may decide that no further round is begun."""
    decides: Annotated[Count, Field(json_schema_extra=EXECUTION)] = 0
    """Models whose held answers will be judged, for what the budget has to keep back."""
    digests: dict[str, str] = {}
    """Bound by the run: digest of the judge's prompt template, where it is a file of the project."""


class SelectStep(Strict):
    """Settings of the choice among the rounds' models, on dev."""

    metric: str = "coverage"


class CanaryStep(Paid):
    """Settings of one round's canary."""

    round: Count = 0
    probes: Positive = 8
    asked: str = ""
    """Bound by the run: when it began, so that every run asks afresh."""
    teacher: ServiceConfig | None = None
    judge: ServiceConfig | None = None
    similarity: Grade = 70
    precision: Grade = 70
    prompt: str | None = None
    digests: dict[str, str] = {}


class SubsetStep(Strict):
    """Settings of one point of the curve."""

    rows: Positive


class CurveStep(Strict):
    """Settings of the curve's page."""

    project: str
    metric: str = "coverage"
    target: Rate | None = None
    simulated: bool = False


class ControlStep(Strict):
    control: Literal["shuffled_answers", "blanked_contexts"]


class GateStep(GateConfig):
    control: str | None = None
    max_flips: Rate = 0.1


class BiasItemsStep(BiasPrompts):
    """Settings of the swapped prompts; `digests` bind the files that they are made from."""

    digests: dict[str, str] = {}


class AugmentStep(BiasPrompts):
    """Settings of counterfactual augmentation; `digests` as above."""

    digests: dict[str, str] = {}


class BiasStep(BiasRules, Paid):
    """Settings of the bias report; `digests` bind the file of people's scores."""

    judge: ServiceConfig | None = None
    digests: dict[str, str] = {}
    mitigate: str = ""
    """The command that the report proposes when something is flagged; empty in a mitigated run."""


class RegisterStep(RegisterConfig):
    """What the model card says besides the numbers."""

    control: str | None = None
    teacher: ServiceConfig | None = None
    judge: ServiceConfig | None = None
    service: ServiceConfig | None = None
    licences: list[str] = []
    decoding: AnswerConfig = AnswerConfig()
    metric: str = "coverage"
    """Metric by which the decoding was chosen on dev."""


class ReportStep(Strict):
    project: str
    metric: str = "coverage"
    similarity: Grade = 70
    precision: Grade = 70
    bar: Rate | None = None
    simulated: list[str] = []
    control: str | None = None
    licences: list[str] = []
