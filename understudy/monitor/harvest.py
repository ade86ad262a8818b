"""Harvest: consented rows of the traffic log become a source of the next round, each row once, with where it is from.

Answers of the rented service, and the understudy's that a person rated up, become examples; what was rated down becomes
a candidate for the coverage set, for a person to write the right answer. Files are written whole; in one that is there,
only an answer that was rated down since gives its place to a mark, which `collect` counts as WITHDRAWN.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.core.records import Ledger, digest, read_jsonl, write_jsonl
from understudy.data.sources.mapping import MARK

CANDIDATES = "candidates"
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.\w")
_NUMBER = re.compile(r"(?<![\w.])\+?(?:\d[ ()./-]{0,2}){9,}\d")
"""Ten digits and more with the usual separators: telephone, card and account numbers."""


@dataclass(frozen=True, slots=True)
class Harvested:
    """What one harvest wrote; a path is None when there was nothing new for it."""

    examples: Path | None
    candidates: Path | None
    ledger: Ledger
    candidate_rows: int
    withdrawn: int
    """Examples of earlier harvests that were rated down since."""


def harvest(
    db: sqlite3.Connection, folder: Path, date: str, *, terms_url: str | None, keep_personal: bool = False
) -> Harvested:
    """Write `<folder>/<date>.jsonl` and `<folder>/candidates/<date>.jsonl` from rows that no earlier file holds.

    Every row that has content is counted: kept, or rejected as `unrated`, `cut`, `personal`, `duplicate`, `candidate`
    or `rated_down` (the same answer was, elsewhere); rows of earlier harvests are not counted again. Examples of theirs
    whose answer was rated down since are withdrawn. `terms_url` goes into the rows of the service.
    """
    _seclude(folder)
    poor = {*_poor(db, folder), *_rated_down(db)}
    withdrawn = {own for path in sorted(folder.glob("*.jsonl")) for own in _withdraw(path, poor)}
    known = {row["id"] for path in _files(folder) for row in read_jsonl(path)}
    said = {_said(row) for path in sorted(folder.glob("*.jsonl")) for row in read_jsonl(path) if row["messages"]}
    ledger = Ledger()
    examples: list[dict[str, Any]] = []
    candidates: list[dict[str, Any]] = []
    for row in _rows(db):
        found = _harvested(row, terms_url)
        is_new = found["id"] not in known
        if not is_new and found["id"] not in withdrawn:
            continue
        reason = _reason(row, found, keep_personal) or _known(_said(found), poor, said)
        if reason == "candidate":
            candidates.append(found | {"comment": row["comment"], "poor_answer": row["answer"]})
        if not is_new:
            continue
        ledger.rows_in += 1
        if reason:
            ledger.reject(reason)
            continue
        said.add(_said(found))
        examples.append(found)
        ledger.rows_out += 1
    kept, aside = _write(folder, date, examples), _write(folder / CANDIDATES, date, candidates)
    return Harvested(kept, aside, ledger, len(candidates), len(withdrawn))


def _poor(db: sqlite3.Connection, folder: Path) -> set[str]:
    """What was said where a person rated the answer down, in the log or in an earlier harvest."""
    down = {_said(_harvested(row, None)) for row in _rows(db) if row["rating"] == "down"}
    aside = (row for path in (folder / CANDIDATES).glob("*.jsonl") for row in read_jsonl(path))
    # People work on these files.
    return down | {_said(row) for row in aside if row.get("messages")}


def _rated_down(db: sqlite3.Connection) -> set[str]:
    """Ids of what was rated down, whether the log still has its content or not."""
    return {_id(row) for row in db.execute("SELECT seq, at, request_id FROM requests WHERE rating = 'down'")}


def _withdraw(path: Path, poor: Collection[str]) -> list[str]:
    """Put a mark in the place of a file's examples that are poor, by id or by what they say; their ids.

    Lines keep their numbers.
    """
    rows = list(read_jsonl(path))
    gone = [row["id"] for row in rows if row["messages"] and (row["id"] in poor or _said(row) in poor)]
    if gone:
        mark = {MARK: "rated down after it was harvested"}
        _replace(path, [dict.fromkeys(row) | {"id": row["id"]} | mark if row["id"] in gone else row for row in rows])
    return gone


def _known(said: str, poor: Collection[str], before: Collection[str]) -> str:
    return "rated_down" if said in poor else "duplicate" if said in before else ""


def _rows(db: sqlite3.Connection) -> Iterator[sqlite3.Row]:
    yield from db.execute(
        "SELECT * FROM requests WHERE messages IS NOT NULL AND answer IS NOT NULL AND error IS NULL ORDER BY seq"
    )


def _id(row: sqlite3.Row) -> str:
    """Sequence and time name a row for good; the client may have chosen the request's id, and used it twice."""
    return f"traffic-{digest([row['seq'], row['at'], row['request_id']], 16)}"


def _harvested(row: sqlite3.Row, terms_url: str | None) -> dict[str, Any]:
    """An example in the shape that a source of kind `files` reads, with its provenance beside it."""
    found = {
        "id": _id(row),
        "messages": [*json.loads(row["messages"]), {"role": "assistant", "content": row["answer"]}],
        "category": row["category"] or "uncategorised",
        "source": "traffic",
        "request_id": row["request_id"],
        "at": row["at"],
        "served_by": row["model"],
        "side": row["side"],
        "consent": row["consent"],
        "rating": row["rating"],
    }
    return found | ({"terms": terms_url} if row["side"] == "service" else {})


def _reason(row: sqlite3.Row, found: dict[str, Any], keep_personal: bool) -> str:
    """Why a row is no example; empty when it is one."""
    if not keep_personal and _personal([*found["messages"], {"content": row["comment"] or ""}]):
        return "personal"
    if row["rating"] == "down":
        return "candidate"
    if row["finish_reason"] != "stop" or not row["answer"].strip():
        return "cut"
    # The understudy's own answers would only teach it what it says already.
    return "" if row["side"] == "service" or row["rating"] == "up" else "unrated"


def _personal(messages: list[dict[str, str]]) -> bool:
    """Whether an address or a long number stands in a text. Names are not found: read what is harvested."""
    return any(_EMAIL.search(m["content"]) or _NUMBER.search(m["content"]) for m in messages)


def _said(row: dict[str, Any]) -> str:
    """Equal for equal conversations, whatever case and white space."""
    return digest([[m["role"], " ".join(m["content"].casefold().split())] for m in row["messages"]])


def _files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.jsonl"), *(folder / CANDIDATES).glob("*.jsonl")])


def _write(folder: Path, date: str, rows: list[dict[str, Any]]) -> Path | None:
    """A new file of the day; an earlier one of the same day stays, a run may have bound it."""
    if not rows:
        return None
    number = 1
    while (path := folder / (f"{date}.jsonl" if number == 1 else f"{date}-{number}.jsonl")).exists():
        number += 1
    _replace(path, rows)
    return path


def _replace(path: Path, rows: list[dict[str, Any]]) -> None:
    draft = path.with_name(f".{path.name}.draft")
    write_jsonl(draft, rows)
    draft.chmod(0o600)
    draft.replace(path)


def _seclude(folder: Path) -> None:
    """What people wrote goes into no repository by accident."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", "utf-8")
