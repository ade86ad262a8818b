"""Shares with their 95 % interval, as the card shows them."""

from __future__ import annotations

import math
from typing import Any


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    if not count:
        return 0.0, 1.0
    z, part = 1.959964, hits / count
    middle = (part + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(part * (1 - part) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def share(hits: int, count: int) -> dict[str, Any]:
    """Hits of a count, as `training.json` holds them."""
    low, high = wilson(hits, count)
    return {"exact": hits, "n": count, "share": round(hits / count, 4), "low": round(low, 4), "high": round(high, 4)}
