"""Which format a file has, by its suffix and its bytes, and the reader for it.

Only a declared format is read: bytes that are something else, a zip named .csv or an error page named .jsonl, stop the
run with their real kind.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import IO

from understudy.config import SourceConfig
from understudy.data.clean import Notes, guess_wide
from understudy.data.sources.archives import COMPRESSED, Part, spooled, unpack
from understudy.data.sources.delimited import read_csv_rows
from understudy.data.sources.files import SourceFile, changed
from understudy.data.sources.reader import BOM, Bad, File, Row, read_json_rows, read_jsonl_rows
from understudy.errors import ConfigError, DataError

SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet",
    ".pq": "parquet", ".txt": "text", ".text": "text", ".md": "text", ".html": "html", ".htm": "html", ".xhtml": "html",
}  # fmt: skip
MAGIC = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "an empty zip archive",
    b"\x1f\x8b": "gzip data",
    b"\x28\xb5\x2f\xfd": "zstd data",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ": "xz data",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a rar archive",
    b"PAR1": "a Parquet file",
    b"PARE": "an encrypted Parquet file",
    b"ARROW1": "an Arrow file",
    b"Obj\x01": "an Avro file",
    b"%PDF": "a PDF",
    b"\xd0\xcf\x11\xe0": "an Office document",
    b"SQLite format 3": "an SQLite database",
    b"version https://git-lfs": "a Git LFS pointer, not the data",
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
}
PAGE = "an HTML page"
PACKED = {"gzip data": ".gz", "zstd data": ".zst", "a zip archive": ".zip"}
ENCRYPTED = b"E\0n\0c\0r\0y\0p\0t\0e\0d\0P\0a\0c\0k\0a\0g\0e\0"


def format_of(name: str, source: SourceConfig) -> str:
    """The format that the source or a file's suffix declares, `.gz` and `.zst` looked through; empty when none."""
    if source.format != "auto":
        return source.format
    stem, suffix = posixpath.splitext(name)
    if suffix.lower() in COMPRESSED and suffix.lower() != ".tgz":
        suffix = posixpath.splitext(stem)[1]
    return SUFFIXES.get(suffix.lower(), "")


def read_file(
    file: SourceFile, source: SourceConfig, notes: Notes | None = None, wanted: Collection[str] = ()
) -> Iterator[Row | Bad]:
    """Stream the rows of one file; with format `squad` a row is one article.

    `notes` collects counts of what was normalised, `wanted` names the columns that are mapped. Raises ConfigError
    FORMAT_UNKNOWN, FILE_DENIED, CSV_DELIMITER, SELECTOR; DataError DATA_EMPTY, DATA_SHAPE, CSV_HEADER, FILE_KIND,
    FILE_LOCKED, FILE_CORRUPT, FILE_CHANGED or a row reason that makes the whole file unreadable; IntegrityError
    ARCHIVE_UNSAFE, ARCHIVE_LIMIT.
    """
    before = file.state()
    count = 0
    with file.open() as handle:
        for part in unpack(handle, file.name, file.label, source):
            for item in _read_part(part, source, {} if notes is None else notes, wanted):
                count += 1
                yield item
    if file.state() != before:
        raise changed(file.label)
    if not count:
        raise DataError("DATA_EMPTY", file.label, "the file holds no row", "check the export that wrote it")


def _read_part(part: Part, source: SourceConfig, notes: Notes, wanted: Collection[str]) -> Iterator[Row | Bad]:
    kind = format_of(part.name, source)
    _refuse_kind(part, kind)
    if not kind:
        suffix = posixpath.splitext(part.name)[1]
        fix = "set `format`, or choose files by `path` or `members`"
        raise ConfigError("FORMAT_UNKNOWN", part.label, f"the suffix {suffix!r} names no format", fix)
    tab = part.name.lower().endswith(".tsv") and "delimiter" not in source.model_fields_set
    file = File(part.label, source.max_row_bytes, "\t" if tab else source.delimiter, notes)
    if kind == "parquet":
        from understudy.data.sources.columnar import read_parquet_rows

        with _seekable(part.stream) as handle:
            yield from read_parquet_rows(handle, file, wanted)
        return
    file.wide = guess_wide(part.stream.peek(1024)[:1024])
    if kind in ("text", "html"):
        from understudy.data.sources import documents

        if kind == "html":
            yield from documents.read_html_rows(part.stream, file, part.name, source.select)
        else:
            yield from documents.read_text_rows(part.stream, file, part.name, source.unit)
        return
    readers = {"jsonl": read_jsonl_rows, "json": read_json_rows, "squad": read_json_rows, "csv": read_csv_rows}
    yield from readers[kind](part.stream, file)


@contextmanager
def _seekable(stream: BufferedReader) -> Iterator[IO[bytes]]:
    if stream.seekable():
        yield stream
        return
    with spooled(stream) as copy:
        yield copy


def _refuse_kind(part: Part, kind: str) -> None:
    """Refuse bytes that are not what they are declared to be."""
    head = part.stream.peek(512)[:512]
    start = head.removeprefix(BOM).lstrip()
    for magic, name in MAGIC.items():
        if not (start.lower() if name == PAGE else start).startswith(magic):
            continue
        if (kind == "html" and name == PAGE) or (kind == "parquet" and name == "a Parquet file"):
            return
        if name in ("an Office document", "a PDF", "an encrypted Parquet file"):
            _refuse_locked(part, name)
        fix = f"name it {PACKED[name]}" if name in PACKED else "give the rows as JSON Lines, JSON, CSV or Parquet"
        raise DataError("FILE_KIND", part.label, f"this is {name}", fix)
    if head[257:262] == b"ustar":
        raise DataError("FILE_KIND", part.label, "this is a tar archive", "name it .tar")


def _refuse_locked(part: Part, name: str) -> None:
    """Raise DataError FILE_LOCKED for a document that wants a password."""
    body = part.stream.read(1 << 20)
    if part.stream.seekable():
        part.stream.seek(max(0, part.stream.seek(0, 2) - (1 << 16)))
        body += part.stream.read()
    if b"/Encrypt" in body or ENCRYPTED in body or name.startswith("an encrypted"):
        raise DataError("FILE_LOCKED", part.label, f"this is {name} behind a password", "unlock it and export its text")
