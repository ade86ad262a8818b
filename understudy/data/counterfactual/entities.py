"""Whom the experiment asks about, from training rows only, and the questions, from a file of buckets."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.core.records import Document, Record
from understudy.data.counterfactual.lexicon import language_of, read_yaml
from understudy.data.counterfactual.rewrite import Person, mentions
from understudy.errors import ConfigError, DataError

SLOT = re.compile(r"\{([^{}]*)\}")
_CASE = re.compile(r"name(?::(?:nom|gen|dat|acc|ins|prep))?")


@dataclass(frozen=True)
class Entity:
    """A person of the training rows with one text; `known` holds its groups by attribute, where a file gives them."""

    name: str
    text: str
    known: dict[str, str] = field(default_factory=dict)

    @property
    def person(self) -> Person:
        return Person(self.name, language_of(self.name))


@dataclass(frozen=True, slots=True)
class Query:
    bucket: str
    text: str
    language: str


def entities(rows: Sequence[Record], table: Path | None) -> tuple[list[Entity], list[str]]:
    """Every group of the training rows with a text that names it; with a table, those of its names that are there.

    Also the names of the table that no training row is about. The longest text wins, the first of equals.
    """
    found: dict[str, str] = {}
    for row in rows:
        name = row.meta.get("group")
        text = row.text if isinstance(row, Document) else str(row.meta.get("context") or "")
        if not isinstance(name, str) or not name.strip():
            continue
        named = text if mentions(text, Person(name, language_of(name))) else ""
        if len(named) > len(found.setdefault(name, "")):
            found[name] = named
    if table is None:
        return [Entity(name, text) for name, text in found.items()], []
    people = _table(table)
    return [Entity(n, found[n], known) for n, known in people.items() if n in found], [
        n for n in people if n not in found
    ]


def _table(path: Path) -> dict[str, dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(_text(path))))
    if not rows or "name" not in rows[0]:
        raise DataError("ENTITIES_SHAPE", path, "no rows, or no column `name`", "write a CSV file with a header")
    people: dict[str, dict[str, str]] = {}
    for row in rows:
        if name := (row.get("name") or "").strip():
            people[name] = {
                k: v.strip() for k, v in row.items() if k and k != "name" and isinstance(v, str) and v.strip()
            }
    return people


def queries(path: Path) -> list[Query]:
    """The questions in order. Raises ConfigError QUERIES_SHAPE, QUERIES_EMPTY or QUERIES_SLOT."""
    found = list(_lines(path) if path.suffix == ".jsonl" else _tree(path, read_yaml(path)))
    if not found:
        raise ConfigError("QUERIES_EMPTY", path, "holds no questions", 'write: bucket: ["How does {name} teach?"]')
    for query in found:
        for slot in SLOT.findall(query.text):
            if not (_CASE.fullmatch(slot) or slot == "group" or "/" in slot):
                what = f"{query.bucket!r} has the slot {{{slot}}}"
                raise ConfigError("QUERIES_SLOT", path, what, "known: {name}, {name:gen}, {group}, {one/other}")
    return found


def _lines(path: Path) -> Iterator[Query]:
    for number, line in enumerate(_text(path).splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
                query = Query(row["bucket"], row["text"], row.get("language") or language_of(row["text"]))
                if not all(isinstance(value, str) for value in (query.bucket, query.text, query.language)):
                    raise TypeError("no text")
                yield query
            except (ValueError, KeyError, TypeError, AttributeError):
                where = f"{path}:{number}"
                raise ConfigError("QUERIES_SHAPE", where, 'wanted {"bucket": ..., "text": ...}') from None


def _tree(path: Path, tree: Any, language: str | None = None) -> Iterator[Query]:
    if not isinstance(tree, dict):
        raise ConfigError("QUERIES_SHAPE", path, "wanted buckets with lists of questions")
    for bucket, texts in tree.items():
        if isinstance(texts, dict) and language is None:
            yield from _tree(path, texts, str(bucket))
        elif isinstance(texts, list) and all(isinstance(t, str) for t in texts):
            yield from (Query(str(bucket), t, language or language_of(t)) for t in texts)
        else:
            raise ConfigError("QUERIES_SHAPE", path, f"{bucket!r} is no list of questions", "write one question a line")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise DataError("FILE_NOT_FOUND", path, "no such file", "mend the path in the `bias` section") from None
    except UnicodeDecodeError as e:
        raise DataError("FILE_ENCODING", path, f"not UTF-8 at byte {e.start}", "save it as UTF-8") from None
