"""Judging in planned looks: after each, an interval that stays valid although one may have stopped there.

The error allowed is spent over the looks as (share judged)^2 of it (Lan and DeMets 1983; the power family of Kim and
DeMets 1987); the boundary comes from the recursion of Armitage, McPherson and Rowe (1969). Each look's interval is a
repeated confidence interval (Jennison and Turnbull 1989).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, Literal

from understudy.evals.stats import Interval

Outcome = Literal["clears", "cannot"]
LOOKS = 3
POWER = 2
"""1 spends evenly (near Pocock's boundary), 3 late (near O'Brien and Fleming's)."""
FEWEST = 10
"""Items before the first look; below that no interval decides anything."""
_GRID = 1_201


def plan(items: int, looks: int = LOOKS) -> list[int]:
    """Numbers of items after which to look, ascending; the last is `items`. Fewer looks where there are few items."""
    looks = max(1, min(looks, items // FEWEST))
    return [math.ceil(items * k / looks) for k in range(1, looks + 1)]


def confidences(planned: Sequence[int], confidence: float = 0.95) -> list[float]:
    """The confidence to draw each look's interval at, so that all of them hold together at `confidence`."""
    shares = [n / planned[-1] for n in planned]
    return [2 * NormalDist().cdf(z) - 1 for z in boundary(shares, (1 - confidence) / 2)]


def boundary(shares: Sequence[float], tail: float) -> list[float]:
    """For each share of the information the z that a fair process ever exceeds with probability `tail`.

    `shares` ascend to 1.
    """
    import numpy as np

    normal, found = NormalDist(), []
    width = -normal.inv_cdf(min(tail, 1e-6) / 100)
    density: Any = None
    grid: Any = None
    spent = last = 0.0
    for share in shares:
        due, spent = tail * share**POWER - spent, tail * share**POWER
        scale = math.sqrt(share)
        # B(share) = z sqrt(share); its density among the paths that no earlier look has stopped.
        points = np.linspace(-width * scale, width * scale, _GRID)
        if density is None:
            reached = np.exp(-(points**2) / (2 * share)) / math.sqrt(2 * math.pi * share)
        else:
            gap = share - last
            kernel = np.exp(-((points[:, None] - grid[None, :]) ** 2) / (2 * gap)) / math.sqrt(2 * math.pi * gap)
            reached = kernel @ density * (grid[1] - grid[0])
        step = points[1] - points[0]
        above = np.concatenate([[0.0], np.cumsum((reached[1:] + reached[:-1])[::-1] / 2 * step)])[::-1]
        stop = float(np.interp(-due, -above, points))
        found.append(stop / scale)
        grid, density, last = points, np.where(points < stop, reached, 0.0), share
    return found


def outcome(found: Interval, bar: float) -> Outcome | None:
    """`clears` when the lower end reaches the bar, `cannot` when the upper end lies below it, else None."""
    if found.low >= bar:
        return "clears"
    return "cannot" if found.high < bar else None
