"""Every test runs offline, with the same Hypothesis examples each time, and outside the user's own settings."""

from __future__ import annotations

import os

from hypothesis import settings

# Before any test imports transformers or mlflow; processes that tests start inherit it.
os.environ.update(
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="1",
)
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("OPENAI_API_KEY", None)
os.environ.pop("OPENAI_BASE_URL", None)

# A failure must be the same one for everybody: no random examples, no database beside the sources, no deadline on a
# busy machine.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")
