"""What a round has gathered so far: the rows that are kept, the rejects, and the books.

A row fills the cell that it is in by its own length. One that its cell has no more room for waits in reserve as long as
its category lacks rows, and then fills another length: what is paid for is not thrown away for being long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from understudy.core.records import Example, Ledger
from understudy.data.splits.decontaminate import Firewall
from understudy.data.synthesis.cells import Cell, Lengths
from understudy.data.synthesis.diversity import COMPARED, sample
from understudy.data.synthesis.duplicates import Known
from understudy.data.synthesis.rows import Row
from understudy.data.synthesis.texts import prompt_key, question_of
from understudy.errors import RemoteError


@dataclass(slots=True)
class Batch:
    """What a round has gathered so far; `known` are the rows that no new one may repeat."""

    quota: dict[Cell, int]
    lengths: Lengths | None
    known: Known
    firewall: Firewall | None
    seeds: Sequence[Example]
    earlier: set[str]
    seed_prompts: set[str] = field(init=False)
    taken: set[str] = field(default_factory=set)
    kept: list[Row] = field(default_factory=list)
    reserve: list[Row] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    replies: list[frozenset[str]] = field(default_factory=list)
    filled: Counter[Cell] = field(default_factory=Counter)
    repeated: int = 0
    ledger: Ledger = field(default_factory=Ledger)

    def __post_init__(self) -> None:
        self.seed_prompts = {prompt_key(s) for s in self.seeds}

    def receive(self, where: str, reply: list[Any] | RemoteError) -> None:
        """Enter a reply into the books; one that failed counts as a row that is rejected."""
        if isinstance(reply, RemoteError):
            self.ledger.rows_in += 1
            self.reject(where, "bad_json" if reply.code == "BAD_JSON" else "request_failed", reply.code)
            return
        self.ledger.rows_in += len(reply)
        if not reply:
            self.ledger.note("empty_replies")
        elif len(self.replies) < COMPARED:
            self.replies.append(sample(reply))

    def reject(self, where: str, reason: str, detail: str) -> None:
        self.ledger.reject(reason)
        self.rejects.append({"where": where, "reason": reason, "detail": detail})

    def missing(self, cell: Cell) -> int:
        return max(0, self.quota.get(cell, 0) - self.filled[cell])

    def useful(self) -> int:
        """Rows that were worth asking for."""
        return len(self.kept) + len(self.reserve) + self.ledger.rejected.get("over_quota", 0)

    def admit(self, rows: Sequence[Row]) -> list[Row]:
        """Take in the rows that are new and wanted, in order, and reject the others; returns those taken in."""
        rows = self._without_leaks(rows)
        near = self.known.near([row.example for row in rows])
        admitted = []
        for i, row in enumerate(rows):
            if problem := self._refused(row, near.get(i)):
                self.reject(row.where, *problem)
                continue
            self.taken.add(prompt_key(row.example))
            if self.missing(row.own):
                self._fill(row, row.own)
            else:
                self.reserve.append(row)
            admitted.append(row)
        self.known.add([row.example for row in admitted])
        return admitted

    def _without_leaks(self, rows: Sequence[Row]) -> list[Row]:
        """First of all: the other reasons show a row's text, and this one must not."""
        fresh = []
        for row in rows:
            leak = self.firewall.leak(row.example) if self.firewall else None
            if leak:
                self.reject(row.where, leak.reason, leak.detail)
            else:
                fresh.append(row)
        return fresh

    def _refused(self, row: Row, near: tuple[str, float] | None) -> tuple[str, str] | None:
        key, question = prompt_key(row.example), question_of(row.example)
        if key in self.seed_prompts:
            return "same_as_seed", question
        if key in self.earlier or key in self.taken:
            self.repeated += key in self.earlier
            return "duplicate", question
        if near:
            self.repeated += near[0] in self.known.earlier
            return "near_duplicate", f"similarity {near[1]:.2f} to {near[0]}: {question}"
        if not self.missing(row.own) and not self._room(row.own.category):
            return "over_quota", question
        return None

    def _room(self, category: str) -> int:
        """Rows that the category still lacks, less those that wait for it."""
        waiting = sum(row.own.category == category for row in self.reserve)
        return sum(self.missing(cell) for cell in self.quota if cell.category == category) - waiting

    def _fill(self, row: Row, cell: Cell) -> None:
        row.filled = cell
        self.filled[cell] += 1
        self.kept.append(row)

    def drop(self, row: Row, reason: str, detail: str) -> None:
        """Reject a row that was taken in."""
        (self.kept if row.filled else self.reserve).remove(row)
        if row.filled:
            self.filled[row.filled] -= 1
        self.reject(row.where, reason, detail)

    def settle(self) -> None:
        """Let the reserve fill what is missing: cells of the same category, of the same group first."""
        waiting, self.reserve = self.reserve, []
        for row in waiting:
            cells = [c for c in self.quota if c.category == row.own.category and self.missing(c)]
            if not cells:
                self.reject(row.where, "over_quota", question_of(row.example))
                continue
            self._fill(row, min(cells, key=lambda c: (c.group != row.own.group, -self.missing(c), c)))
            self.ledger.note("other_length")
