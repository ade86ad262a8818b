"""Optimizer of the pretraining: orthogonalised momentum for the layers' matrices, AdamW for all else.

Muon (Jordan 2024), with the update scaled as in Liu et al. 2025 so that both parts share one learning rate.
"""

from __future__ import annotations

from typing import Any


def orthogonalise(matrices: Any, steps: int = 5) -> Any:
    """Newton-Schulz iteration: pushes all singular values of (count, rows, columns) float32 matrices towards one."""
    flip = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if flip else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT  # (count, rows, rows) float32
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return x.mT if flip else x


class Muon:
    """Steps the matrices of the layers in stacks of one shape: one batched product instead of thirty small ones."""

    def __init__(self, model: Any, weight_decay: float, momentum: float = 0.95) -> None:
        import torch

        self.weight_decay, self.momentum = weight_decay, momentum
        self.stacks: dict[tuple[int, ...], list[Any]] = {}
        rest = []
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and ".layers." in name:
                self.stacks.setdefault(tuple(weight.shape), []).append(weight)
            else:
                rest.append(weight)
        self.speeds = {
            shape: torch.zeros(len(stack), *shape, device=stack[0].device) for shape, stack in self.stacks.items()
        }
        self.rest = torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0, foreach=True)

    def step(self, rate: float) -> None:
        """One update from the gradients that the weights hold; clears them."""
        import torch

        with torch.no_grad():
            for shape, stack in self.stacks.items():
                gradients = torch.stack([weight.grad for weight in stack])  # (count, rows, columns) float32
                speed = self.speeds[shape].lerp_(gradients, 1 - self.momentum)
                update = orthogonalise(gradients.lerp(speed, self.momentum)) * (-rate * 0.2 * max(shape) ** 0.5)
                torch._foreach_mul_(stack, 1 - rate * self.weight_decay)
                torch._foreach_add_(stack, list(update))
                for weight in stack:
                    weight.grad = None
        for group in self.rest.param_groups:
            group["lr"] = rate
        self.rest.step()
        self.rest.zero_grad(set_to_none=True)
