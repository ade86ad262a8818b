"""What every section shares: the strict model, units and bounds of values."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

VERSION = 1
"""Schema version of `understudy.yaml` that this release reads."""

EXECUTION: JsonDict = {"execution": True}
"""Marks a setting that says how a step is carried out, not what it makes: no part of a fingerprint."""

OWN_FOLDERS = ("store", "runs", "cache", "registry", "traffic", "plan", "work")
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
