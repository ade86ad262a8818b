"""The work of a step in units that do not depend on the machine, and the seconds that it takes.

Seconds = fixed + rows x per row + calls x latency / concurrency + operations / speed + decoding steps x their overhead.
The shipped rates are guesses; what earlier steps of this project took on this machine corrects them by one factor.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

from understudy.config import ServiceConfig
from understudy.forecast.figures import Figure

PER_CORE = 33e9
"""Floating-point operations a second and core in transformers on a CPU, about."""
ON_GPU = 2e13
"""The same on a GPU, about."""
DECODING_STEP_S = 0.0037
"""Overhead of one decoding step of a batch: Python, small tensors."""
LATENCY_S = {"simulated": 0.03}
"""Of one call, where it is not that of a rented model."""
RENTED_LATENCY_S, RENTED_TOKEN_S = 1.5, 0.015
"""Of a call to a rented model, and for each token of its reply."""
FIXED_S = {
    "synthesize": 0.5, "train": 1.5, "answer": 0.15, "answer_held": 0.15, "answer_bias": 0.15, "score": 0.15,
    "score_held": 0.15, "gate": 0.7, "bias": 0.3, "report": 0.15, "dedupe": 0.1, "collect_web": 30.0,
}  # fmt: skip
"""Of a step, whatever it works on; the others have FIXED_OTHER_S."""
FIXED_OTHER_S = 0.02
ROW_S = 0.0003
"""Of a row, or an answer, whatever is done with it."""
BACKWARD = {"lora": 2.0, "full": 3.0}
"""A training step in forward passes: with adapters the frozen weights need no gradients of their own."""
LONGEST = 1.6
"""The longest answer of a batch in mean answers: the batch goes on until it ends."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a model: all parameters, layers, width."""

    parameters: int
    layers: int
    hidden: int

    @classmethod
    def read(cls, folder: Path) -> Shape:
        from understudy.models.base_files import float32_bytes

        config = json.loads((folder / "config.json").read_text("utf-8"))
        config = config.get("text_config", config)
        layers, hidden = config.get("num_hidden_layers", config.get("n_layer")), config.get("hidden_size")
        return cls(float32_bytes(folder) // 4, int(layers or 12), int(hidden or config.get("n_embd") or 768))

    def forward(self, tokens: float, width: float) -> float:
        """Operations for so many tokens in sequences of `width`: two a weight, and dense attention."""
        return 2 * self.parameters * tokens + 4 * self.layers * self.hidden * tokens * width


@dataclass(frozen=True, slots=True)
class Work:
    """What a step does, in units that no machine changes."""

    stage: str
    rows: float = 0
    call_s: float = 0
    """Seconds of all calls one after another, divided by the concurrency."""
    operations: float = 0
    decoding_steps: float = 0

    def seconds(self, speed: float) -> float:
        """At so many operations a second, by the shipped rates."""
        fixed = FIXED_S.get(self.stage, FIXED_OTHER_S)
        return fixed + self.rows * ROW_S + self.call_s + self.operations / speed + self.decoding_steps * DECODING_STEP_S


def training(shape: Shape, method: str, tokens: float, width: float) -> float:
    """Operations of training on so many tokens, chats of `width` tokens packed side by side."""
    return (1 + BACKWARD[method]) * shape.forward(tokens, width)


def answering(
    shape: Shape, answers: float, prompt_tokens: float, reply_tokens: float, batch: int
) -> tuple[float, float]:
    """(operations, decoding steps) of so many answers; prompt and reply in mean tokens.

    Each prompt is read twice: for its answer, and with the reference for its loss.
    """
    passes = shape.forward(2 * answers * prompt_tokens, prompt_tokens) + shape.forward(answers * reply_tokens, 1)
    return passes, math.ceil(answers / batch) * LONGEST * reply_tokens


def optimizer_steps(rows: float, epochs: float, max_steps: int | None, rows_per_step: int) -> int:
    """As `train.sft.schedule` counts them."""
    per_epoch = math.ceil(rows / rows_per_step)
    return round(epochs * per_epoch) if max_steps is None else max_steps


def calling(service: ServiceConfig, calls: float, prompt_tokens: float, completion_tokens: float) -> float:
    """Seconds for so many calls; a limit per minute may be slower than the service. Tokens are those of one call."""
    rented = RENTED_LATENCY_S + completion_tokens * RENTED_TOKEN_S
    each = LATENCY_S.get(service.provider, rented)
    seconds = calls * each / service.concurrency
    if service.requests_per_minute:
        seconds = max(seconds, 60 * calls / service.requests_per_minute)
    if service.tokens_per_minute:
        seconds = max(seconds, 60 * calls * (prompt_tokens + completion_tokens) / service.tokens_per_minute)
    return seconds


def speed() -> float:
    """Operations a second of this machine, about."""
    return ON_GPU if Path("/dev/nvidia0").exists() else PER_CORE * (os.cpu_count() or 1)


def corrected(work: Work, earlier: list[tuple[Work, float]], speed: float, probed: float | None = None) -> Figure:
    """Seconds of the work. `earlier`: what like work has taken here; `probed`: operations a second, measured."""
    if earlier:
        factor = sum(took for _, took in earlier) / sum(done.seconds(speed) for done, _ in earlier)
        return Figure(factor * work.seconds(speed), "measured")
    if probed and work.operations:
        return Figure(work.seconds(probed), "measured")
    return Figure(work.seconds(speed), "guess")
