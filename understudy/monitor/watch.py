"""The watch: at each tick, looks at drift and at the service level of what is new, and raises each alarm once.

Rows are told apart by their sequence numbers and ticks are timed by the monotonic clock, so that a wall clock that
jumps neither repeats nor skips anything. The state is one small file, written whole.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

DRIFT, FAILOVER, ERRORS = "drift", "failover", "errors"


@dataclass
class State:
    """Where the watch stands: rows up to `drift_seq` and `level_seq` are done; `alarms` are those that are on."""

    drift_seq: int = 0
    level_seq: int = 0
    alarms: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> State:
        """The saved state; a fresh one where there is none or it is damaged."""
        try:
            return cls(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return cls()

    def save(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        draft.write_text(json.dumps(asdict(self)), "utf-8")
        draft.replace(path)


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one look. `alarm` None: too little to say, an alarm that is on stays on."""

    kind: str
    alarm: bool | None
    says: str
    figures: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Alert:
    """A change worth telling: an alarm that came on (`raised`) or went off (`cleared`)."""

    kind: str
    change: str
    says: str
    figures: dict[str, Any]


def judge(state: State, findings: list[Finding]) -> list[Alert]:
    """What to tell, and `state.alarms` brought up to date: an alarm that stays on is told once."""
    alerts = []
    for found in findings:
        on = found.kind in state.alarms
        if found.alarm is None or found.alarm == on:
            continue
        if found.alarm:
            state.alarms.append(found.kind)
        else:
            state.alarms.remove(found.kind)
        alerts.append(Alert(found.kind, "raised" if found.alarm else "cleared", found.says, found.figures))
    return alerts


def share(kind: str, rate: dict[str, Any] | None, most: float) -> Finding:
    """An alarm when the whole interval of a share lies above `most`; off again when its estimate is back under it."""
    if rate is None:
        return Finding(kind, None, f"{kind}: no requests", {})
    says = "{}: {count} of {n} requests, {value:.1%} [{low:.1%}, {high:.1%}], at most {:.0%} is wanted"
    alarm = True if rate["low"] > most else False if rate["value"] <= most else None
    return Finding(kind, alarm, says.format(kind, most, **rate), {**rate, "most": most})


def ticks(
    every_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[int]:
    """One tick now, then one at each multiple of `every_s` from now; ticks that were slept through are left out."""
    start, number = clock(), 0
    while True:
        yield number
        number = max(number + 1, math.ceil((clock() - start) / every_s))
        while (left := start + number * every_s - clock()) > 0:
            # In pieces: the monotonic clock stands still while the machine sleeps, and a signal is heard soon.
            sleep(min(left, 60.0))
