"""Canaries: a fixed probe set is asked of teacher and judge again in every round, past the cache.

A provider may change a model without a word. When a version string moves, or the judge decides otherwise than before on
the same answers, numbers of different rounds are not comparable any more, and the gate is frozen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.core.records import Example, digest
from understudy.errors import RemoteError
from understudy.evals.coverage import answer_covered
from understudy.evals.judge import Judge, Verdict, judge
from understudy.models.base import Answer, Model, Sampling

FILE = "canary.json"
KEPT = ("verdicts", "answers")


@dataclass(frozen=True, slots=True)
class Probe:
    """A seed pair and an answer to it: its own, or that of another pair."""

    id: str
    example: Example
    answer: str


def probes(seeds: Sequence[Example], count: int) -> list[Probe]:
    """Up to `count` probes, the same ones for the same seeds; every second one has another pair's answer."""
    answered = sorted((e for e in seeds if e.answer), key=lambda e: digest(["canary", e.id]))[:count]
    others = [*answered[1:], *answered[:1]]
    return [
        Probe(f"{e.id}{'' if i % 2 == 0 else ' with another answer'}", e, str((e if i % 2 == 0 else other).answer))
        for i, (e, other) in enumerate(zip(answered, others, strict=True))
    ]


def judged(model: Judge, asked: Sequence[Probe], similarity: int, precision: int) -> dict[str, Any]:
    """Probe -> {"covered", "similarity", "precision"}; a probe that could not be judged is left out.

    Raises the RemoteError's kin when the judge gives no verdict at all.
    """
    outcomes = judge(model, [(p.example, p.answer) for p in asked])
    found = {
        probe.id: {
            "covered": answer_covered([(v.similarity, v.precision)], similarity, precision),
            "similarity": v.similarity,
            "precision": v.precision,
        }
        for probe, v in zip(asked, outcomes, strict=True)
        if isinstance(v, Verdict)
    }
    if asked and not found:
        fix = "rerun when the service is well"
        raise RemoteError("JUDGE_UNUSABLE", "canary", f"none of {len(asked)} probes could be judged", fix)
    return found


def answered(model: Model, asked: Sequence[Probe], max_tokens: int) -> dict[str, str]:
    """Probe -> digest of the teacher's answer to its prompt."""
    replies: Sequence[Answer] = model.generate([p.example.prompt for p in asked], Sampling(max_new_tokens=max_tokens))
    return {probe.id: digest(reply.text, 16) for probe, reply in zip(asked, replies, strict=True)}


def write(out: Path, round_number: int, roles: Mapping[str, Mapping[str, Any]]) -> None:
    text = json.dumps({"round": round_number, **roles}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (out / FILE).write_text(text, "utf-8")


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / FILE).read_text("utf-8"))
    return found


def moved(canaries: Sequence[Mapping[str, Any]], max_flips: float) -> list[str]:
    """What moved since the first of `canaries`, a line each; empty when all is as it was."""
    lines: list[str] = []
    if not canaries:
        return lines
    first = canaries[0]
    for now in canaries[1:]:
        when = f"round {now['round']}"
        for role in ("teacher", "judge"):
            # A provider answers from several machines at once: versions that overlap are one fleet.
            if role in first and role in now and not set(first[role]["versions"]) & set(now[role]["versions"]):
                a, b = (", ".join(c[role]["versions"]) or "none" for c in (first, now))
                lines.append(f"the {role}'s version moved from {a} to {b} in {when}")
        lines += _flips(first, now, when, max_flips)
    return lines


def facts(canaries: Sequence[Mapping[str, Any]], max_flips: float) -> dict[str, Any] | None:
    """What the gate is told: {"rounds", "probes", "moved", "teacher_changed"}; None without canaries."""
    if not canaries:
        return None
    asked = max((len(c.get("judge", c.get("teacher", {})).get(k, ())) for c in canaries for k in KEPT), default=0)
    return {
        "rounds": len(canaries), "probes": asked, "moved": moved(canaries, max_flips),
        "teacher_changed": drifted(canaries),
    }  # fmt: skip


def _flips(first: Mapping[str, Any], now: Mapping[str, Any], when: str, max_flips: float) -> list[str]:
    before, after = (c.get("judge", {}).get("verdicts", {}) for c in (first, now))
    shared = sorted(before.keys() & after.keys())
    flipped = [p for p in shared if before[p]["covered"] != after[p]["covered"]]
    if len(flipped) <= max_flips * len(shared):
        return []
    named = ", ".join(flipped[:3]) + (", ..." if len(flipped) > 3 else "")
    return [f"the judge decided otherwise on {len(flipped)} of {len(shared)} probes in {when}: {named}"]


def drifted(canaries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Round -> share of the teacher's answers that differ from the first round's; told, not judged."""
    if not canaries or "teacher" not in canaries[0]:
        return {}
    first = canaries[0]["teacher"]["answers"]
    return {
        str(now["round"]): sum(first[p] != a for p, a in now["teacher"]["answers"].items() if p in first) / len(first)
        for now in canaries[1:]
        if first
    }
