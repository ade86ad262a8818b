"""Measures on this machine, for some seconds, how fast the base trains and reads prompts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from understudy.config import Config, TrainConfig
from understudy.forecast.computing import MICRO_TOKENS, NARROW, Probed
from understudy.forecast.effort import Shape, training

LIMIT_S = 1.5
"""For each of the two: after the first pass, which warms up, none begins later than this."""
PROMPT, BATCH = 192, 16


def measure(cfg: Config, root: Path) -> Probed:
    """Operations a second of optimizer steps and of prompts on the base, in the plan's shapes."""
    import torch

    from understudy.models.base_files import locate
    from understudy.train.sft import load_model

    folder = locate(cfg.base.path, root)
    shape = Shape.read(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    causal = load_model(folder).to(device).eval()
    prompts = torch.ones((BATCH, PROMPT), dtype=torch.int64, device=device)  # (batch, seq)

    def read() -> None:
        with torch.inference_mode():
            causal(input_ids=prompts, use_cache=False, logits_to_keep=1).logits.sum().item()

    answering = rate(shape.forward(BATCH * PROMPT, PROMPT), read)
    rows = max(1, min(MICRO_TOKENS, cfg.train.rows_per_step * cfg.pack.seq_len_tokens) // NARROW)
    operations = training(shape, cfg.train.method, rows * NARROW, NARROW)
    return Probed(rate(operations, _optimizer_step(causal, cfg.train, rows, device)), answering)


def _optimizer_step(causal: Any, cfg: TrainConfig, rows: int, device: str) -> Callable[[], None]:
    """One step of training as `train.sft` takes it, on made-up tokens."""
    import torch

    from understudy.train.adapters import trainable
    from understudy.train.sft import token_losses

    learning = trainable(causal, cfg)[1]
    optimizer = torch.optim.AdamW(learning.values(), lr=0.0)
    ids = torch.ones((rows, NARROW), dtype=torch.int64, device=device)  # (batch, seq)
    learnt = (torch.arange(NARROW, device=device) % 6 == 0).long().expand(rows, NARROW)
    places = torch.arange(NARROW, device=device).expand(rows, NARROW)

    def step() -> None:
        token_losses(causal, ids, learnt, places).mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def rate(operations: float, work: Callable[[], None]) -> float:
    """Operations a second of the median pass: a run will share the machine with what shares it now."""
    work()
    begin = time.monotonic()
    passes: list[float] = []
    while not passes or time.monotonic() - begin < LIMIT_S:
        start = time.monotonic()
        work()
        passes.append(time.monotonic() - start)
    return operations / max(statistics.median(passes), 1e-6)
