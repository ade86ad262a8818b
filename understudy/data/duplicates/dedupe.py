"""Duplicates: dedupe(rows) -> rows.jsonl + rejects.jsonl; the first of equals stays, and the reject names it.

Exact ones by a digest of the folded content, near ones by `near`. An example equals another when every turn does, so
one prompt with two answers stays twice. Three passes over the shards of the file; in between, arrays lie on disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config import DedupeConfig
from understudy.core.records import Document, Example, Ledger, Record, from_line, to_line
from understudy.data.duplicates.minhash import Counter, Sets
from understudy.data.duplicates.near import Finder, Match, Shingled, Traits, boilerplate_runs, shingle, text_of
from understudy.data.shards import Shard, Task, Workers, cut, join, processes
from understudy.data.shingles import Grams, whole, words_and_scripts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BYTES_A_CELL = 8
"""The table that counts boilerplate has a cell for so many bytes of the file: about one for each word run."""


def fold(text: str) -> str:
    """The form in which texts are compared: NFC, case folded, white space folded; the same in every locale."""
    if text.isascii():
        folded = text.lower()
    else:
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    # The only white space that is printable is the space: half the time of splitting a clean text.
    if folded.isprintable() and "  " not in folded and folded[:1] != " " != folded[-1:]:
        return folded
    return " ".join(folded.split())


def content_key(record: Record, normalise: bool = True) -> bytes:
    """16 bytes, equal for records with the same content; meta and id do not count."""
    form = fold if normalise else str
    if isinstance(record, Document):
        parts = ["document", form(record.text)]
    else:
        parts = ["example", *(part for m in record.messages for part in (m["role"], form(m["content"])))]
        parts.append(" ".join(str(len(part)) for part in parts))  # where one part ends and the next begins
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def dedupe(cfg: DedupeConfig, rows: Path, out: Path) -> Ledger:
    """Keep the first of equal or nearly equal records in file order.

    The rest are rejected as DUPLICATE or NEAR_DUPLICATE, with the id that was kept. Memory: about 0.8 KB a row and a
    quarter of the file's size, beside 100 MB for each of `cfg.workers` processes.
    """
    out.mkdir(parents=True, exist_ok=True)
    scratch = out / "passes"
    scratch.mkdir()
    try:
        with Workers(processes(rows, cfg.workers)) as workers:
            return _Passes(cfg, rows, out, scratch, workers).run()
    finally:
        shutil.rmtree(scratch)


class _Passes:
    """The three passes over one file: look at every row, compare what is new, write what stays."""

    def __init__(self, cfg: DedupeConfig, rows: Path, out: Path, scratch: Path, workers: Workers) -> None:
        self.cfg, self.rows, self.out, self.workers = cfg, rows, out, workers
        self.shards = cut(rows)
        self.common = scratch / "common.npy"
        self.tasks: list[Task] = [
            {
                "settings": cfg.model_dump(mode="json"),
                "rows": str(rows),
                "shard": shard,
                "part": str(scratch / f"part-{i:06}"),
                "common": str(self.common),
            }
            for i, shard in enumerate(self.shards)
        ]

    def run(self) -> Ledger:
        import numpy as np

        if not self.tasks:
            return self._write({}, {}, np.zeros(1, np.int64))
        duplicates, offsets, traits = self._look()
        near = self._compare(duplicates, offsets, traits) if traits else {}
        return self._write(duplicates, near, offsets)

    def _look(self) -> tuple[dict[int, int], NDArray[np.int64], Traits | None]:
        """Exact duplicates (row -> the first row like it), where each row starts (rows + 1,), and the rows' traits."""
        import numpy as np

        counter = Counter(self.rows.stat().st_size // BYTES_A_CELL)
        first, duplicates = dict[bytes, int](), dict[int, int]()
        lengths: list[NDArray[np.int64]] = []
        parts: list[dict[str, NDArray[Any]]] = []
        row = 0
        for task, _ in zip(self.tasks, self.workers.map(look_at_shard, self.tasks), strict=True):
            look = _Arrays(task, "look")
            lengths.append(look["lengths"])
            fresh = np.ones(len(lengths[-1]), np.bool_)
            for i, key in enumerate(look["keys"].tolist()):
                if (earlier := first.setdefault(key, row)) != row:
                    duplicates[row], fresh[i] = earlier, False
                row += 1
            if self.cfg.near:
                look["fresh"] = fresh
                counter.add(look["runs"][np.repeat(fresh, np.diff(look["run_bounds"]))])
                parts.append({name: look[name] for name in Traits.__slots__})
        offsets = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
        np.save(self.common, counter.above(self.cfg.boilerplate_rows))
        traits = {name: np.concatenate([part[name] for part in parts]) for name in Traits.__slots__} if parts else None
        return duplicates, offsets, Traits(**traits) if traits else None

    def _compare(self, duplicates: dict[int, int], offsets: NDArray[np.int64], traits: Traits) -> dict[int, Match]:
        """Near duplicates among the rows that are no exact ones."""
        import numpy as np

        starts = np.searchsorted(offsets, [shard.start for shard in self.shards])
        tasks = [task | {"first_row": int(start)} for task, start in zip(self.tasks, starts, strict=True)]
        loaded = []
        for task, _ in zip(tasks, self.workers.map(shingle_shard, tasks), strict=True):
            part = _Arrays(task, "shingles")
            loaded.append({name: part[name] for name in ("rows", "shingles", "bounds", "keys")})
            part.remove()
        sizes = np.concatenate([np.diff(part["bounds"]) for part in loaded])
        sets = Sets(np.concatenate([part.pop("shingles") for part in loaded]), np.concatenate(([0], np.cumsum(sizes))))
        shingled = Shingled(
            np.concatenate([part["rows"] for part in loaded]),
            sets,
            np.concatenate([part.pop("keys") for part in loaded]),
        )
        fresh = np.setdiff1d(np.arange(len(offsets) - 1), np.array(list(duplicates), np.int64), assume_unique=True)
        with open(self.rows, "rb") as f:

            def read(row: int) -> Record:
                line = os.pread(f.fileno(), int(offsets[row + 1] - offsets[row]), int(offsets[row]))
                return from_line(line)

            return Finder(self.cfg, shingled, traits, read).find(fresh)

    def _write(self, duplicates: dict[int, int], near: dict[int, Match], offsets: NDArray[np.int64]) -> Ledger:
        """Rows that stay and rejects, both in file order."""
        import numpy as np

        gone: list[tuple[int, int, float | None]] = [(row, kept, None) for row, kept in duplicates.items()]
        gone += [(row, match.kept, match.similarity) for row, match in near.items()]
        gone.sort(key=lambda entry: entry[0])
        firsts = np.searchsorted(offsets, [shard.start for shard in self.shards] + [offsets[-1]])
        cuts = np.searchsorted([row for row, _, _ in gone], firsts)
        tasks = []
        for i, task in enumerate(self.tasks):
            lines = [
                [row - int(firsts[i]), int(offsets[kept]), int(offsets[kept + 1] - offsets[kept]), similarity]
                for row, kept, similarity in gone[cuts[i] : cuts[i + 1]]
            ]
            tasks.append(task | {"gone": lines})
        for _ in self.workers.map(write_shard, tasks):
            pass
        for kind in ("rows", "rejects"):
            join([Path(f"{task['part']}.{kind}") for task in tasks], self.out / f"{kind}.jsonl")
        ledger = Ledger(rows_in=len(offsets) - 1, rows_out=len(offsets) - 1 - len(gone))
        for reason, found in (("DUPLICATE", duplicates), ("NEAR_DUPLICATE", near)):
            if found:
                ledger.reject(reason, len(found))
        return ledger


class _Arrays:
    """Arrays of a shard on disk, a file each; one file for all would be summed over twice."""

    def __init__(self, task: Task, what: str) -> None:
        self.folder = Path(f"{task['part']}.{what}")

    def __setitem__(self, name: str, array: NDArray[Any]) -> None:
        import numpy as np

        self.folder.mkdir(exist_ok=True)
        np.save(self.folder / f"{name}.npy", array, allow_pickle=False)

    def __getitem__(self, name: str) -> NDArray[Any]:
        import numpy as np

        array: NDArray[Any] = np.load(self.folder / f"{name}.npy", allow_pickle=False)
        return array

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def look_at_shard(task: Task) -> None:
    """Read a shard once: length of each line, key of its content, and for near duplicates its words."""
    import numpy as np

    cfg = DedupeConfig(**task["settings"])
    lines = Shard(*task["shard"]).lines(Path(task["rows"]))
    records = [from_line(line) for line in lines]
    arrays: dict[str, NDArray[Any]] = {
        "lengths": np.array([len(line) for line in lines], np.int64),
        "keys": np.array([content_key(record, cfg.normalise) for record in records], "V16"),
    }
    if cfg.near:
        texts = [text_of(record) for record in records]
        found, scripts = words_and_scripts(texts)
        runs = boilerplate_runs(narrow := Grams(found.hashes >> np.uint64(32), found.bounds))
        arrays |= {
            "words": narrow.hashes.astype(np.uint32),
            "bounds": narrow.bounds,
            "runs": runs.shingles,
            "run_bounds": runs.bounds,
            "whole": whole(found),
            "count": found.counts.astype(np.int32),
            "script": scripts,
            "example": np.array([isinstance(record, Example) for record in records], np.bool_),
        }
    look = _Arrays(task, "look")
    for name, array in arrays.items():
        look[name] = array


def shingle_shard(task: Task) -> None:
    """From the words of a shard's new rows their shingles and band keys."""
    import numpy as np

    look = _Arrays(task, "look")
    fresh, counts = look["fresh"], np.diff(look["bounds"])
    hashes = look["words"][np.repeat(fresh, counts)].astype(np.uint64)
    look.remove()
    found = Grams(hashes, np.concatenate(([0], np.cumsum(counts[fresh]))))
    rows = task["first_row"] + np.flatnonzero(fresh)
    common = np.load(task["common"], mmap_mode="r")
    shingled = shingle(DedupeConfig(**task["settings"]), found, rows, common)
    part = _Arrays(task, "shingles")
    part["rows"], part["keys"] = shingled.rows, shingled.keys
    part["shingles"], part["bounds"] = shingled.sets


def write_shard(task: Task) -> None:
    """Copy the lines that stay; `gone` lists (line, offset and length of the line kept for it, similarity or None)."""
    path, gone = Path(task["rows"]), {line: rest for line, *rest in task["gone"]}
    with (
        open(path, "rb") as source,
        open(f"{task['part']}.rows", "wb") as kept,
        open(f"{task['part']}.rejects", "wb") as rejects,
    ):
        lines = Shard(*task["shard"]).lines(path)
        kept.writelines(line for i, line in enumerate(lines) if i not in gone)
        for i, line in enumerate(lines):
            if i not in gone:
                continue
            offset, length, similarity = gone[i]
            stays = from_line(os.pread(source.fileno(), length, offset)).id
            exact = similarity is None
            reject = {
                "where": from_line(line).id,
                "reason": "DUPLICATE" if exact else "NEAR_DUPLICATE",
                "detail": f"same content as {stays}" if exact else f"similarity {similarity:.2f} to {stays}",
            }
            rejects.write(to_line(reject))
