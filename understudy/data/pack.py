"""Examples to packed rows: best-fit-decreasing, one chat after the other, positions restarting at each.

The arrays are written once as .npy and memory-mapped by training; `pack.json` says what is in them. Several chats share
a row without seeing each other, because attention is cut where positions restart.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config import PackConfig
from understudy.core.records import Example, Ledger, read_examples, write_jsonl
from understudy.data.chat import ChatTemplate
from understudy.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ARRAYS = ("token_ids", "loss_mask", "position_ids")
Encoded = tuple[list[int], list[int]]
DEGENERATE_ROWS = 8
"""Training rows from which one and the same answer to all is a fault of the data, not of their number."""


@dataclass
class Rows:
    """One packed split, memory-mapped: three (rows, seq_len) arrays."""

    token_ids: NDArray[np.int32]
    loss_mask: NDArray[np.uint8]
    position_ids: NDArray[np.int32]

    def __len__(self) -> int:
        return int(self.token_ids.shape[0])


def pack(cfg: PackConfig, model_dir: Path, train: Sequence[Path], validation: Path | None, out: Path) -> Ledger:
    """Pack the examples of jsonl files into `out`; validation arrays only when there is a validation example.

    Raises DataError DATA_EMPTY, DATA_DEGENERATE, ALL_TRUNCATED, TOO_MANY_TRUNCATED. Same inputs give the same bytes.
    """
    template = ChatTemplate.load(model_dir)
    ledger, rejects = Ledger(), list[dict[str, str]]()
    report: dict[str, Any] = {"seq_len_tokens": cfg.seq_len_tokens}
    splits = {"train": [e for path in train for e in read_examples(path)]}
    splits["validation"] = read_examples(validation) if validation else []
    if not splits["train"]:
        raise DataError("DATA_EMPTY", "train", "no example to train on", "look into the rejects of the stages before")
    _refuse_degenerate(splits["train"])
    out.mkdir(parents=True, exist_ok=True)
    for split, examples in splits.items():
        encoded, counts = _encode(cfg, template, examples, (ledger, rejects))
        if split == "train":
            _check(cfg, counts)
        if not encoded:
            continue
        arrays, used = fill(cfg.seq_len_tokens, encoded)
        for name, array in arrays.items():
            _save(out / f"{split}.{name}.npy", array)
        rows = len(arrays["token_ids"])
        ledger.note(f"{split}_rows", rows)
        counts.pop("lengths")
        supervised = int(arrays["loss_mask"].sum())
        share = round(used / (rows * cfg.seq_len_tokens), 6)
        report[split] = counts | {"rows": rows, "tokens": used, "supervised_tokens": supervised, "fill": share}
    text = json.dumps(report, indent=1, sort_keys=True) + "\n"
    (out / "pack.json").write_text(text, encoding="utf-8")
    write_jsonl(out / "rejects.jsonl", rejects)
    return ledger


def _refuse_degenerate(examples: list[Example]) -> None:
    """One answer to everything teaches nothing; a mapping of the wrong column looks so."""
    answers = {" ".join((e.answer or "").split()) for e in examples}
    if len(examples) >= DEGENERATE_ROWS and len(answers) == 1:
        what = f"all {len(examples)} training answers are the same text, {answers.pop()[:60]!r}"
        raise DataError("DATA_DEGENERATE", "train", what, "look at the column that `fields` maps to the answer")


def load(packed: Path, split: str) -> Rows | None:
    """The arrays of a split, memory-mapped and read-only; None when the split has no rows."""
    import numpy as np

    if not (packed / f"{split}.token_ids.npy").is_file():
        return None
    return Rows(*(np.load(packed / f"{split}.{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS))


def _encode(
    cfg: PackConfig, template: ChatTemplate, examples: list[Example], books: tuple[Ledger, list[dict[str, str]]]
) -> tuple[list[Encoded], dict[str, Any]]:
    """Encode and cut at seq_len; a row without a supervised token left is rejected."""
    encoded: list[Encoded] = []
    lengths = []
    truncated = 0
    ledger, rejects = books

    def reject(example: Example, reason: str, detail: str) -> None:
        ledger.reject(reason)
        rejects.append({"where": example.id, "reason": reason, "detail": detail})

    for example in examples:
        ledger.rows_in += 1
        ids, mask = template.encode(example.messages)
        lengths.append(len(ids))
        if not any(mask):
            reject(example, "no_answer", "no token of it is learnt")
            continue
        if len(ids) > cfg.seq_len_tokens:
            truncated += 1
            ledger.note("truncated")
            ids, mask = ids[: cfg.seq_len_tokens], mask[: cfg.seq_len_tokens]
            if not any(mask):
                reject(
                    example, "no_answer_left", f"the answer starts after token {cfg.seq_len_tokens} of {lengths[-1]}"
                )
                continue
        ledger.rows_out += 1
        encoded.append((ids, mask))
    share = round(truncated / len(examples), 6) if examples else 0.0
    counts: dict[str, Any] = {"examples": len(encoded), "truncated": truncated, "truncated_share": share}
    return encoded, counts | {"percentiles": _percentiles(lengths), "lengths": lengths}


def _check(cfg: PackConfig, counts: dict[str, Any]) -> None:
    total, truncated, percentiles = len(counts["lengths"]), counts["truncated"], counts["percentiles"]
    seen = ", ".join(f"p{k} {v}" for k, v in percentiles.items())
    fix = "raise pack.seq_len_tokens, or shorten the contexts"
    if truncated == total:
        what = f"all {total} rows are longer than {cfg.seq_len_tokens} tokens (lengths: {seen})"
        raise DataError("ALL_TRUNCATED", "pack.seq_len_tokens", what, fix)
    if truncated / total > cfg.max_truncated:
        what = f"{truncated} of {total} rows are longer than {cfg.seq_len_tokens} tokens (lengths: {seen})"
        raise DataError("TOO_MANY_TRUNCATED", "pack.max_truncated", f"{what}, allowed {cfg.max_truncated:g}", fix)
    if not counts["examples"]:
        what = f"none of {total} rows has an answer to learn from"
        raise DataError("DATA_EMPTY", "train", what, "give examples whose last turn is the assistant's")


def _percentiles(lengths: list[int]) -> dict[str, int]:
    ordered = sorted(lengths)
    return {str(p): ordered[min(len(ordered) - 1, len(ordered) * p // 100)] for p in (0, 50, 90, 99, 100) if ordered}


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices per bin, best-fit-decreasing (Johnson 1973): the longest first, each into the fullest bin it fits.

    Ties go by index, so that the result depends on the lengths alone.
    """
    bins: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room left, bin), sorted
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        at = bisect_left(free, (lengths[index], -1))
        if at < len(free):
            room, number = free.pop(at)
        else:
            room, number = capacity, len(bins)
            bins.append([])
        bins[number].append(index)
        insort(free, (room - lengths[index], number))
    return bins


def fill(seq_len: int, encoded: Sequence[tuple[Any, Any]]) -> tuple[dict[str, Any], int]:
    """Pack (ids, mask) pairs by best fit: the three arrays and the count of used positions.

    Padding is token 0, unsupervised, a segment of its own.
    """
    import numpy as np

    bins = best_fit([len(ids) for ids, _ in encoded], seq_len)
    token_ids = np.zeros((len(bins), seq_len), dtype=np.int32)
    loss_mask = np.zeros((len(bins), seq_len), dtype=np.uint8)
    position_ids = np.zeros((len(bins), seq_len), dtype=np.int32)
    used = 0
    for row, members in enumerate(bins):
        at = 0
        for index in members:
            ids, mask = encoded[index]
            end = at + len(ids)
            token_ids[row, at:end] = ids
            loss_mask[row, at:end] = mask
            position_ids[row, at:end] = np.arange(len(ids))
            at = end
        position_ids[row, at:] = np.arange(seq_len - at)
        used += at
    return {"token_ids": token_ids, "loss_mask": loss_mask, "position_ids": position_ids}, used


def _save(path: Path, array: Any) -> None:
    import numpy as np

    with open(path, "wb") as f:
        np.save(f, array, allow_pickle=False)
        f.flush()
        os.fsync(f.fileno())
