"""Row reader: bytes in, one Row or one Bad for every row; nothing is guessed, nothing is lost.

Files are split into rows lexically, in bytes and in bounded memory; then each row is decoded and parsed alone, so that
a bad row costs one row. `reason` is a stable code (`TEXT_ENCODING`); `detail` says what was seen and where.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from typing import Any, NamedTuple

from understudy.data.clean import Fault, Notes, guess_encoding, scrub
from understudy.errors import DataError

Values = dict[str, Any]
CHUNK = 1 << 18
MAX_DEPTH = 100
BOM = b"\xef\xbb\xbf"

# The runs are possessive: 8 MB of escapes must not build a backtracking stack nor a quadratic scan.
NESTING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|\\.|([\[{])|([\]}])', re.DOTALL)
SUSPECT = re.compile("\\\\[ubf]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


@dataclass(slots=True)
class Row:
    """One row; `offset` is its first byte in the file (-1 without a file), `meta` goes to the record's."""

    where: str
    offset: int
    values: Values
    meta: Values = field(default_factory=dict)


@dataclass(slots=True)
class Bad:
    """One quarantined row."""

    where: str
    offset: int
    reason: str
    detail: str

    def to_json(self) -> dict[str, str]:
        return {"where": self.where, "reason": self.reason, "detail": self.detail}


class Line(NamedTuple):
    """A line of a file, or an item of a list; `raw` is None over the limit, `end` empty without a final newline."""

    number: int
    offset: int
    raw: bytes | None
    size: int
    end: bytes


@dataclass(slots=True)
class File:
    """What every row of one file shares."""

    label: str
    limit: int
    delimiter: str
    notes: Notes
    wide: str = ""

    def note(self, name: str, count: int = 1) -> None:
        self.notes[name] = self.notes.get(name, 0) + count

    def note_end(self, line: Line) -> None:
        if line.end != b"\n":
            self.note({b"\r\n": "crlf_lines", b"\r": "cr_lines"}.get(line.end, "no_final_newline"))

    def parse(self, where: str, offset: int, read: Callable[[], Values]) -> Row | Bad:
        try:
            return Row(where, offset, read())
        except Fault as fault:
            return Bad(where, offset, fault.reason, fault.detail)

    def too_long(self, where: str, offset: int, size: int) -> Bad:
        return Bad(where, offset, "ROW_TOO_LONG", f"{size} bytes at byte {offset}; the limit is {self.limit}")


def lines(handle: BufferedReader, limit: int) -> Iterator[Line]:
    """Physical lines, ended by LF, CRLF or CR; of a line over `limit` bytes only the length is kept."""
    number, offset, size = 1, 0, 0
    parts: list[bytes] = []
    while chunk := handle.read(CHUNK):
        if chunk.endswith(b"\r") and handle.peek(1)[:1] == b"\n":
            chunk += handle.read(1)
        for piece in chunk.splitlines(keepends=True):
            size += len(piece)
            if size <= limit + 2:
                parts.append(piece)
            else:
                parts.clear()
            if piece[-1] != 10 and piece[-1] != 13:
                continue
            end = b"\r\n" if piece.endswith(b"\r\n") else piece[-1:]
            length = size - len(end)
            yield Line(number, offset, b"".join(parts)[:length] if length <= limit else None, length, end)
            number, offset, size = number + 1, offset + size, 0
            parts.clear()
    if size:
        yield Line(number, offset, b"".join(parts) if size <= limit else None, size, b"")


def decode(raw: bytes, offset: int, file: File, last: bool = False) -> str:
    """Text of one row whose first byte is at `offset`."""
    if file.wide:
        detail = f"bytes from {offset} are not UTF-8: it looks like {file.wide}; convert the file to UTF-8"
        raise Fault("TEXT_ENCODING", detail)
    if (at := raw.find(0)) >= 0:
        raise Fault("TEXT_NUL", f"a zero byte at byte {offset + at}")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as e:
        if last and e.reason == "unexpected end of data":
            raise Fault("ROW_TRUNCATED", f"the file ends inside a character at byte {offset + e.start}") from None
        seen = f"byte 0x{raw[e.start]:02x} at byte {offset + e.start} is not UTF-8"
        raise Fault("TEXT_ENCODING", f"{seen}: {guess_encoding(raw)}; convert the file to UTF-8") from None


def _pairs(pairs: list[tuple[str, Any]]) -> Values:
    if len(values := dict(pairs)) != len(pairs):
        keys = [key for key, _ in pairs]
        raise Fault("ROW_DUP_KEY", f"the key {next(k for k in keys if keys.count(k) > 1)!r} stands twice")
    return values


def _integer(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
        raise Fault("NUM_RANGE", f"the integer {text[:24]} ({len(text)} digits) does not fit 64 bits")
    return int(text)


def _real(text: str) -> float:
    if math.isinf(value := float(text)):
        raise Fault("NUM_RANGE", f"the number {text[:24]} does not fit a double")
    return value


def _constant(text: str) -> Any:
    raise Fault("NUM_NOT_FINITE", f"{text} is not JSON")


DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=_integer, parse_float=_real, parse_constant=_constant, strict=True
)


def _deep(text: str) -> bool:
    """Whether brackets outside strings nest deeper than MAX_DEPTH; one pass and no recursion."""
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return False
    depth = 0
    for match in NESTING.finditer(text):
        depth += 1 if match[1] else -1 if match[2] else 0
        if depth > MAX_DEPTH:
            return True
    return False


def parse_value(text: str, last: bool = False) -> Any:
    """One JSON value; raises Fault."""
    text = text.strip(" \t\r\n\v\f")
    if _deep(text):
        raise Fault("ROW_DEPTH", f"nested deeper than {MAX_DEPTH} levels")
    try:
        value, end = DECODER.raw_decode(text)
    except json.JSONDecodeError as e:
        cut = text[:1] == "{" and (not text.endswith("}") or e.pos >= len(text))
        reason = "ROW_TRUNCATED" if last and cut else "ROW_JSON"
        raise Fault(reason, f"{e.msg} at character {e.pos + 1} of the row") from None
    if rest := text[end:].lstrip():
        reason = "ROW_MULTI" if rest[0] in "{[" else "ROW_JSON"
        raise Fault(reason, f"more text after the value at character {end + 1} of the row")
    return value


def _object(text: str, notes: Notes, last: bool = False) -> Values:
    values = parse_value(text, last)
    if not isinstance(values, dict):
        raise Fault("ROW_NOT_OBJECT", f"the row is a JSON {type(values).__name__}, not an object")
    return dict(scrub(values, notes)) if SUSPECT.search(text) else values


# {"question": "Weng earns $12 an hour. ...", "answer": "... #### 10"}
def read_jsonl_rows(handle: BufferedReader, file: File) -> Iterator[Row | Bad]:
    for line in lines(handle, file.limit):
        where, offset, raw = f"{file.label}:{line.number}", line.offset, line.raw
        file.note_end(line)
        if raw is None:
            yield file.too_long(where, offset, line.size)
            continue
        if raw.startswith(BOM):
            file.note("bom_removed")
            raw, offset = raw[3:], offset + 3
        if not raw.strip(b" \t\v\f\x00" if file.wide else None):
            continue
        last = not line.end
        try:
            yield Row(where, offset, _object(decode(raw, offset, file, last), file.notes, last))
        except Fault as fault:
            yield Bad(where, offset, fault.reason, fault.detail)


class _Items:
    """Cuts the items out of the one list of a JSON file; holds one item and a chunk, never the file."""

    MARK = re.compile(rb'["\[\]{},]')
    STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)

    def __init__(self, label: str, limit: int) -> None:
        self.label, self.limit = label, limit
        self.root = ""
        self.depth = self.home = self.lists = self.size = self.start = self.line_start = 0
        self.line, self.counted, self.base = 1, 0, 0
        self.in_string = self.escaped = self.active = self.closed = False
        self.items = 0
        self.parts: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[Line]:
        position = mark = 0
        while position < len(chunk) and not self.closed:
            if self.in_string:
                position = self._string(chunk, position)
                continue
            found = self.MARK.search(chunk, position)
            if not found:
                break
            position = found.end()
            token = found[0]
            if token == b'"':
                self.in_string = True
            elif token in b"[{":
                if self._open(token):
                    mark = position
                    self._begin(chunk, position)
            elif token == b"," and self.active and self.depth == self.home:
                yield self._end(chunk[mark : position - 1])
                mark = position
                self._begin(chunk, position)
            elif token in b"]}":
                if self.active and self.depth == self.home:
                    self.active = False
                    self._take(chunk[mark : position - 1])
                    if self.items or b"".join(self.parts).strip() or self.size > self.limit:
                        yield self._end(b"")
                self.depth -= 1
                self.closed = self.depth == 0
        if self.active:
            self._take(chunk[mark:])
        self._count(chunk, len(chunk))
        self.counted, self.base = 0, self.base + len(chunk)
        if self.closed and (rest := chunk[position:].strip()):
            raise DataError("DATA_SHAPE", self.label, f"more JSON after the end: {rest[:20]!r}", "set `format: jsonl`")

    def _string(self, chunk: bytes, position: int) -> int:
        if self.escaped:
            self.escaped = False
            return position + 1
        end = self.STRING.match(chunk, position).end()  # type: ignore[union-attr]
        if end < len(chunk):
            self.in_string = chunk[end] != 0x22
            self.escaped = self.in_string
            return end + 1
        return end

    def _open(self, token: bytes) -> bool:
        """Count a bracket; true when it opens the list of rows."""
        self.root = self.root or token.decode()
        self.depth += 1
        if token != b"[" or self.active or self.depth != (1 if self.root == "[" else 2):
            return False
        self.lists += 1
        if self.lists > 1:
            raise DataError("DATA_SHAPE", self.label, "the object holds two lists", "give a file with one list of rows")
        self.home, self.active = self.depth, True
        return True

    def _count(self, chunk: bytes, position: int) -> None:
        self.line += chunk.count(b"\n", self.counted, position)
        self.counted = position

    def _begin(self, chunk: bytes, position: int) -> None:
        self._count(chunk, position)
        self.line_start, self.start, self.size = self.line, self.base + position, 0
        self.parts.clear()

    def _take(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size <= self.limit:
            self.parts.append(piece)
        else:
            self.parts.clear()

    def _end(self, piece: bytes) -> Line:
        self._take(piece)
        self.items += 1
        if self.size > self.limit:
            return Line(self.line_start, self.start, None, self.size, b",")
        raw = b"".join(self.parts)
        lead = len(raw) - len(raw.lstrip())
        return Line(self.line_start + raw.count(b"\n", 0, lead), self.start + lead, raw.strip(), self.size, b",")


# [{"question": "...", "answer": "..."}, ...]   or   {"data": [{...}, ...], "version": "1.1"}
def read_json_rows(handle: BufferedReader, file: File) -> Iterator[Row | Bad]:
    if file.wide:
        detail = f"bytes from 0 are not UTF-8: it looks like {file.wide}; convert the file to UTF-8"
        yield Bad(file.label, 0, "TEXT_ENCODING", detail)
        return
    items = _Items(file.label, file.limit)
    while chunk := handle.read(CHUNK):
        if items.base == 0 and chunk.startswith(BOM):
            file.note("bom_removed")
            chunk, items.base = chunk[3:], 3
        if not items.root and (start := chunk.lstrip()) and start[:1] not in b"[{":
            raise DataError("DATA_SHAPE", file.label, f"JSON that starts with {start[:12]!r}", "give a list of objects")
        for item in items.feed(chunk):
            yield _json_item(item, file)
    if items.active:
        where, at = f"{file.label}:{items.line_start}", items.start
        yield Bad(where, at, "ROW_TRUNCATED", f"the file ends inside the list, in the item that starts at byte {at}")
    elif items.root and not items.lists:
        fix = "give a list of objects, or set `format: jsonl`"
        raise DataError("DATA_SHAPE", file.label, "the object holds no list of rows", fix)
    elif items.root and not items.closed:
        yield Bad(f"{file.label}:{items.line}", items.base, "ROW_TRUNCATED", "the file ends inside the object")


def _json_item(item: Line, file: File) -> Row | Bad:
    where, raw = f"{file.label}:{item.number}", item.raw
    if raw is None:
        return file.too_long(where, item.offset, item.size)
    return file.parse(where, item.offset, lambda: _object(decode(raw, item.offset, file), file.notes))
