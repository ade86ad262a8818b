"""Opens a service LLM for the length of a stage; the simulated one is started here, as real HTTP on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.config import ServiceConfig
from understudy.core.records import Example

if TYPE_CHECKING:
    from understudy.models.service import ServiceModel


@contextmanager
def connect(
    cfg: ServiceConfig, *, role: str, cache: Path | None, knowledge: Sequence[Example] = ()
) -> Iterator[ServiceModel]:
    """A client for `cfg`. `knowledge`: training rows that a simulated service answers ordinary chats from."""
    from understudy.models.service import ServiceModel

    if cfg.provider != "simulated" or cfg.base_url:
        yield ServiceModel(cfg, cache=cache, role=role)
        return
    from understudy.models.simulated import SimulatedService

    with SimulatedService(knowledge, wrong_rate=cfg.wrong_rate) as service:
        yield ServiceModel(cfg, base_url=service.base_url, cache=cache, role=role)
