"""Every test runs offline, with the same Hypothesis examples each time, and outside the user's own settings."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from understudy.models.service import ServiceModel

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

# Under nohup or in a shell's background, signals are ignored, and understudy rightly leaves them so: tests that send
# them to a process of their own must not inherit that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# A failure must be the same one for everybody: no random examples, no database beside the sources, no deadline on a
# busy machine.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture
def opened() -> Iterator[Callable[[ServiceModel], ServiceModel]]:
    """Takes service clients and closes them when the test is over."""
    with ExitStack() as stack:
        yield lambda model: stack.enter_context(closing(model))


@pytest.fixture(scope="session")
def advisor() -> ModuleType:
    """The course advisor's generator as a module."""
    path = Path(__file__).parents[1] / "examples/course-advisor/generate.py"
    spec = importlib.util.spec_from_file_location("course_advisor_generate", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Two test processes with two threads each on two cores wait for each other; results do not change."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
