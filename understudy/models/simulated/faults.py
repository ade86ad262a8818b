"""Which fault a request meets, and the ledger that accounts for every request: answered, refused, failed or dropped."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from understudy.core.records import digest
from understudy.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Faults:
    """Shares of requests that fail, drawn for each (seed, request, attempt); together they stay within 1."""

    latency_s: float = 0.0
    """Pause before every answer."""
    rate_429: float = 0.0
    retry_after_s: float = 0.0
    """What the 429 and 503 answers say in Retry-After."""
    rate_500: float = 0.0
    rate_cut: float = 0.0
    """The connection is closed in the middle of the body."""
    rate_malformed: float = 0.0
    """A well-formed answer whose content is broken JSON."""
    rate_silence: float = 0.0
    silence_s: float = 30.0
    """No byte for this long, then the connection is closed."""
    outage: bool = False
    """Every request gets 503."""

    def __post_init__(self) -> None:
        rates = [self.rate_429, self.rate_500, self.rate_cut, self.rate_malformed, self.rate_silence]
        if min(rates) < 0 or sum(rates) > 1 + 1e-9:
            raise ValueError(f"fault rates must be at least 0 and at most 1 together; they are {rates}")

    @classmethod
    def parse(cls, settings: Sequence[str]) -> Faults:
        """From `NAME=VALUE` each. Raises ConfigError FAULT_UNKNOWN or FAULT_VALUE."""
        kinds = {f.name: f.type for f in fields(cls)}
        values: dict[str, Any] = {}
        for setting in settings:
            name, _, text = setting.partition("=")
            if name not in kinds:
                near = get_close_matches(name, kinds, 1)
                fix = f"did you mean {near[0]}?" if near else f"one of {', '.join(kinds)}"
                raise ConfigError("FAULT_UNKNOWN", "--fault", f"there is no fault {name!r}", fix)
            try:
                values[name] = {"true": True, "false": False}[text] if kinds[name] == "bool" else float(text)
            except (KeyError, ValueError):
                wanted = "true or false" if kinds[name] == "bool" else "a number"
                raise ConfigError("FAULT_VALUE", "--fault", f"{setting!r} is not {wanted}", "") from None
        try:
            return cls(**values)
        except ValueError as e:
            raise ConfigError("FAULT_VALUE", "--fault", str(e), "") from None

    def draw(self, seed: int, request_hash: str, attempt: int) -> str | None:
        """`outage`, `429`, `500`, `cut`, `malformed`, `silence`, or None."""
        if self.outage:
            return "outage"
        drawn = int(digest([seed, request_hash, attempt, "fault"], 12), 16) / 16**12
        for name in ("429", "500", "cut", "malformed", "silence"):
            drawn -= float(getattr(self, f"rate_{name}"))
            if drawn < 0:
                return name
        return None


@dataclass(slots=True)
class ServiceLedger:
    """Counts of chat requests; `requests == answered + refused + dropped + sum(faults)` once none is in flight."""

    roles: Counter[str] = field(default_factory=Counter)
    """Checked requests by role: teacher, judge, service."""
    faults: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    answered: int = 0
    refused: int = 0
    """Requests that got a 4xx because they were wrong."""
    dropped: int = 0
    """Answers whose client had gone."""
    repeated: int = 0
    """Answers to a request that had been answered before."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, name: str, change: int = 1) -> None:
        with self._lock:
            setattr(self, name, getattr(self, name) + change)

    def count_role(self, role: str) -> None:
        with self._lock:
            self.roles[role] += 1

    def count_fault(self, fault: str) -> None:
        with self._lock:
            self.faults[fault] += 1

    def to_json(self) -> dict[str, object]:
        """What `GET /ledger` says."""
        with self._lock:
            counts = {name: getattr(self, name) for name in ("requests", "answered", "refused", "dropped", "repeated")}
            return {**counts, "roles": dict(self.roles), "faults": dict(self.faults)}

    @property
    def balanced(self) -> bool:
        with self._lock:
            return self.requests == self.answered + self.refused + self.dropped + sum(self.faults.values())
