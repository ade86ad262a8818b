"""How models answer, how answers are graded, and what decides."""

from __future__ import annotations

from string import Formatter
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from understudy.config.values import EXECUTION, Count, Grade, Name, Positive, Rate, Strict


class PromptsConfig(Strict):
    """Requests without a reference answer, made from a template; they are dev and held where no coverage set is."""

    template: str = Field(min_length=1, max_length=20_000)
    """The user's request with placeholders, e.g. `A forecast for {city} on {date}.`"""
    values: dict[Name, list[str]] = Field(default={}, max_length=10)
    """What each placeholder stands for in turn; every combination is one request."""
    category: Name | None = None
    """Placeholder whose value is the request's category in tables."""
    date_format: str = "%Y-%m-%d"
    """How `{date}` is written (strftime)."""
    min_answer_chars: Count = 0
    """Shortest answer that is wanted; `within_length` measures it."""
    max_answer_chars: Positive | None = None
    """Longest answer that is wanted."""
    dev_days: Annotated[int, Field(ge=1, le=366)] = 2
    """With `{date}`: dev asks for `as_of` and the days before it, so many in all."""
    held_days: Annotated[int, Field(ge=1, le=366)] = 2
    """With `{date}`: held asks for so many days after `as_of`."""

    @model_validator(mode="after")
    def _placeholders(self) -> PromptsConfig:
        try:
            parts = list(Formatter().parse(self.template))
        except ValueError as e:
            raise PydanticCustomError("cfg_range", "the template is broken: {why}", {"why": str(e)}) from None
        named = {name for _, name, _, _ in parts if name is not None}
        known = self.values.keys() | {"date"}
        if "date" in self.values:
            raise PydanticCustomError("cfg_range", "`date` is the day itself; name the placeholder otherwise", {})
        for wrong in sorted(named - known):
            what = "the template names {placeholder}, which `values` lacks"
            raise PydanticCustomError("cfg_range", what, {"placeholder": f"{{{wrong}}}"})
        for unused in sorted(self.values.keys() - named):
            what = "the template does not use {placeholder}"
            raise PydanticCustomError("cfg_range", what, {"placeholder": f"{{{unused}}}"})
        if not named:
            raise PydanticCustomError("cfg_range", "the template has no placeholder", {})
        if self.category is not None and self.category not in self.values:
            raise PydanticCustomError("cfg_range", "`category` is no placeholder of `values`", {})
        return self

    @property
    def dated(self) -> bool:
        """Whether the requests depend on the day."""
        return any(name == "date" for _, name, _, _ in Formatter().parse(self.template))


class Decoding(Strict):
    """One way to draw answers."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: the likeliest tokens with this total probability are drawn from."""


class AnswerConfig(Strict):
    """How models answer prompt sets."""

    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 64
    """Longest answer, in tokens."""
    engine: Literal["transformers", "openvino"] = "transformers"
    """What computes a local model's answers, in the run and when its release is served. `openvino` (the extra of that
    name) is the faster one on a CPU, for Qwen2 and Llama."""
    batch_size: Annotated[int, Field(ge=1, le=4096, json_schema_extra=EXECUTION)] = 32
    """Prompts answered at once, with transformers."""
    shots: list[Annotated[int, Field(ge=1, le=64)]] = [1, 2, 4, 8]
    """Few-shot baselines tried on dev; the best one goes to held."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """0 is greedy; above it, `samples` answers are drawn per prompt."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: the likeliest tokens with this total probability are drawn from."""
    samples: Annotated[int, Field(ge=1, le=100)] = 1
    """Answers drawn per prompt when `temperature` is above 0."""
    grid: list[Decoding] = Field(default=[], max_length=50)
    """Decoding settings that the candidate is tried with on dev; the best one by `gate.metric` answers held and travels
    with the release. Overrides `temperature` and `top_p`."""
    seed: Count = 0
    """Seed of sampling."""


class ClassifierConfig(Strict):
    """A sequence-classification model that gives a score."""

    model: str
    """Folder with a transformers model, relative to this file, or a hub id (`org/name`)."""
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    """Commit of the hub id; a branch is refused, since it moves."""
    label: str | None = None
    """Label whose probability is the score; without it, the labels are a scale from worst to best."""
    digest: str = ""
    """Bound by the run: digest of the folder's files."""


Soft = Literal["relevance", "completeness", "faithfulness", "acceptability", "sentiment"]
"""Metrics that the judge or a classifier can give in place of the scorer that ships."""


class ScoreConfig(Strict):
    """Which scores are taken, and the thresholds of a covered answer."""

    scorers: list[str] = ["exact", "f1", "bleu", "chrf", "rouge1", "rouge2", "rougeL", "exact_facts"]
    """Scorers by name (docs/scorers.md); `coverage` and the judge's grades join when `judge` is set."""
    prompt: str | None = None
    """Template of what the judge is asked, a file relative to the project; without it, the one that ships."""
    by: dict[Soft, Literal["judge"] | ClassifierConfig] = {}
    """Soft metrics that `judge` or a classifier gives, e.g. `relevance: judge`; the others come from the own scorer."""
    similarity: Grade = 70
    """A covered answer has at least this judge grade for similarity."""
    precision: Grade = 70
    """A covered answer has at least this judge grade for precision."""
    verdicts: Annotated[int, Field(ge=1, le=20)] = 1
    """Times that the judge grades each answer; the means of its grades are held against the thresholds. Above 1 the
    judge needs a `temperature`."""
    early_stop: bool = True
    """On dev, stop judging once the interval of the candidate's rate reaches `loop.target` or cannot; held is always
    judged whole."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence of the intervals."""

    @model_validator(mode="after")
    def _by_is_scored(self) -> ScoreConfig:
        if unused := sorted(self.by.keys() - set(self.scorers)):
            what = f"`score.by` names {unused[0]}, which is not in `score.scorers`"
            raise PydanticCustomError("cfg_missing", what, {"key": "scorers"})
        return self


class LoopConfig(Strict):
    """Rounds of synthesis and training."""

    rounds: Annotated[int, Field(ge=1, le=20)] = 2
    """Rounds; each trains from the base on the union of all rows so far."""
    target: Rate = 1.0
    """Rounds after the lower bound of dev coverage reaches this are skipped."""
    grow: Annotated[float, Field(ge=0.1, le=10)] = 1.0
    """Each round asks for so many times the rows of the one before."""
    min_gain: Annotated[float | None, Field(ge=-1, le=1, allow_inf_nan=False)] = 0.0
    """Rounds after one that gained no more than this on dev are skipped; null runs all of them."""
    budget: Annotated[float | None, Field(ge=0, le=1e9, allow_inf_nan=False, json_schema_extra=EXECUTION)] = None
    """Money that teacher, judge and service may cost together in one run, in the currency of their `price`. A round
    that it would not pay for is skipped; whatever happens, the run stops before the budget is exceeded.
    With another budget, a run decides again whether a further round is begun."""
    compare_untargeted: bool = True
    """Train one more last round on as many rows without aim, for comparison."""


class CanaryConfig(Strict):
    """A fixed probe set that teacher and judge are asked again in every round."""

    probes: Annotated[int, Field(ge=0, le=200)] = 8
    """Seed pairs that are asked; 0 asks none."""
    max_flips: Rate = 0.1
    """Share of the judge's decisions on the probes that may differ from the first round's; more freeze the gate."""


class GateConfig(Strict):
    """Rules of the verdict."""

    metric: str = "coverage"
    """Metric of the bar and of the comparisons; without a judge `exact_facts`, `exact` or `loss` fits."""
    bar: Rate | None = 0.60
    """The lower end of the metric's interval on held must reach this; null for no bar."""
    must_beat: list[Literal["base", "few_shot", "champion"]] = ["base", "few_shot", "champion"]
    """Baselines that the candidate must beat: the paired interval of the difference lies above zero."""
    floors: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(default={}, max_length=20)
    """Further metrics and what the near end of their interval on held must reach: at least, or at most where lower is
    better."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence of the intervals that decide."""
