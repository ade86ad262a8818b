"""What happens to a release after the gate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from understudy.config.values import Name, Positive, Strict

Seconds = Annotated[float, Field(gt=0, le=86_400)]


class RegisterConfig(Strict):
    """The registry entry of a passed release."""

    name: Name = "understudy"
    """Name of the model in the registry."""


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
