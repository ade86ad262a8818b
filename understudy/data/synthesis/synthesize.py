"""The teacher writes training examples: from seed pairs and training documents only, each row filtered with a reason.

Nothing here ever receives held data: seeds, training documents and dev failure rates are all there is. What a teacher
knows of dev and held by itself is stopped by their fingerprints. Requests are planned from the seed before any is
sent; with the teacher's cache a rerun costs no call.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from understudy.config import SynthesizeConfig
from understudy.core.records import Document, Example, Ledger, digest, write_jsonl
from understudy.data.splits.decontaminate import Firewall
from understudy.data.synthesis.batch import Batch
from understudy.data.synthesis.filters import content, limits_of, shape
from understudy.data.synthesis.health import COMPARED, check_health, triples
from understudy.data.synthesis.requests import (
    NEEDED,
    OPTIONAL,
    PROMPT,
    Plan,
    Request,
    conversation_of,
    freshest,
    interleave,
)
from understudy.data.synthesis.rows import example_of, rows_of
from understudy.data.synthesis.texts import normalised, prompt_key, question_of
from understudy.errors import DataError, RemoteError
from understudy.models.base import Conversation
from understudy.models.template import Template

Progress = Callable[[int, int, dict[str, float]], None]

MAX_OVERSAMPLING = 4
"""Requests for a category stay under this many times those that its quota needs."""
FIRST_SHARE = 0.2
"""Share of the planned requests after which the yield is judged."""


class Teacher(Protocol):
    """What is asked of a teacher; `models.service.ServiceModel` is one."""

    @property
    def identity(self) -> dict[str, str]: ...

    def ask_json(self, conversations: Sequence[Conversation], schema: Callable[[Any], list[Any]]) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class Material:
    """What the teacher writes from; `earlier` holds the `prompt_key` of every row of earlier rounds.

    `firewall` refuses what shows a dev or held pair. `template` words the requests; without it, the shipped one does.
    """

    seeds: list[Example]
    documents: list[Document]
    earlier: set[str]
    firewall: Firewall | None = None
    template: Template | None = None


def synthesize(
    cfg: SynthesizeConfig,
    teacher: Teacher,
    material: Material,
    *,
    quota: dict[str, int],
    round: int,
    out: Path,
    progress: Progress | None = None,
) -> Ledger:
    """Write `train.jsonl` and `rejects.jsonl` with the rows that the quota asks for.

    Raises DataError SYNTH_YIELD or SYNTH_COLLAPSE when the first requests show that the teacher does not do the job,
    RemoteError when the service does not answer.
    """
    seeds, documents, earlier = material.seeds, material.documents, material.earlier
    if not documents:
        raise DataError("SYNTH_NO_DOCUMENTS", "synthesize", "there is no training document", "check `sources`")
    wanted = {category: rows for category, rows in quota.items() if rows > 0}
    total = sum(wanted.values())
    fresh = freshest(documents, earlier)
    plans = {category: Plan(cfg, category, seeds, fresh, round) for category in wanted}
    batch = _batch(wanted, material)
    template = material.template or Template(PROMPT.read_text("utf-8"), PROMPT.name, NEEDED, OPTIONAL)
    sent: Counter[str] = Counter()
    needed = {category: math.ceil(rows / cfg.rows_per_call) for category, rows in wanted.items()}
    planned = interleave(plans, sent, needed)
    by_quota = len(planned)
    first = max(4, math.ceil(FIRST_SHARE * by_quota))
    while planned:
        requests, planned, first = planned[:first], planned[first:], by_quota
        _send(teacher, requests, template, cfg, batch)
        sent.update(r.category for r in requests)
        if sent.total() <= by_quota:  # later requests look for the last rows of what is nearly used up
            check_health(cfg, batch, sent.total(), teacher.identity.get("provider", ""))
        if progress:
            progress(len(batch.kept), total, {})
        if not planned:
            more = {c: _more(cfg, batch, c, sent[c], MAX_OVERSAMPLING * needed[c]) for c in wanted}
            planned = interleave(plans, sent, more)
    for category in wanted:
        if batch.missing(category):
            batch.ledger.note(f"short:{category}", batch.missing(category))
    batch.ledger.note("requests", sent.total())
    batch.ledger.rows_out = write_jsonl(out / "train.jsonl", batch.kept)
    write_jsonl(out / "rejects.jsonl", batch.rejects)
    return batch.ledger


def _batch(wanted: dict[str, int], material: Material) -> Batch:
    seeds = material.seeds
    return Batch(
        quota=wanted,
        earlier=material.earlier,
        taken=set(),
        seed_prompts={prompt_key(s) for s in seeds},
        seed_pairs={(normalised(question_of(s)), normalised(s.answer or "")) for s in seeds},
        limits=limits_of(seeds),
        firewall=material.firewall,
    )


def _more(cfg: SynthesizeConfig, batch: Batch, category: str, sent: int, most: int) -> int:
    """Requests still worth sending for a category, going by what its requests have yielded."""
    missing = batch.missing(category)
    if not missing:
        return 0
    per_request = max(batch.filled[category] / sent, 0.25 * cfg.rows_per_call)
    return min(math.ceil(missing / per_request), most - sent)


def _send(teacher: Teacher, requests: list[Request], template: Template, cfg: SynthesizeConfig, batch: Batch) -> None:
    conversations = [conversation_of(template, r, cfg.rows_per_call) for r in requests]
    replies = teacher.ask_json(conversations, rows_of)
    if all(isinstance(r, RemoteError) and r.code != "BAD_JSON" for r in replies):
        raise replies[0]
    for request, conversation, reply in zip(requests, conversations, replies, strict=True):
        if isinstance(reply, RemoteError):
            batch.ledger.rows_in += 1
            reason = "bad_json" if reply.code == "BAD_JSON" else "request_failed"
            batch.reject(request.where, reason, reply.code)
            continue
        batch.ledger.rows_in += len(reply)
        if not reply:
            batch.ledger.note("empty_replies")
        if reply and len(batch.replies) < COMPARED:
            batch.replies.append(triples(reply))
        for n, row in enumerate(reply):
            origin = {"teacher": teacher.identity, "template": template.digest, "prompt_hash": digest(conversation)}
            _take(batch, request, origin, (n, row))


def _take(batch: Batch, request: Request, origin: dict[str, Any], numbered: tuple[int, Any]) -> None:
    """Keep one row of a reply, or reject it with the first reason that applies."""
    n, row = numbered
    where = f"{request.where} row {n}"
    problem = shape(row, request.category) or content(batch, request, row)
    if problem:
        batch.reject(where, *problem)
        return
    example = example_of(request, row)
    key = prompt_key(example)
    if key in batch.seed_prompts:
        batch.reject(where, "same_as_seed", row["question"])
    elif key in batch.earlier or key in batch.taken:
        batch.repeated += key in batch.earlier
        batch.reject(where, "duplicate", row["question"])
    elif not batch.missing(request.category):
        batch.reject(where, "over_quota", row["question"])
    elif leak := batch.firewall and batch.firewall.leak(example):
        batch.reject(where, leak.reason, leak.detail)
    else:
        batch.taken.add(key)
        batch.filled[request.category] += 1
        example.meta |= origin | {"round": request.round}
        batch.kept.append(example)
