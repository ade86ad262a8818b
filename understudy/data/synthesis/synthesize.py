"""The teacher writes training examples: from seed pairs and training documents only, each row filtered with a reason.

Nothing here ever receives held data: seeds, training documents and a quota made of dev's failures are all there is.
What a teacher knows of dev and held by itself is stopped by their fingerprints. Requests are planned from the seed
before any is sent; with the teacher's cache a rerun costs no call.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from understudy.config import SynthesizeConfig
from understudy.core.records import Ledger, digest, write_jsonl
from understudy.data.synthesis.batch import Batch
from understudy.data.synthesis.cells import Cell
from understudy.data.synthesis.duplicates import Known
from understudy.data.synthesis.filters import Filters
from understudy.data.synthesis.health import check_health
from understudy.data.synthesis.material import Material
from understudy.data.synthesis.quota import Quota
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
from understudy.data.synthesis.rows import FORM, Row, row_of, rows_of
from understudy.data.synthesis.texts import prompt_key
from understudy.errors import DataError, RemoteError
from understudy.models.base import Conversation
from understudy.models.template import Template

Progress = Callable[[int, int, dict[str, float]], None]

MAX_OVERSAMPLING = 4
"""Requests for a cell stay under this many times those that its quota needs."""
FIRST_SHARE = 0.2
"""Share of the planned requests after which the yield is judged; at least FIRST, as fewer say little."""
FIRST = 4


class Teacher(Protocol):
    """What is asked of a teacher; `models.service.ServiceModel` is one."""

    @property
    def identity(self) -> dict[str, str]: ...

    def ask_json(
        self, conversations: Sequence[Conversation], schema: Callable[[Any], list[Any]], *, form: dict[str, Any]
    ) -> list[Any]: ...


def synthesize(
    cfg: SynthesizeConfig,
    teacher: Teacher,
    material: Material,
    *,
    quota: Quota,
    round: int,
    out: Path,
    progress: Progress | None = None,
) -> Ledger:
    """Write `train.jsonl` with the rows that the quota asks for, `rejects.jsonl` and `quota.json`.

    Raises DataError SYNTH_YIELD or SYNTH_COLLAPSE when the first requests show that the teacher does not do the job,
    RemoteError when the service does not answer.
    """
    writing = _Round(cfg, teacher, material, quota, round)
    first = max(FIRST, math.ceil(FIRST_SHARE * writing.by_quota))
    planned = writing.planned()
    while planned:
        requests, planned, first = planned[:first], planned[first:], writing.by_quota
        writing.send(requests)
        if progress:
            progress(len(writing.batch.kept), writing.total, {})
        if not planned:
            writing.batch.settle()
            planned = writing.more()
    ledger = writing.close()
    ledger.rows_out = write_jsonl(out / "train.jsonl", [row.example for row in writing.batch.kept])
    write_jsonl(out / "rejects.jsonl", writing.batch.rejects)
    shown = json.dumps(quota.to_json(), ensure_ascii=False, indent=1, sort_keys=True)
    (out / "quota.json").write_text(shown + "\n", "utf-8")
    return ledger


class _Round:
    """One round: what was asked and sent, and the batch that it fills."""

    def __init__(self, cfg: SynthesizeConfig, teacher: Teacher, material: Material, quota: Quota, round: int) -> None:
        self.cfg, self.teacher, self.material, self.quota, self.round = cfg, teacher, material, quota, round
        seeds, documents, earlier = material.seeds, material.documents, list(material.earlier)
        if not documents:
            raise DataError("SYNTH_NO_DOCUMENTS", "synthesize", "there is no training document", "check `sources`")
        self.template = material.template or Template(PROMPT.read_text("utf-8"), PROMPT.name, NEEDED, OPTIONAL)
        self.filters = Filters(seeds, documents)
        self.wanted = {cell: rows for cell, rows in quota.rows.items() if rows > 0}
        self.total = sum(self.wanted.values())
        fresh = freshest(documents, earlier)
        self.plans = {cell: Plan(cfg, cell, round, seeds, fresh, quota.lengths) for cell in self.wanted}
        self.needed = {cell: math.ceil(rows / cfg.rows_per_call) for cell, rows in self.wanted.items()}
        self.by_quota = sum(self.needed.values())
        self.sent: Counter[Cell] = Counter()
        known = Known(material.near, seeds, earlier)
        self.batch = Batch(
            self.wanted, quota.lengths, known, material.firewall, seeds, {prompt_key(e) for e in earlier}
        )

    def planned(self) -> list[Request]:
        """The requests that the quota needs."""
        return interleave(self.plans, self.sent, self.needed)

    def more(self) -> list[Request]:
        """Requests still worth sending, going by what each cell's requests have yielded."""
        return interleave(self.plans, self.sent, {cell: self._more(cell) for cell in self.wanted})

    def _more(self, cell: Cell) -> int:
        missing, sent = self.batch.missing(cell), self.sent[cell]
        if not missing:
            return 0
        per_request = max(self.batch.filled[cell] / sent, 0.25 * self.cfg.rows_per_call)
        return min(math.ceil(missing / per_request), MAX_OVERSAMPLING * self.needed[cell] - sent)

    def send(self, requests: Sequence[Request]) -> None:
        """Ask, filter, admit and judge; while the quota's own requests go out, stop when they are of no use."""
        rows = self._ask(requests)
        admitted = self.batch.admit(rows)
        if self.material.faithful:
            texts = {d.id: d.text for d in self.material.documents}
            self.material.faithful.check(self.batch, [(r, texts[r.example.meta["parents"][-1]]) for r in admitted])
        self.sent.update(r.cell for r in requests)
        if self.sent.total() <= self.by_quota:  # later requests look for the last rows of what is nearly used up
            provider = self.teacher.identity.get("provider", "")
            check_health(self.cfg, self.batch, self.sent.total(), provider, self.material.replies)

    def _ask(self, requests: Sequence[Request]) -> list[Row]:
        """The rows that are of use; all others are in the books."""
        conversations = [conversation_of(self.template, r, self.cfg.rows_per_call) for r in requests]
        replies = self.teacher.ask_json(conversations, rows_of, form=FORM)
        failed = [r for r in replies if isinstance(r, RemoteError) and r.code != "BAD_JSON"]
        # One refused request for the last row of a cell is that row's affair, a refused first batch is the service's.
        if failed and len(failed) == len(replies) and not (self.batch.ledger.rows_in and _refused(failed)):
            raise failed[0]
        origin = {"teacher": self.teacher.identity, "template": self.template.digest, "round": self.round}
        rows = []
        for request, conversation, reply in zip(requests, conversations, replies, strict=True):
            self.batch.receive(request.where, reply)
            for n, value in enumerate(reply if isinstance(reply, list) else ()):
                where = f"{request.where} row {n}"
                if problem := self.filters.problem(request, value):
                    self.batch.reject(where, *problem)
                    continue
                row = row_of(request, value, where, self.quota.lengths)
                row.example.meta |= origin | {"prompt_hash": digest(conversation)}
                rows.append(row)
        return rows

    def close(self) -> Ledger:
        """The books, with what is short of the quota."""
        ledger = self.batch.ledger
        for cell in self.wanted:
            if self.batch.missing(cell):
                ledger.note(f"short:{cell.name}", self.batch.missing(cell))
        for name, count in self.quota.notes.items():
            ledger.note(name, count)
        ledger.note("requests", self.sent.total())
        return ledger


def _refused(failed: Sequence[RemoteError]) -> bool:
    """Whether the service works, and refused these prompts alone."""
    return all(e.code in ("REPLY_FILTERED", "REQUEST_REFUSED") for e in failed)
