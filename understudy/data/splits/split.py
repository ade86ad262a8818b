"""Train, validation, documents, seed and dev as files by `split`, held by `hold`: who is where says `assign`.

Three passes over the shards of the corpus: outline every row, look for leaks in what is left, copy lines. The coverage
set and the outlines are held in memory, the corpus is not.
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

from understudy.config import SplitConfig
from understudy.core.records import Ledger, Record, from_line, read_records, to_line, write_jsonl
from understudy.data.shards import Shard, Task, Workers, cut, join, processes
from understudy.data.splits.assign import FILES, RANK, SCORED, Placed, assign, by_pairs, check_filled
from understudy.data.splits.decontaminate import Firewall, Seen, Sighting, leaks_among, look_at
from understudy.data.splits.guard import Guard, Protected, build, load, save
from understudy.data.splits.outline import Outline, outline
from understudy.errors import DataError

LABEL_LEAK = "label_leak"
"""Note of examples whose prompt holds the answer."""


def split(cfg: SplitConfig, rows: Path, coverage: Path | None, out: Path) -> Ledger:
    """Write train, validation, documents, seed and dev; without coverage, seed and dev are empty.

    Rows set aside are rejected as `held` or `test`; rejects.jsonl names the others by id only.
    Raises DataError SPLIT_TOO_SMALL and SPLIT_EMPTY.
    """
    with _division(cfg, rows, coverage, out) as division:
        division.look(leaks=cfg.decontaminate.enabled)
        placed = assign(cfg, division.outlines, division.covered)
        if cfg.decontaminate.enabled:
            division.take_out_leaks(placed)
        check_filled(cfg, placed, len(division.outlines), coverage is not None)
        ledger = division.write(placed, FILES)
    refused = ({"where": p.row.id, "reason": p.reason, "detail": p.detail} for p in placed if p.reason)
    write_jsonl(out / "rejects.jsonl", refused)
    return ledger


def hold(cfg: SplitConfig, rows: Path, coverage: Path | None, out: Path) -> Ledger:
    """Write held.jsonl: the coverage pairs that are neither seed nor dev, or without coverage the test examples.

    Nothing is better protected, so that no other row can take one of these out; with coverage the corpus is only
    counted, as rejected for `corpus`. Raises DataError SPLIT_TOO_SMALL and SPLIT_EMPTY.
    """
    with _division(cfg, rows, coverage, out) as division:
        if division.covered is None:
            division.look(leaks=False)
            placed = assign(cfg, division.outlines, None)
        else:
            placed = by_pairs(cfg, division.covered)
        for p in placed:
            p.split = "held" if p.split == "test" else p.split
        ledger = division.write(placed, ("held",))
    if not ledger.rows_out:
        raise DataError("SPLIT_EMPTY", "split", "held would be empty", "raise split.test, or give a coverage set")
    return ledger


def protect(cfg: SplitConfig, coverage: Path, out: Path) -> int:
    """Write the fingerprints of the dev and held pairs, by which others may be compared with them unread.

    Returns how many units they have; none when decontamination is off.
    """
    records = read_records(coverage)
    placed = by_pairs(cfg, list(map(outline, records))) if cfg.decontaminate.enabled else []
    guard = _guard(cfg, [_protected(record, p) for record, p in zip(records, placed, strict=False) if _scored(p)])
    save(guard, out)
    return len(guard.units)


@contextmanager
def _division(cfg: SplitConfig, rows: Path, coverage: Path | None, out: Path) -> Iterator[_Division]:
    scratch = out / "passes"
    scratch.mkdir(parents=True)
    try:
        with Workers(processes(rows, cfg.workers)) as workers:
            yield _Division(cfg, rows, coverage, out, workers)
    finally:
        shutil.rmtree(scratch)


class _Division:
    """A corpus in shards and a coverage set in memory; what is not looked at is only counted."""

    def __init__(self, cfg: SplitConfig, rows: Path, coverage: Path | None, out: Path, workers: Workers) -> None:
        self.cfg, self.rows, self.out, self.workers = cfg, rows, out, workers
        self.pairs: list[Record] = read_records(coverage) if coverage else []
        self.covered = list(map(outline, self.pairs)) if coverage else None
        self.outlines = list[Outline]()
        self.lengths = list[list[int]]()  # by shard, how many bytes each line has
        self.firsts = [0]  # the first row of each shard, and the row after the last
        self.seen = dict[int, Seen]()  # what rows hold of what is protected
        self.guard = out / "passes" / "guard"
        self.tasks: list[Task] = [
            {"rows": str(rows), "shard": shard, "part": str(out / "passes" / f"part-{i:06}")}
            for i, shard in enumerate(cut(rows))
        ]

    def look(self, leaks: bool) -> None:
        """Outline every row of the corpus; what is protected in a coverage set is known already, and looked for."""
        # the documents' passages are outlined only where a row could be one: it doubles the work for plain pairs
        passages = _mentions(self.rows, b'"context"') or any(row.passage for row in self.covered or [])
        guarded = leaks and self.covered is not None
        if guarded:
            self._save_guard(by_pairs(self.cfg, self.covered or []))
        settings = {"passages": passages, "guard": str(self.guard) if guarded else ""}
        for found in self.workers.map(outline_shard, [task | settings for task in self.tasks]):
            self._note(len(self.outlines), found["seen"])
            self.outlines += [Outline(*fields) for fields in found["outlines"]]
            self.lengths.append(found["lengths"])
            self.firsts.append(len(self.outlines))

    def _save_guard(self, placed: Sequence[Placed]) -> None:
        save(_guard(self.cfg, self._protected(placed)), self.guard)

    def _note(self, first: int, found: Sequence[tuple[int, list[int], int, int]]) -> None:
        import numpy as np

        for row, grams, same, page in found:
            self.seen[first + row] = Seen(np.array(grams, np.int64), same, page)

    def take_out_leaks(self, placed: Sequence[Placed]) -> None:
        """Reject what shows a row of a better protected split in another guise; what many groups hold shows nothing."""
        if self.covered is None:
            self._save_guard(placed)
            for first, found in zip(self.firsts, self.workers.map(look_at_shard, self._looked(placed)), strict=False):
                self._note(first, found)
        guard = load(self.guard)
        for i, what in look_at(Firewall(guard), self.pairs).items():
            self.seen[self.firsts[-1] + i] = what
        free = {i: placed[i] for i in sorted(self.seen) if not placed[i].reason and placed[i].split not in SCORED[1:]}
        sightings = {i: Sighting(RANK[p.split], p.row.group, self.seen[i]) for i, p in free.items()}
        for i, leak in leaks_among(guard, sightings).items():
            placed[i].reason, placed[i].detail = leak.reason, leak.detail

    def _looked(self, placed: Sequence[Placed]) -> Iterator[Task]:
        """Tasks that look at the lines that are in a split and not themselves what is looked for."""
        for task, first, after in zip(self.tasks, self.firsts, self.firsts[1:], strict=False):
            lines = [i - first for i in range(first, after) if not placed[i].reason and placed[i].split not in SCORED]
            yield task | {"guard": str(self.guard), "lines": lines}

    def _protected(self, placed: Sequence[Placed]) -> list[Protected]:
        start = len(placed) - len(self.pairs)
        ends = list(accumulate((length for shard in self.lengths for length in shard), initial=0))
        found = []
        with open(self.rows, "rb") as f:
            for i, p in enumerate(placed):
                if not _scored(p):
                    continue
                if i >= start:
                    record = self.pairs[i - start]
                else:
                    record = from_line(os.pread(f.fileno(), ends[i + 1] - ends[i], ends[i]))
                found.append(_protected(record, p))
        return found

    def write(self, placed: Sequence[Placed], files: Sequence[str]) -> Ledger:
        """Copy the lines of the corpus to their files, then those of the coverage set; the ledger of all rows."""
        unseen = _lines(self.rows) if len(placed) == len(self.pairs) else 0
        ledger = Ledger(rows_in=len(placed) + unseen)
        if unseen:
            ledger.reject("corpus", unseen)
        where = [p.split if not p.reason and p.split in files else "" for p in placed]
        for p, name in zip(placed, where, strict=True):
            if not name:
                ledger.reject(p.reason or p.split)
        if shown := sum(p.row.shows for p, name in zip(placed, where, strict=True) if name):
            ledger.note(LABEL_LEAK, shown)
        tasks = []
        for task, first, after in zip(self.tasks, self.firsts, self.firsts[1:], strict=False):
            runs = [(name, len(list(group))) for name, group in groupby(where[first:after])]
            tasks.append(task | {"runs": runs, "files": list(files)})
        for _ in self.workers.map(copy_shard, tasks):
            pass
        start, last = self.firsts[-1], self.out / "passes" / "coverage"
        for name in files:
            own = [self.pairs[i] for i in range(len(self.pairs)) if where[start + i] == name]
            last.write_bytes(b"".join(map(to_line, own)))
            join([*(Path(f"{task['part']}.{name}") for task in tasks), last], self.out / f"{name}.jsonl")
            count = where.count(name)
            ledger.rows_out += count
            ledger.note(f"{name}_rows", count)
        return ledger


def outline_shard(task: Task) -> dict[str, Any]:
    """Of a shard: its rows' outlines, each line's length and, when there is a guard, what of it the rows hold."""
    lines = Shard(*task["shard"]).lines(Path(task["rows"]))
    records = list(map(from_line, lines))
    return {
        "outlines": [outline(record, task["passages"]) for record in records],
        "lengths": list(map(len, lines)),
        "seen": _seen(task, records) if task["guard"] else [],
    }


def look_at_shard(task: Task) -> list[tuple[int, list[int], int, int]]:
    """What those `lines` of a shard that hold anything of the guard hold: (line, n-grams, exchange, page)."""
    lines, wanted = Shard(*task["shard"]).lines(Path(task["rows"])), task["lines"]
    return [(wanted[i], *what) for i, *what in _seen(task, [from_line(lines[i]) for i in wanted])]


def _seen(task: Task, records: Sequence[Record]) -> list[tuple[int, list[int], int, int]]:
    seen = look_at(Firewall(load(Path(task["guard"]))), records)
    return [(i, what.grams.tolist(), what.same, what.page) for i, what in seen.items()]


def copy_shard(task: Task) -> None:
    """Copy the lines of a shard; `runs` lists (file or nothing, number of lines) from the first line on."""
    lines = iter(Shard(*task["shard"]).lines(Path(task["rows"])))
    parts: dict[str, list[bytes]] = {name: [] for name in task["files"]}
    for name, count in task["runs"]:
        some = [next(lines) for _ in range(count)]
        if name:
            parts[name] += some
    for name, own in parts.items():
        Path(f"{task['part']}.{name}").write_bytes(b"".join(own))


def _scored(p: Placed) -> bool:
    return not p.reason and p.split in SCORED and not p.row.document


def _protected(record: Record, p: Placed) -> Protected:
    return Protected(record, p.split, RANK[p.split], p.row.group)


def _guard(cfg: SplitConfig, rows: Sequence[Protected]) -> Guard:
    return build(rows, cfg.decontaminate.ngram_words, cfg.decontaminate.share)


def _mentions(path: Path, piece: bytes) -> bool:
    """Whether a file holds these bytes anywhere."""
    with open(path, "rb") as f:
        if not os.fstat(f.fileno()).st_size:
            return False
        with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.find(piece) >= 0


def _lines(path: Path) -> int:
    with open(path, "rb") as f:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: f.read(1 << 20), b""))
