"""What happens to a release after the gate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from understudy.config.data import StorageConfig
from understudy.config.values import Name, Positive, Rate, Strict

Seconds = Annotated[float, Field(gt=0, le=86_400)]


class RegisterConfig(Strict):
    """The registry entry of a passed release."""

    name: Name = "understudy"
    """Name of the model in the registry."""


Event = Literal["data", "training", "results", "bias", "failure", "alert"]


class NotifyConfig(Strict):
    """Mails and messages about a run."""

    to: list[Annotated[str, Field(min_length=1, max_length=2000)]] = Field(min_length=1, max_length=50)
    """Recipients as Apprise addresses, e.g. `mailtos://user:${env:MAIL_PASSWORD}@mail.example.org?to=team@example.org`,
    or a whole address by reference: `${env:NOTIFY_URL}`."""
    events: list[Event] = ["data", "training", "results", "bias", "failure", "alert"]
    """What is told: data ready, training done, results, bias report, failure, alerts of `understudy watch`."""
    link: str | None = None
    """Address under which people reach the project's `runs` folder; without it, messages name the folder."""


class FailoverConfig(Strict):
    """How long the service may take, and when it is left alone; times in seconds."""

    connect_s: Seconds = 2.0
    """Until the connection stands."""
    first_token_s: Seconds = 8.0
    """Until the first token, connecting included; the understudy takes over then."""
    gap_s: Seconds = 15.0
    """Between two tokens."""
    deadline_s: Seconds = 120.0
    """Until the answer is whole."""
    failures: Annotated[int, Field(ge=1, le=1000)] = 3
    """Failed answers in a row after which the service is not asked for a while."""
    cool_down_s: Seconds = 10.0
    """That while; then a single request tries the service again."""


class ServeConfig(Strict):
    """The OpenAI-compatible endpoint."""

    policy: Literal["understudy", "service_first"] = "understudy"
    """`understudy` answers alone; `service_first` asks the model in `service:`, and the understudy when it fails."""
    failover: FailoverConfig = FailoverConfig()

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Port to listen on; 0 takes a free one."""
    max_body_bytes: Positive = 1_000_000
    """Larger requests are refused unread."""


class TrafficConfig(Strict):
    """The log of what was asked and answered, in `traffic/traffic.db`."""

    store: Literal["off", "metadata", "content"] = "metadata"
    """`metadata` keeps times, counts and who answered; `content` also messages and answers, with consent."""
    consent: Literal["required", "assumed"] = "required"
    """`required` keeps the content of requests that say yes; `assumed` of all that do not say no."""
    retention_days: Annotated[int, Field(ge=1, le=36_500)] = 90
    """Older rows are removed."""
    distance: bool = True
    """Keep how far a question lies from the nearest training prompt (a number, no text); drift is found by it."""


class WatchConfig(Strict):
    """What `understudy watch` looks at, and what it does about it."""

    every_s: Annotated[int, Field(ge=1, le=31_536_000)] = 3600
    """Seconds between two checks."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """Chance of a drift alarm per check when nothing has changed."""
    min_queries: Annotated[int, Field(ge=20, le=1_000_000)] = 50
    """A check for drift waits until so many new queries are there."""
    one_per_key: bool = False
    """Count one query per key and check: queries of one user are not independent of each other."""
    max_failover: Rate = 0.2
    """Alarm when the understudy surely took over a larger share than this."""
    max_errors: Rate = 0.05
    """Alarm when surely a larger share than this failed for no fault of the caller's."""
    on_drift: Literal["alert", "retrain"] = "alert"
    """`retrain` also harvests the log and runs the life cycle again."""


class UploadConfig(Strict):
    """Where `understudy upload` puts the prepared data of the last run."""

    to: str | None = None
    """Folder in an object store, e.g. `s3://bucket/prefix`, or on this machine; `--to` overrides it."""
    what: Annotated[
        list[Literal["train", "validation", "documents", "seed", "dev", "held"]], Field(min_length=1, max_length=6)
    ] = ["train", "validation"]
    """Which splits. `train` holds collected and synthesized examples; `held` is what the gate decides on."""
    format: Literal["messages", "jsonl", "parquet", "csv"] = "messages"
    """`messages`: chat JSON Lines for supervised tuning; `jsonl`, `parquet`: whole records; `csv`: for people."""
    storage: StorageConfig = StorageConfig()
    """How the object store is reached."""
