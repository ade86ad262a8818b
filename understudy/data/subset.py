"""The first rows of a training set in a fixed random order: smaller sets lie within larger ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from understudy.core.records import Ledger, digest, read_examples, write_jsonl
from understudy.errors import DataError


def subset(rows: int, train: Sequence[Path], out: Path) -> Ledger:
    """Write `train.jsonl` with `rows` examples of `train`. Raises DataError SUBSET_ROWS when there are fewer."""
    examples = [e for path in train for e in read_examples(path)]
    if rows > len(examples):
        raise DataError(
            "SUBSET_ROWS", "curve", f"{rows} rows are asked for, {len(examples)} are there", "ask for fewer"
        )
    kept = sorted(examples, key=lambda e: digest(["subset", e.id]))[:rows]
    ledger = Ledger(rows_in=len(examples), rows_out=write_jsonl(out / "train.jsonl", kept))
    ledger.reject("beyond_subset", len(examples) - rows)
    return ledger
