"""Every setting of `understudy.yaml`, as pydantic models; the docstring under a field is its help.

Strict: unknown keys, wrong types and out-of-range values are refused. `configfile` reads the file and reports the
line; SIZES holds what `size:` derives. The models under a stage's key are that stage's config, hence its identity,
but for the fields marked EXECUTION.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

VERSION = 1
"""Schema version of `understudy.yaml` that this release reads."""

EXECUTION: JsonDict = {"execution": True}
"""Marks a setting that says how a step is carried out, not what it makes: no part of a fingerprint."""

OWN_FOLDERS = ("store", "runs", "cache", "registry")
"""What a project writes itself; no glob reaches into it."""

Rate = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Grade = Annotated[int, Field(ge=1, le=100)]
Count = Annotated[int, Field(ge=0, le=100_000_000)]
Positive = Annotated[int, Field(ge=1, le=100_000_000)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class FieldMap(Strict):
    """Which column of the source holds what. Give `text`, or `messages`, or a prompt and a response."""

    id: str | None = None
    """Column with the row's own id; without it the id is a digest of the content."""
    text: str | None = None
    """Column with a document's text."""
    messages: str | None = None
    """Column with a chat: a list of {role, content}."""
    prompt: str | None = None
    """Column with the user's whole prompt."""
    response: str | None = None
    """Column with the answer to `prompt` or `question`."""
    context: str | None = None
    """Column with the passage that holds the answer."""
    question: str | None = None
    """Column with the question about `context`."""
    facts: str | None = None
    """Column with the facts that a right answer must name: a list of strings (coverage pairs)."""
    category: str | None = None
    """Column with the kind of request; quota is aimed by category."""
    group: str | None = None
    """Column with the group that must not straddle splits (a professor, a customer, a document)."""


class SourceConfig(Strict):
    """One source of rows."""

    kind: Literal["files", "sql"] = "files"
    """`files` reads path; `sql` runs a query through SQLAlchemy."""
    path: str | None = None
    """File or glob, relative to the project."""
    format: Literal["auto", "jsonl", "json", "csv", "squad"] = "auto"
    """`auto` goes by the suffix; `squad` reads SQuAD-format JSON."""
    url: str | None = None
    """SQLAlchemy URL, e.g. `sqlite:///data/catalogue.db` (relative to the project) or `${env:DATABASE_URL}`."""
    query: str | None = None
    """SQL text of one SELECT."""
    query_file: str | None = None
    """File with the SQL, relative to the project."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    """Column separator of CSV files."""
    fields: FieldMap = FieldMap()
    """Which column holds what."""
    text_template: str | None = None
    """Python format string that makes a document's text from the row's columns, e.g. `{title}. {body}`."""
    licence: str | None = None
    """Licence of these rows; carried to the model card."""
    max_bad_rows: Count = 100
    """More quarantined rows than this stop the run with exit code 3."""
    max_row_bytes: Positive = 8_000_000
    """Longer rows are quarantined unread."""

    @model_validator(mode="after")
    def _complete(self) -> SourceConfig:
        if self.kind == "files" and not self.path:
            raise PydanticCustomError("cfg_missing", "a source of kind files needs `path`")
        if self.kind == "sql" and (not self.url or bool(self.query) == bool(self.query_file)):
            raise PydanticCustomError(
                "cfg_missing", "a source of kind sql needs `url` and one of `query` and `query_file`"
            )
        return self


class CollectConfig(Strict):
    """Reads the sources into records; bad rows are quarantined with a reason."""

    sources: list[SourceConfig] = Field(default=[], max_length=100)
    digests: dict[str, str] = {}
    """Bound by the run: a digest per source, so that identity follows the content."""


class CleanConfig(Strict):
    """Text is normalised (NFC, control characters, line ends); rows outside the limits are dropped with a reason."""

    min_chars: Count = 1
    """Shorter texts are dropped."""
    max_chars: Positive = 200_000
    """Longer texts are dropped."""
    strip_markup: bool = True
    """Remove HTML tags and entities."""


class DedupeConfig(Strict):
    """Exact duplicates are dropped."""

    normalise: bool = True
    """Compare after case folding and white-space folding."""


class SplitConfig(Strict):
    """How documents and coverage pairs are divided. A group never straddles splits."""

    validation: Rate = 0.1
    """Share of the examples that do not train; their loss is logged after each epoch of training."""
    test: Rate = 0.1
    """Share of the documents scored once, at the end."""
    seed_pairs: Count = 60
    """Coverage pairs shown to the teacher."""
    dev_pairs: Count = 60
    """Coverage pairs that steer rounds; all others are held."""
    seed: Count = 0
    """Seed of the division."""

    @model_validator(mode="after")
    def _sum(self) -> SplitConfig:
        if self.validation + self.test >= 1.0:
            total = f"{self.validation + self.test:g}"
            raise PydanticCustomError(
                "cfg_range", "validation + test is {total}, wanted a sum under 1", {"total": total}
            )
        return self


class ServiceConfig(Strict):
    """A language model behind the OpenAI protocol."""

    provider: Literal["simulated", "openai"] = "simulated"
    """`simulated` starts the scripted service on this machine; `openai` is any OpenAI-compatible endpoint."""
    model: str = "simulated-1"
    """Model id sent with each request."""
    base_url: str | None = None
    """Endpoint, e.g. `https://api.example.com/v1`; for `simulated`, an already running one."""
    api_key: str | None = None
    """Only by reference: `${env:NAME}`."""
    concurrency: Annotated[int, Field(ge=1, le=256, json_schema_extra=EXECUTION)] = 8
    """Requests in flight at once."""
    timeout_s: Annotated[float, Field(gt=0, le=3600, json_schema_extra=EXECUTION)] = 60.0
    """Deadline of one request, retries included."""
    max_attempts: Annotated[int, Field(ge=1, le=20, json_schema_extra=EXECUTION)] = 5
    """Tries of one request."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """0 is greedy."""
    max_tokens: Positive = 2048
    """Longest reply, in tokens."""
    wrong_rate: Rate = 0.0
    """Simulated service only: share of synthetic answers that state another fact of the same document (a negative
    control)."""
    terms_url: str | None = None
    """Where the provider says whether its output may train a model; copied into the model card."""


class SynthesizeConfig(Strict):
    """How many examples the teacher writes, and how."""

    rows: Positive = 240
    """Rows asked for in each round."""
    rows_per_call: Annotated[int, Field(ge=1, le=50)] = 4
    """Rows asked for in each request."""
    seeds_per_call: Annotated[int, Field(ge=1, le=20)] = 4
    """Seed pairs shown in each request."""
    targeted: bool = True
    """From round 2 on, aim the quota at the categories that failed on dev."""
    min_yield: Rate = 0.3
    """Stop when fewer than this share of the first asked rows survive the filters."""
    seed: Count = 0
    """Seed of the order in which seeds and documents are shown."""


class BaseConfig(Strict):
    """The model that is fine-tuned."""

    path: str = "tiny"
    """`tiny` (the shipped fixture) or a folder with a transformers model, relative to the project."""
    digest: str = ""
    """Bound by the run: digest of the model's files."""


class PackConfig(Strict):
    """Examples are packed into rows of one length."""

    seq_len_tokens: Annotated[int, Field(ge=16, le=1_000_000)] = 1024
    """Length of a packed row, in tokens."""
    max_truncated: Rate = 0.5
    """A larger share of truncated rows stops the run."""


class TrainConfig(Strict):
    """Fine-tuning of the base."""

    method: Literal["lora", "full"] = "lora"
    """`lora` trains adapters; `full` trains every weight."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 2e-3
    """Peak learning rate."""
    epochs: Annotated[float, Field(ge=0, le=1000)] = 4.0
    """Passes over the packed rows."""
    max_steps: Count | None = None
    """Optimizer steps; overrides `epochs` (0 leaves the model untrained)."""
    rows_per_step: Annotated[int, Field(ge=1, le=4096)] = 2
    """Packed rows per optimizer step."""
    warmup: Rate = 0.05
    """Share of the steps with a rising learning rate; then cosine to a tenth."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Decoupled weight decay of AdamW."""
    clip_norm: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Largest gradient norm; longer gradients are scaled down to it."""
    lora_rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the LoRA adapters."""
    lora_alpha: Annotated[float, Field(gt=0, le=10_000)] = 32.0
    """LoRA scale: adapters are multiplied by lora_alpha / lora_rank."""
    lora_dropout: Rate = 0.0
    """Dropout before the LoRA adapters."""
    save_every_steps: Annotated[Positive, Field(json_schema_extra=EXECUTION)] = 100
    """A crash loses at most this many optimizer steps."""
    seed: Count = 0
    """Seed of initial adapters, order and dropout."""


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


class RegisterConfig(Strict):
    """The registry entry of a passed release."""

    name: Name = "understudy"
    """Name of the model in the registry."""


class ServeConfig(Strict):
    """The OpenAI-compatible endpoint."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Port to listen on; 0 takes a free one."""
    max_body_bytes: Positive = 1_000_000
    """Larger requests are refused unread."""


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
    clean: CleanConfig = CleanConfig()
    dedupe: DedupeConfig = DedupeConfig()
    split: SplitConfig = SplitConfig()
    teacher: ServiceConfig | None = None
    """Writes examples from the coverage seeds; without it, collected examples are the training data."""
    judge: ServiceConfig | None = None
    """Grades answers; without it only reference scorers run."""
    service: ServiceConfig | None = None
    """The rented model itself, answered and judged beside the candidate; its column in the report."""
    synthesize: SynthesizeConfig = SynthesizeConfig()
    base: BaseConfig = BaseConfig()
    pack: PackConfig = PackConfig()
    train: TrainConfig = TrainConfig()
    answer: AnswerConfig = AnswerConfig()
    score: ScoreConfig = ScoreConfig()
    loop: LoopConfig = LoopConfig()
    gate: GateConfig = GateConfig()
    register_: RegisterConfig = Field(default=RegisterConfig(), alias="register")
    serve: ServeConfig = ServeConfig()

    @model_validator(mode="after")
    def _teacher_needs_coverage(self) -> Config:
        if self.teacher and not self.coverage:
            raise PydanticCustomError(
                "cfg_missing", "`teacher` needs a `coverage` set to write from", {"key": "teacher"}
            )
        if self.loop.rounds > 1 and not self.teacher and "rounds" in self.loop.model_fields_set:
            raise PydanticCustomError("cfg_missing", "`loop.rounds` above 1 needs a `teacher`", {"key": "loop rounds"})
        return self


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


CONTROLS = ("shuffled_answers", "blanked_contexts", "untrained_adapter", "wrong_teacher")
"""Negative controls of `understudy run --control`; each must fail the gate."""


class SynthesizeStep(SynthesizeConfig):
    """Settings of one round's synthesis."""

    teacher: ServiceConfig
    round: Positive = 1
    metric: str = "coverage"


class AnswerStep(AnswerConfig):
    """Settings of one model's answers to one prompt set."""

    who: str
    metric: str = "coverage"
    """Metric by which the few-shot setting was chosen on dev."""


class AskStep(AnswerConfig):
    """Settings of the service LLM's own answers."""

    service: ServiceConfig


class ScoreStep(ScoreConfig):
    """Settings of the scores of one model on one prompt set."""

    who: str
    round: Count = 0
    judge: ServiceConfig | None = None
    metric: str = "coverage"
    target: Rate = 1.0


class SelectStep(Strict):
    """Settings of the choice among the rounds' models, on dev."""

    metric: str = "coverage"


class ControlStep(Strict):
    control: Literal["shuffled_answers", "blanked_contexts"]


class GateStep(GateConfig):
    control: str | None = None


class RegisterStep(RegisterConfig):
    """What the model card says besides the numbers."""

    control: str | None = None
    teacher: ServiceConfig | None = None
    judge: ServiceConfig | None = None
    service: ServiceConfig | None = None
    licences: list[str] = []
    decoding: AnswerConfig = AnswerConfig()


class ReportStep(Strict):
    project: str
    metric: str = "coverage"
    similarity: Grade = 70
    precision: Grade = 70
    bar: Rate | None = None
    simulated: list[str] = []
    control: str | None = None
    licences: list[str] = []
