"""The groups in which a plan's steps are shown."""

from __future__ import annotations

import re

from understudy.core.stage import Step

_ARM = re.compile(r"(?:synthesize|sabotage|pack|train|answer-dev|score-dev)-(\d+|untargeted|mitigated)")


def group_of(step: Step) -> str:
    """`data`, `round 2`, `untargeted`, `mitigated`, `canary`, `dev`, `held`, `bias` or `release`."""
    if arm := _ARM.fullmatch(step.name):
        return f"round {arm[1]}" if arm[1].isdigit() else arm[1]
    if step.stage == "augment":
        return "mitigated"
    if step.stage == "canary":
        return "canary"
    if step.name.startswith(("answer-held-", "score-held-")):
        return "held"
    if step.name.startswith(("answer-dev-", "score-dev-")):
        return "dev"
    if "bias" in step.stage:
        return "bias"
    return "release" if step.stage in ("select", "gate", "register", "report") else "data"


ORDER = ("data", "dev", "round", "untargeted", "mitigated", "canary", "held", "bias", "release")


def place(group: str) -> tuple[int, int]:
    """Where a group stands in a table."""
    name, _, number = group.partition(" ")
    return ORDER.index(name), int(number or 0)
