"""The service LLMs, the base, and how it is fine-tuned."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from understudy.config.values import EXECUTION, Count, Positive, Rate, Strict

ProviderName = Literal["simulated", "openai", "gemini", "vertex", "anthropic", "mistral", "vllm", "ollama"]
Money = Annotated[float, Field(ge=0, le=1_000_000)]


class Price(Strict):
    """What a service takes for its tokens, in the currency of your budget."""

    prompt: Money
    """For a million tokens of prompts."""
    completion: Money
    """For a million tokens of replies, reasoning included."""


class ServiceConfig(Strict):
    """A language model behind the OpenAI protocol."""

    provider: ProviderName = "simulated"
    """`simulated` starts the scripted service on this machine; `openai` is OpenAI, or with `base_url` any endpoint of
    that protocol; the others are presets, see docs/providers.md."""
    model: str = "simulated-1"
    """Model id sent with each request."""
    base_url: str | None = None
    """Endpoint, e.g. `https://api.example.com/v1`, in place of the preset's; for `simulated`, one that already runs."""
    project: str | None = None
    """Vertex only: the Google Cloud project."""
    location: str = "global"
    """Vertex only: the region, e.g. `europe-west4`."""
    api_key: str | None = None
    """Only by reference: `${env:NAME}`. Without it, the variable that the preset names."""
    price: Annotated[Price | None, Field(json_schema_extra=EXECUTION)] = None
    """Money per million tokens, for the budget and the estimate; without it, requests count as free."""
    requests_per_minute: Annotated[int | None, Field(ge=1, le=1_000_000, json_schema_extra=EXECUTION)] = None
    """Requests are spread out to stay under this; without it, no limit."""
    tokens_per_minute: Annotated[int | None, Field(ge=1, le=1_000_000_000, json_schema_extra=EXECUTION)] = None
    """Tokens of prompt and reply; requests are spread out to stay under this; without it, no limit."""
    json_mode: Literal["auto", "schema", "object", "text"] = "auto"
    """How JSON is asked for: held to a JSON `schema`, any JSON `object`, the prompt alone (`text`); `auto` is the
    strictest that the preset's endpoint takes."""
    concurrency: Annotated[int, Field(ge=1, le=256, json_schema_extra=EXECUTION)] = 8
    """Requests in flight at once."""
    timeout_s: Annotated[float, Field(gt=0, le=3600, json_schema_extra=EXECUTION)] = 60.0
    """Deadline of one request, retries included."""
    max_attempts: Annotated[int, Field(ge=1, le=20, json_schema_extra=EXECUTION)] = 5
    """Tries of one request."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.0
    """0 is greedy; null leaves the field out, for models that refuse it."""
    max_tokens: Positive = 2048
    """Longest reply, in tokens."""
    wrong_rate: Rate = 0.0
    """Simulated service only: share of synthetic answers that state another fact of the same document (a negative
    control)."""
    terms_url: str | None = None
    """Where the provider says whether its output may train a model, in place of the preset's; copied into the model
    card."""

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is None or value.startswith("${"):
            return value
        try:
            parts = urlsplit(value)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port that is none
            good = False
        if not good:
            raise PydanticCustomError("cfg_range", "must be an address such as https://host:8000/v1")
        return value

    @model_validator(mode="after")
    def _has_an_address(self) -> ServiceConfig:
        if self.provider == "vertex" and not (self.base_url or self.project):
            raise PydanticCustomError("cfg_missing", "provider `vertex` needs `project`, or a whole `base_url`")
        return self


class FaithfulConfig(Strict):
    """A judge reads every row that would be kept; one call a row."""

    by: Literal["judge"] = "judge"
    """Who grades: the project's `judge`."""
    min_grade: Annotated[int, Field(ge=1, le=5)] = 4
    """Rows below this grade (1 to 5) are rejected, with the judge's reason."""
    prompt: str | None = None
    """Template of what the judge is asked, a file relative to the project; without it, the one that ships."""


class SynthesizeConfig(Strict):
    """How many examples the teacher writes, and how."""

    prompt: str | None = None
    """Template of the request, a file relative to the project; without it, the one that ships (docs/synthesis.md).
    `understudy prompts` writes a copy to edit."""
    rows: Positive = 240
    """Rows asked for in each round."""
    rows_per_call: Annotated[int, Field(ge=1, le=50)] = 4
    """Rows asked for in each request."""
    seeds_per_call: Annotated[int, Field(ge=1, le=20)] = 4
    """Seed pairs shown in each request."""
    targeted: bool = True
    """From round 2 on, aim the quota at what failed on dev."""
    cells: list[Literal["category", "group", "length"]] = ["category", "group", "length"]
    """What an aimed quota is divided by: the category, the group of the documents, and the length of the question in
    terciles of dev's. `[category]` aims by category alone."""
    min_yield: Rate = 0.3
    """Stop when fewer than this share of the first asked rows survive the filters."""
    faithful: FaithfulConfig | None = None
    """Have a judge check each row against its document; without it, facts and numbers are checked alone."""
    seed: Count = 0
    """Seed of the order in which seeds and documents are shown."""

    @model_validator(mode="after")
    def _cells(self) -> SynthesizeConfig:
        if "category" not in self.cells or len(set(self.cells)) < len(self.cells):
            what = "`cells` names `category`, and `group` and `length` at most once each"
            raise PydanticCustomError("cfg_range", what, {"key": "cells"})
        return self


class BaseConfig(Strict):
    """The model that is fine-tuned."""

    path: str = "tiny"
    """`tiny` (the shipped fixture, English), `tiny-ru` (Russian) or a folder with a transformers model, relative to the
    project."""
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
