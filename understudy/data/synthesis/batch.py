"""What a round has gathered so far: the rows that are kept, the rejects, and the books."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from understudy.core.records import Example, Ledger
from understudy.data.splits.decontaminate import Firewall


@dataclass(slots=True)
class Batch:
    """What a round has gathered so far."""

    quota: dict[str, int]
    earlier: set[str]
    taken: set[str]
    seed_prompts: set[str]
    seed_pairs: set[tuple[str, str]]
    limits: tuple[int, int]
    firewall: Firewall | None
    kept: list[Example] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    replies: list[frozenset[str]] = field(default_factory=list)
    filled: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    ledger: Ledger = field(default_factory=Ledger)

    def reject(self, where: str, reason: str, detail: str) -> None:
        self.ledger.reject(reason)
        self.rejects.append({"where": where, "reason": reason, "detail": detail})

    def missing(self, category: str) -> int:
        return max(0, self.quota[category] - self.filled[category])
