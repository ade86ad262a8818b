"""Files that are documents: plain text whole, by paragraph or by line, and HTML pages one by one.

A row has `text`, `name` (the file's own name) and, from a page, `title` and the columns that `select` names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from io import BufferedReader
from typing import Literal

from understudy.data.clean import Fault, scrub
from understudy.data.sources.markup import page_text, select_texts
from understudy.data.sources.reader import BOM, Bad, File, Line, Row, Values, decode, lines

Unit = Literal["document", "paragraph", "line"]

# <meta charset="windows-1251"> or <meta http-equiv="Content-Type" content="text/html; charset=windows-1251">
DECLARED = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([a-zA-Z0-9_:.-]{2,40})", re.IGNORECASE)
HEAD = 1024
"""Bytes in which a page must declare its encoding, as the HTML standard says."""


def read_text_rows(handle: BufferedReader, file: File, name: str, unit: Unit) -> Iterator[Row | Bad]:
    """One row for the file, for each paragraph (blank lines part them) or for each line that is not blank."""
    if unit == "document":
        yield _whole(handle, file, lambda raw: {"text": _decoded(raw, file), "name": name})
        return
    held, size = list[Line](), 0
    for line in lines(handle, file.limit):
        file.note_end(line)
        if line.raw is None:
            yield file.too_long(f"{file.label}:{line.number}", line.offset, line.size)
        elif unit == "line":
            yield from _joined([line], line.size, file, name)
        elif line.raw.strip():
            size += line.size + 1
            # Of a paragraph over the limit the beginning is enough to say where it stands.
            if size <= file.limit + 1:
                held.append(line)
        else:
            yield from _joined(held, size - 1, file, name)
            held, size = [], 0
    yield from _joined(held, size - 1, file, name)


def _joined(held: list[Line], size: int, file: File, name: str) -> Iterator[Row | Bad]:
    raw = b"\n".join(line.raw or b"" for line in held)
    if not raw.removeprefix(BOM).strip():
        return
    where, offset = f"{file.label}:{held[0].number}", held[0].offset
    if size > file.limit:
        yield file.too_long(where, offset, size)
        return

    def read() -> Values:
        first = raw.startswith(BOM) and offset == 0
        if first:
            file.note("bom_removed")
        text = decode(raw[3:] if first else raw, offset + 3 * first, file)
        return dict(scrub({"text": text, "name": name}, file.notes))

    yield file.parse(where, offset, read)


def read_html_rows(handle: BufferedReader, file: File, name: str, select: Mapping[str, str]) -> Iterator[Row | Bad]:
    """The page as one row: `text` and `title` as a reader sees them, and what each selector of `select` finds.

    Encoding: byte order mark, else what the page declares in its first 1,024 bytes, else UTF-8; bytes that are not
    in it cost the page. Raises ConfigError SELECTOR; ResourceError EXTRA_MISSING.
    """

    def read(raw: bytes) -> Values:
        page = _decoded(raw, file, _declared(raw, file))
        title, text = page_text(page)
        return {"text": text, "title": title, "name": name, **select_texts(page, select)}

    yield _whole(handle, file, read)


def _whole(handle: BufferedReader, file: File, read: object) -> Row | Bad:
    raw = handle.read(file.limit + 1)
    if len(raw) > file.limit:
        return Bad(file.label, 0, "ROW_TOO_LONG", f"more than {file.limit} bytes; that is the limit")
    return file.parse(file.label, 0, lambda: dict(scrub(read(raw), file.notes)))  # type: ignore[operator]


def _declared(raw: bytes, file: File) -> str:
    found = DECLARED.search(raw[:HEAD])
    if raw.startswith(BOM) or not found:
        return ""
    name = found[1].decode("ascii").lower()
    # Browsers read these two as Windows-1252, and pages mean it.
    name = "cp1252" if name in ("iso-8859-1", "latin1", "us-ascii", "ascii") else name
    # A declaration that could be read in ASCII does not stand in UTF-16; the HTML standard takes it for UTF-8.
    return "" if name in ("utf-8", "utf8") or name.startswith("utf-16") else name


def _decoded(raw: bytes, file: File, declared: str = "") -> str:
    if raw.startswith(BOM):
        file.note("bom_removed")
        return decode(raw[3:], 3, file)
    if not declared:
        return decode(raw, 0, file)
    try:
        text = raw.decode(declared)
    except LookupError:
        raise Fault("TEXT_ENCODING", f"the page declares the unknown encoding {declared!r}") from None
    except UnicodeDecodeError as e:
        raise Fault("TEXT_ENCODING", f"byte {e.start} is not in {declared}, which the page declares") from None
    except UnicodeError as e:
        raise Fault("TEXT_ENCODING", f"the page declares {declared!r}: {e}") from None
    file.note("encoding_declared")
    return text
