"""Collecting in tests: a source, its files, what comes of them, and the error that stops it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from understudy.config import CollectConfig, FieldMap, SourceConfig
from understudy.core.records import Ledger, read_jsonl
from understudy.data.sources.collect import collect
from understudy.errors import UnderstudyError

QA = {"question": "q", "response": "a"}


def source(path: str = "a.jsonl", fields: dict[str, str] | None = None, **options: Any) -> SourceConfig:
    return SourceConfig(path=path, fields=FieldMap(**({"text": "text"} if fields is None else fields)), **options)


def put(project: Path, name: str, rows: list[Any] | str | bytes) -> None:
    path = project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(rows, list):
        rows = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(rows if isinstance(rows, bytes) else rows.encode())


def gather(project: Path, *sources: SourceConfig) -> tuple[Ledger, list[dict[str, Any]], list[dict[str, Any]]]:
    out = project / ".out"
    ledger = collect(CollectConfig(sources=list(sources)), project, out)
    rows, rejects = list(read_jsonl(out / "rows.jsonl")), list(read_jsonl(out / "rejects.jsonl"))
    assert ledger.balanced and ledger.rows_out == len(rows) and sum(ledger.rejected.values()) == len(rejects)
    return ledger, rows, rejects


def code(project: Path, *sources: SourceConfig) -> UnderstudyError:
    with pytest.raises(UnderstudyError) as e:
        gather(project, *sources)
    return e.value
