"""The peak of a step's memory: what the process holds anyway, the model, and what is computed at once."""

from __future__ import annotations

from understudy.forecast.effort import Shape
from understudy.forecast.figures import Figure

PLAIN_MB = 90.0
"""Of a process that has read rows."""
ASKING_MB = 130.0
"""With a client of services."""
TORCH_MB = 440.0
"""With torch and transformers."""
REGISTRY_MB = 135.0
"""Of MLflow, which is loaded where there is a registry to look for the champion in."""
TENSORS = 60
"""Numbers that a layer keeps for each token and unit of its width until the backward pass, attention's included."""
READING = 16
"""Numbers that the layer at work holds for each token and unit of its width; all keys and values come on top."""
MASK = 5
"""Bytes for each pair of tokens of a batch whose prompts differ in length."""
MODELS = ("train", "answer", "answer_held", "answer_bias")
CALLING = ("synthesize", "score", "score_held", "ask_service", "ask_bias", "bias", "canary")


def training(shape: Shape, method: str, positions: int) -> float:
    """1e6 bytes of float32 weights, gradients and moments, and of what `positions` tokens leave for the backward."""
    copies = 4 if method == "full" else 1.5
    return 4 * (copies * shape.parameters + TENSORS * shape.layers * shape.hidden * positions) / 1e6


def answering(shape: Shape, batch: float, tokens: float) -> float:
    """1e6 bytes of weights, and of keys, values, mask and the layer at work, for a batch of `tokens` each."""
    read = (2 * shape.layers + READING) * shape.hidden * batch * tokens
    return (4 * (shape.parameters + read) + MASK * batch * tokens**2) / 1e6


def peak(stage: str, own: float, before: float, earlier: list[float]) -> Figure:
    """The step's peak: what like steps have held here, else the process and its `own`; `before`: of those before it.

    A process gives little back, so that a later step starts from where an earlier one was.
    """
    if earlier:
        return Figure(max(earlier), "measured")
    plain = TORCH_MB if stage in MODELS else ASKING_MB if stage in CALLING else PLAIN_MB
    return Figure(max(plain + own, before), "guess")
