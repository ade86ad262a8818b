"""Opens a service LLM for the length of a stage; the simulated one is started here, as real HTTP on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.config import ServiceConfig
from understudy.core.records import Example, digest

if TYPE_CHECKING:
    from understudy.models.account import Account
    from understudy.models.service import ServiceModel


@contextmanager
def connect(
    cfg: ServiceConfig,
    *,
    role: str,
    cache: Path | None,
    knowledge: Sequence[Example] = (),
    account: Account | None = None,
) -> Iterator[ServiceModel]:
    """A client for `cfg`. `knowledge`: training rows that a simulated service answers ordinary chats from."""
    from understudy.models.service import ServiceModel

    if cfg.provider != "simulated" or cfg.base_url:
        with closing(ServiceModel(cfg, cache=cache, role=role, account=account)) as model:
            yield model
        return
    from understudy.models.simulated import SimulatedService

    # What a simulated service knows is no part of a request, so each knowledge has a cache of its own.
    known = cache / f"simulated-{digest([e.to_json() for e in knowledge], 12)}" if cache else None
    with (
        SimulatedService(knowledge, wrong_rate=cfg.wrong_rate) as service,
        closing(ServiceModel(cfg, base_url=service.base_url, cache=known, role=role, account=account)) as model,
    ):
        yield model
