"""CSV and its kin: records cut lexically in bytes, each decoded and parsed alone.

A quote that never closes costs one row for each of its lines; a wrong delimiter is named before a row is read.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from io import BufferedReader
from itertools import chain, islice

from understudy.data.clean import Fault, scrub
from understudy.data.sources.reader import BOM, Bad, File, Line, Row, Values, decode, lines
from understudy.errors import ConfigError, DataError

DELIMITERS = ",;\t|"


def _open_after(raw: bytes, delimiter: bytes, quoted: bool) -> bool:
    """Whether a quoted field is still open at the end of this line; a quote opens only at the start of a field."""
    if not quoted and b'"' not in raw:
        return False
    position = 0
    while position <= len(raw):
        if not quoted and raw[position : position + 1] == b'"':
            quoted, position = True, position + 1
        if quoted:
            position = raw.find(b'"', position)
            if position < 0:
                return True
            if raw[position + 1 : position + 2] == b'"':
                position += 2
                continue
            quoted = False
        position = raw.find(delimiter, position)
        if position < 0:
            return False
        position += len(delimiter)
    return False


def _csv_records(handle: BufferedReader, file: File) -> Iterator[tuple[list[Line], str]]:
    """Lines that make one record and why they cannot be one; an unclosed quote costs one row for each of its lines."""
    delimiter, held, size, quoted, skipping = file.delimiter.encode(), list[Line](), 0, False, False
    for line in lines(handle, file.limit):
        file.note_end(line)
        if line.raw is None:
            yield from (([one], "ROW_TOO_LONG") for one in [*held, line])
            held, size, quoted, skipping = [], 0, False, False
            continue
        quoted = _open_after(line.raw, delimiter, quoted)
        held.append(line)
        size += len(line.raw) + 1
        if skipping or size > file.limit:
            yield from (([one], "ROW_TOO_LONG") for one in held)
            held, skipping = [], True
        elif not quoted and (len(held) > 1 or line.raw.strip()):
            yield held, ""
        if not quoted:
            held, size, skipping = [], 0, False
    reason = "ROW_QUOTE" if held and held[-1].end else "ROW_TRUNCATED"
    yield from (([one], reason) for one in held)


def _fields(text: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error as e:
        raise Fault("ROW_QUOTE", str(e)) from None


# id,sentence,acceptable
# 0,"Line one, with a comma
# and a second line",1
def read_csv_rows(handle: BufferedReader, file: File) -> Iterator[Row | Bad]:
    if file.delimiter in '"\r\n':
        raise ConfigError("CSV_DELIMITER", file.label, f"{file.delimiter!r} cannot separate columns")
    csv.field_size_limit(max(csv.field_size_limit(), file.limit + 1))
    records = _csv_records(handle, file)
    if (first := next(records, None)) is None:
        return
    header = _csv_header(first, file)
    if len(header) == 1:
        ahead = list(islice(records, 10))
        _check_delimiter(first[0], ahead, file)
        records = chain(ahead, records)
    for number, (held, reason) in enumerate(records, 1):
        where, offset = f"{file.label}:row {number}", held[0].offset
        if reason == "ROW_TOO_LONG":
            yield file.too_long(where, offset, held[0].size)
        elif reason:
            yield Bad(where, offset, reason, f"a quote opened on or before line {held[0].number} never closes")
        else:
            yield _csv_row(where, held, header, file)


def _text(held: list[Line], file: File) -> str:
    raw = b"\n".join(line.raw or b"" for line in held)
    if held[0].number == 1 and raw.startswith(BOM):
        file.note("bom_removed")
        return decode(raw[3:], 3, file)
    return decode(raw, held[0].offset, file, last=not held[-1].end)


def _csv_header(first: tuple[list[Line], str], file: File) -> list[str]:
    try:
        if first[1]:
            raise Fault(first[1], "the header cannot be read")
        header = _fields(_text(first[0], file), file.delimiter)
    except Fault as fault:
        raise DataError(fault.reason, f"{file.label}:header", fault.detail, "mend the header line") from None
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError("CSV_HEADER", f"{file.label}:header", f"columns named twice: {', '.join(twice)}", "rename one")
    return header


def _check_delimiter(first: list[Line], ahead: list[tuple[list[Line], str]], file: File) -> None:
    records = [first, *(held for held, _ in ahead)]
    texts = [b"\n".join(line.raw or b"" for line in held).decode("utf-8", "replace") for held in records]
    for delimiter in DELIMITERS.replace(file.delimiter, ""):
        counts = {len(next(csv.reader([text], delimiter=delimiter), [])) for text in texts}
        if len(counts) == 1 and (columns := counts.pop()) > 1 and ahead:
            what = f"one column with delimiter {file.delimiter!r}, but {delimiter!r} gives {columns} in every row"
            raise DataError("CSV_DELIMITER", file.label, what, f"set `delimiter: {json.dumps(delimiter)}`")


def _csv_row(where: str, held: list[Line], header: list[str], file: File) -> Row | Bad:
    def read() -> Values:
        fields = _fields(_text(held, file), file.delimiter)
        if len(fields) != len(header):
            cut = not held[-1].end and len(fields) < len(header)
            what = f"{len(fields)} columns, the header has {len(header)} (line {held[0].number})"
            raise Fault("ROW_TRUNCATED" if cut else "ROW_RAGGED", what)
        values: Values = scrub(dict(zip(header, fields, strict=True)), file.notes)
        return values

    return file.parse(where, held[0].offset, read)
