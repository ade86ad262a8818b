"""The whole file, and what its `size:` derives."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from understudy.config.bias import BiasConfig
from understudy.config.data import CleanConfig, DedupeConfig, SourceConfig, SplitConfig
from understudy.config.evals import AnswerConfig, CanaryConfig, GateConfig, LoopConfig, PromptsConfig, ScoreConfig
from understudy.config.models import BaseConfig, PackConfig, ServiceConfig, SynthesizeConfig, TrainConfig
from understudy.config.operation import (
    NotifyConfig,
    RegisterConfig,
    ServeConfig,
    TrafficConfig,
    UploadConfig,
    WatchConfig,
)
from understudy.config.values import EXECUTION, Name, Strict


class Config(Strict):
    """The whole `understudy.yaml`."""

    version: Literal[1]
    """Schema version of this file."""
    name: Name
    """Project and model name."""
    size: Literal["toy", "small", "full"] = "toy"
    """One dial that derives training, packing and synthesis sizes; any value below overrides it."""
    sources: list[SourceConfig] = Field(min_length=1, max_length=100)
    """Where the rows come from."""
    coverage: SourceConfig | None = None
    """The coverage set: (prompt, answer) pairs that you are happy with."""
    prompts: PromptsConfig | None = None
    """Requests without a reference answer that dev and held are made of, instead of a coverage set."""
    clean: CleanConfig = CleanConfig()
    dedupe: DedupeConfig = DedupeConfig()
    split: SplitConfig = SplitConfig()
    teacher: ServiceConfig | None = None
    """Writes examples from the coverage seeds; without it, collected examples are the training data."""
    judge: ServiceConfig | None = None
    """Grades answers; without it only reference scorers run."""
    second_judge: ServiceConfig | None = None
    """Grades the candidate's held answers too; `understudy calibrate` tells whether the decision depends on the
    judge."""
    service: ServiceConfig | None = None
    """The rented model itself, answered and judged beside the candidate; its column in the report."""
    synthesize: SynthesizeConfig = SynthesizeConfig()
    base: BaseConfig = BaseConfig()
    pack: PackConfig = PackConfig()
    train: TrainConfig = TrainConfig()
    answer: AnswerConfig = AnswerConfig()
    score: ScoreConfig = ScoreConfig()
    loop: LoopConfig = LoopConfig()
    bias: BiasConfig | None = None
    """The bias experiment; without this section there is none."""
    canary: CanaryConfig = CanaryConfig()
    gate: GateConfig = GateConfig()
    register_: RegisterConfig = Field(default=RegisterConfig(), alias="register")
    serve: ServeConfig = Field(default=ServeConfig(), json_schema_extra=EXECUTION)
    traffic: TrafficConfig = Field(default=TrafficConfig(), json_schema_extra=EXECUTION)
    watch: WatchConfig = Field(default=WatchConfig(), json_schema_extra=EXECUTION)
    upload: UploadConfig = Field(default=UploadConfig(), json_schema_extra=EXECUTION)
    notify: NotifyConfig | None = Field(default=None, json_schema_extra=EXECUTION)
    """Who is told what happens; without it, nobody."""

    @model_validator(mode="after")
    def _needs_what_it_uses(self) -> Config:
        if self.prompts and self.coverage:
            raise PydanticCustomError("cfg_missing", "give `prompts` or a `coverage` set, not both", {"key": "prompts"})
        if self.teacher and not self.coverage:
            raise PydanticCustomError(
                "cfg_missing", "`teacher` needs a `coverage` set to write from", {"key": "teacher"}
            )
        if self.bias and self.bias.rubric == "judge" and not self.judge:
            raise PydanticCustomError("cfg_missing", "`bias.rubric: judge` needs a `judge`", {"key": "bias rubric"})
        if "judge" in self.score.by.values() and not self.judge:
            raise PydanticCustomError(
                "cfg_missing", "`score.by` takes a metric from the `judge`, which is not set", {"key": "judge"}
            )
        if self.score.verdicts > 1 and self.judge and not self.judge.temperature:
            what = "`score.verdicts` above 1 needs `judge.temperature` above 0: a greedy judge only repeats itself"
            raise PydanticCustomError("cfg_missing", what, {"key": "judge temperature"})
        if self.synthesize.faithful and not self.judge:
            raise PydanticCustomError(
                "cfg_missing", "`synthesize.faithful` needs a `judge`", {"key": "synthesize faithful"}
            )
        if self.second_judge and not self.judge:
            raise PydanticCustomError("cfg_missing", "`second_judge` needs a `judge` to compare with", {"key": "judge"})
        if self.loop.rounds > 1 and not self.teacher and "rounds" in self.loop.model_fields_set:
            raise PydanticCustomError("cfg_missing", "`loop.rounds` above 1 needs a `teacher`", {"key": "loop rounds"})
        if self.loop.budget is not None:
            roles = {"teacher": self.teacher, "judge": self.judge, "service": self.service}
            roles |= {"second_judge": self.second_judge}
            for role, service in roles.items():
                if service and service.price is None and service.provider != "simulated":
                    what = f"`loop.budget` needs the price of every rented model: write `{role}: {{price: ...}}`"
                    raise PydanticCustomError("cfg_missing", what, {"key": f"{role} price"})
        if self.serve.policy == "service_first" and not self.service:
            raise PydanticCustomError("cfg_missing", "`policy: service_first` needs a `service`", {"key": "serve"})
        return self

    @model_validator(mode="after")
    def _web(self) -> Config:
        names = [source.name or "web" for source in self.web_sources()]
        if len(set(names)) < len(names):
            raise PydanticCustomError("cfg_range", "two web sources have the same name: give each its `name`")
        if self.coverage and self.coverage.kind == "web":
            raise PydanticCustomError("cfg_range", "a coverage set is a file or a query, no web source")
        return self

    def web_sources(self) -> list[SourceConfig]:
        """The sources that go by day."""
        return [source for source in self.sources if source.kind == "web"]


SIZES: dict[str, dict[str, dict[str, object]]] = {
    "toy": {},
    "small": {
        "pack": {"seq_len_tokens": 2048},
        "train": {"learning_rate": 2e-4, "epochs": 3.0, "rows_per_step": 8},
        "answer": {"max_new_tokens": 256, "batch_size": 16},
        "synthesize": {"rows": 2000},
    },
    "full": {
        "pack": {"seq_len_tokens": 4096},
        "train": {"learning_rate": 1e-4, "epochs": 2.0, "rows_per_step": 16},
        "answer": {"max_new_tokens": 512, "batch_size": 32},
        "synthesize": {"rows": 10_000},
    },
}
"""What `size:` derives, by stage; `toy` is the models' own defaults."""
