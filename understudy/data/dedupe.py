"""Exact duplicates after folding: dedupe(rows) -> rows.jsonl + rejects.jsonl; the first of equals stays.

An example equals another when every turn does, so one prompt with two answers stays twice.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from understudy.config import DedupeConfig
from understudy.core.records import Document, Ledger, Record, digest, from_json, read_jsonl, write_jsonl


def fold(text: str) -> str:
    """The form in which texts are compared: NFC, case folded, white space folded; the same in every locale."""
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).split())


def content_key(record: Record, normalise: bool = True) -> str:
    """Equal for records with the same content; meta and id do not count."""
    form = fold if normalise else str
    if isinstance(record, Document):
        return digest(["document", form(record.text)], 32)
    return digest(["example", [[turn["role"], form(turn["content"])] for turn in record.messages]], 32)


def dedupe(cfg: DedupeConfig, rows: Path, out: Path) -> Ledger:
    """Keep the first of equal records in file order; the rest are rejected as DUPLICATE with the id that was kept."""
    ledger, rejects, first = Ledger(), list[dict[str, str]](), dict[str, str]()

    def kept() -> Iterator[Record]:
        for row in read_jsonl(rows):
            ledger.rows_in += 1
            record = from_json(row)
            key = content_key(record, cfg.normalise)
            if key in first:
                ledger.reject("DUPLICATE")
                detail = f"same content as {first[key]}"
                rejects.append({"where": record.id, "reason": "DUPLICATE", "detail": detail})
                continue
            first[key] = record.id
            yield record

    ledger.rows_out = write_jsonl(out / "rows.jsonl", kept())
    write_jsonl(out / "rejects.jsonl", rejects)
    return ledger
