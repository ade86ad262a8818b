"""A first look at a source: some of its rows, and how many there are, before anything is collected."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from understudy.config import SourceConfig
from understudy.core.records import Record
from understudy.data.clean import Fault
from understudy.data.sources import sql
from understudy.data.sources.files import LocalFile, local_files
from understudy.data.sources.formats import read_file
from understudy.data.sources.mapping import record_of, roles_of, squad_questions
from understudy.data.sources.objects import scheme_of
from understudy.data.sources.reader import Bad, Row


def peek(source: SourceConfig, project: Path, most: int) -> tuple[list[Record], int, bool]:
    """The first good rows, at most `most`; how many rows there are in all; and whether those were counted.

    Rows beyond are told from the bytes that are left. Only local files and queries without a price are read; of any
    other source nothing is known: ([], 0, False). Bad rows are passed over. Raises what the readers raise.
    """
    roles = roles_of(source)
    if source.kind == "sql":
        rows = list(islice(_good(sql.read_sql(source, project, {}, {}), source, roles), most + 1))
        return [record for record, _ in rows[:most]], len(rows), len(rows) <= most
    if source.kind != "files" or scheme_of(source.path or "") not in ("", "file"):
        return [], 0, False
    found: list[Record] = []
    read = left = 0
    for file in local_files(source, project):
        size = file.path.stat().st_size
        at = 0
        for record, offset in _good(_rows(file, source, roles), source, roles):
            if len(found) >= most:
                at = max(offset, at)
                left += max(size - at, 1)
                break
            found.append(record)
            at = max(offset, at)
        else:
            at = size
        read += at
    return found, round(len(found) * (1 + left / max(read, 1))), not left


def _rows(file: LocalFile, source: SourceConfig, roles: dict[str, str]) -> Iterator[Row | Bad]:
    items = read_file(file, source, {}, set(roles.values()))
    return squad_questions(items) if source.format == "squad" else items


def _good(items: Iterator[Row | Bad], source: SourceConfig, roles: dict[str, str]) -> Iterator[tuple[Record, int]]:
    """The records of good rows, each with the place of its first byte (-1 where there is none)."""
    for item in items:
        if isinstance(item, Row):
            try:
                yield record_of(item, source, item.where, roles, {}), item.offset
            except Fault:
                continue
