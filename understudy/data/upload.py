"""Prepared data to an object store or folder, so that a reader never sees half of it.

Files go into a folder named by their content, are read back and compared; only then does its `manifest.json`
appear, and `latest.json` beside the folders is replaced last. What is there already is not written again.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.config import UploadConfig
from understudy.core.records import Document, Example, Record, canonical, digest, from_json, read_jsonl, sha256_file
from understudy.data.sources.objects import open_store, scheme_of, store_errors
from understudy.errors import ConfigError, RemoteError, extra

SUFFIX = {"messages": ".jsonl", "jsonl": ".jsonl", "parquet": ".parquet", "csv": ".csv"}
MANIFEST, LATEST = "manifest.json", "latest.json"
# A spreadsheet takes a cell that starts so for a formula; the last four are full-width forms of the first.
FORMULA = re.compile("^[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20]")
ROWS_AT_ONCE = 1_000


@dataclass(frozen=True)
class Uploaded:
    """Where the data lies now, and what was done for it."""

    folder: str
    files: list[dict[str, Any]]
    """`name`, `rows`, `bytes` and `sha256` of each file."""
    written: bool
    """False when the same data was there already."""


def upload(cfg: UploadConfig, parts: Mapping[str, Sequence[Path]], to: str, project: Path) -> Uploaded:
    """Write the chosen splits (name -> files of records) to the URL or folder `to`.

    Raises ConfigError UPLOAD_EMPTY, UPLOAD_SHAPE; RemoteError UPLOAD_DAMAGED; and what `open_store` and stores raise.
    """
    target = _Target(to, cfg, project)
    with tempfile.TemporaryDirectory() as temporary:
        files = []
        for name in cfg.what:
            rows = (from_json(row) for path in parts.get(name, ()) for row in read_jsonl(path))
            path = Path(temporary) / f"{name}{SUFFIX[cfg.format]}"
            count = _write(path, rows, cfg.format, name)
            if not count:
                raise ConfigError("UPLOAD_EMPTY", name, "the last run has no such rows", "choose others in upload.what")
            files.append({"name": path.name, "rows": count, "bytes": path.stat().st_size, "sha256": sha256_file(path)})
        manifest = {"schema_version": 1, "format": cfg.format, "files": files}
        folder = digest(manifest, 16)
        if target.holds(folder, manifest):
            return Uploaded(target.url(folder), files, written=target.point(folder, manifest))
        for file in files:
            target.put(f"{folder}/{file['name']}", Path(temporary) / str(file["name"]), str(file["sha256"]))
        target.put_text(f"{folder}/{MANIFEST}", _text(manifest))
        target.point(folder, manifest)
    return Uploaded(target.url(folder), files, written=True)


class _Target:
    """A folder of a store, or of this machine."""

    def __init__(self, to: str, cfg: UploadConfig, project: Path) -> None:
        self.local = scheme_of(to) in ("", "file")
        if self.local:
            with extra("remote"):
                import fsspec
            self.root = os.path.abspath(project / to.removeprefix("file://"))
            self.store, self.shown = fsspec.filesystem("file", auto_mkdir=True), to.rstrip("/")
        else:
            self.store, self.shown = open_store(to, cfg.storage), to.rstrip("/")
            self.root = self.shown.split("://", 1)[1]

    def url(self, name: str) -> str:
        return f"{self.shown}/{name}"

    def holds(self, folder: str, manifest: Mapping[str, Any]) -> bool:
        """Whether the folder is whole: its manifest is this one, and each file has its size."""
        if self.read(f"{folder}/{MANIFEST}") != _text(manifest).encode():
            return False
        with store_errors(self.url(folder)):
            return all(
                self.store.exists(path := f"{self.root}/{folder}/{file['name']}")
                and self.store.info(path)["size"] == file["bytes"]
                for file in manifest["files"]
            )

    def point(self, folder: str, manifest: Mapping[str, Any]) -> bool:
        """Have `latest.json` name this folder; false when it did."""
        text = _text({"folder": folder, "manifest_sha256": hashlib.sha256(_text(manifest).encode()).hexdigest()})
        if self.read(LATEST) == text.encode():
            return False
        self.put_text(LATEST, text)
        return True

    def read(self, name: str) -> bytes | None:
        with store_errors(self.url(name)):
            with suppress(FileNotFoundError):
                return bytes(self.store.cat_file(f"{self.root}/{name}"))
            return None

    def put_text(self, name: str, text: str) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "text"
            path.write_text(text, "utf-8")
            self.put(name, path, sha256_file(path))

    def put(self, name: str, path: Path, wanted: str) -> None:
        """Write one file whole, and read it back. An object appears at once; a file here is renamed into its place."""
        final = f"{self.root}/{name}"
        written = f"{final}.part" if self.local else final
        with store_errors(self.url(name)):
            self.store.put_file(str(path), written)
            with self.store.open(written, "rb") as f:
                found = hashlib.file_digest(f, "sha256").hexdigest()
            if found != wanted:
                what = f"what was read back has sha256 {found[:12]}, not {wanted[:12]}"
                raise RemoteError("UPLOAD_DAMAGED", self.url(name), what, "run again; the manifest was not written")
        if self.local:
            os.replace(written, final)


def _text(value: Mapping[str, Any]) -> str:
    return canonical(value) + "\n"


def _write(path: Path, rows: Iterator[Record], form: str, name: str) -> int:
    if form == "parquet":
        return _write_parquet(path, rows)
    count = 0
    with open(path, "w", encoding="utf-8", newline="") as f:
        table = csv.writer(f, quoting=csv.QUOTE_ALL)
        if form == "csv":
            table.writerow(("id", "prompt", "answer", "category", "source"))
        for row in rows:
            count += 1
            if form == "csv":
                table.writerow(map(_neutral, _cells(row)))
            elif form == "messages":
                f.write(json.dumps({"messages": _chat(row, name)}, ensure_ascii=False) + "\n")
            else:
                f.write(json.dumps(row.to_json(), ensure_ascii=False, sort_keys=True) + "\n")
    return count


def _chat(row: Record, name: str) -> list[dict[str, str]]:
    if isinstance(row, Document):
        fix = "leave it out of upload.what, or take format jsonl or parquet"
        raise ConfigError("UPLOAD_SHAPE", name, "its rows are documents, not chats", fix)
    return row.messages


def _cells(row: Record) -> tuple[str, ...]:
    category, source = str(row.meta.get("category", "")), str(row.meta.get("source", ""))
    if isinstance(row, Document):
        return row.id, row.text, "", category, source
    prompt = "\n\n".join(turn["content"] for turn in row.prompt)
    return row.id, prompt, row.answer or "", category, source


def _neutral(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula; only in files for people."""
    return f"'{cell}" if FORMULA.match(cell) else cell


def _write_parquet(path: Path, rows: Iterator[Record]) -> int:
    """Columns id, text, messages (list of role and content) and meta (JSON text)."""
    with extra("parquet"):
        import pyarrow
        import pyarrow.parquet
    text = pyarrow.string()
    turn = pyarrow.struct([("role", text), ("content", text)])
    schema = pyarrow.schema([("id", text), ("text", text), ("messages", pyarrow.list_(turn)), ("meta", text)])
    count = 0
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in _batches(rows):
            count += len(batch)
            writer.write_batch(pyarrow.RecordBatch.from_pylist([_flat(row) for row in batch], schema=schema))
    return count


def _flat(row: Record) -> dict[str, Any]:
    text = row.text if isinstance(row, Document) else None
    messages = row.messages if isinstance(row, Example) else None
    return {"id": row.id, "text": text, "messages": messages, "meta": canonical(row.meta)}


def _batches(rows: Iterator[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
