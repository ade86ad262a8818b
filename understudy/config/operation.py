"""What happens to a release after the gate."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from understudy.config.values import Name, Positive, Strict


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
