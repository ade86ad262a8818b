"""Corpora of several sources and days become one: merge(rows...) -> rows.jsonl + rejects.jsonl.

An id stands once. The same content again is a counted duplicate; of a web row that changed, the newest day's stays. A
web row keeps `meta.url` only where it is the one row that its page ever gave: a listing, and a page with something else
on it every day, give independent rows, which their address must neither group nor take out as leaks of each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from understudy.core.records import Document, Ledger, Record, digest, from_json, read_jsonl, write_jsonl
from understudy.data.splits.guard import page_of
from understudy.errors import DataError

SHOWN = 5


def merge(corpora: Sequence[Path], out: Path) -> Ledger:
    """Join rows in the order given. Rejects ID_DUPLICATE and REPLACED; raises DataError ID_CONFLICT."""
    ledger, rejects = Ledger(), list[dict[str, str]]()
    owners, conflicts = _owners(corpora)
    listings = _listings(corpora, set(owners.values()))
    if conflicts:
        what = f"{len(conflicts)} ids name different texts: {'; '.join(conflicts[:SHOWN])}"
        raise DataError("ID_CONFLICT", "sources", what, "make the ids unique, or leave `fields.id` out")
    kept: dict[str, str] = {}

    def rows() -> Iterator[Record]:
        for place, record in _records(corpora):
            ledger.rows_in += 1
            if owners[record.id] == place:
                kept[record.id] = _content(record)
                if _page(record) in listings:
                    del record.meta["url"]
                yield record
                continue
            # The owner is the first place of the newest content, so what comes before it was another text.
            reason = "ID_DUPLICATE" if record.id in kept else "REPLACED"
            why = "is there already" if reason == "ID_DUPLICATE" else "was changed by a later day"
            ledger.reject(reason)
            detail = f"the row of {_day(record) or 'a file'} {why}"
            rejects.append({"where": record.id, "reason": reason, "detail": detail})

    ledger.rows_out = write_jsonl(out / "rows.jsonl", rows())
    write_jsonl(out / "rejects.jsonl", rejects)
    return ledger


def _owners(corpora: Sequence[Path]) -> tuple[dict[str, int], list[str]]:
    """Which place of the joined rows each id's row is taken from; and ids whose texts no day tells apart."""
    found: dict[str, tuple[str, str, str, int]] = {}
    conflicts = []
    for place, record in _records(corpora):
        content, day, site = _content(record), _day(record), str(record.meta.get("site", ""))
        first = found.get(record.id)
        if first and first[0] == content:
            continue
        if first and (not day or not first[1] or site != first[2] or day == first[1]):
            conflicts.append(f"{record.id[:40]!r} at {first[1] or 'a file'} and {day or 'a file'}")
            continue
        if first is None or day > first[1]:
            found[record.id] = (content, day, site, place)
    return {key: value[3] for key, value in found.items()}, conflicts


def _listings(corpora: Sequence[Path], kept: set[int]) -> set[int]:
    """The pages of which web sources gave several rows that are kept."""
    given = Counter(_page(record) for place, record in _records(corpora) if place in kept)
    return {page for page, count in given.items() if page and count > 1}


def _page(record: Record) -> int:
    """The page of a web row as `guard` compares them; 0 for a row from elsewhere."""
    return page_of(record) if "site" in record.meta else 0


def _records(corpora: Sequence[Path]) -> Iterator[tuple[int, Record]]:
    place = 0
    for path in corpora:
        for row in read_jsonl(path):
            yield place, from_json(row)
            place += 1


def _content(record: Record) -> str:
    return digest(record.text if isinstance(record, Document) else record.messages, 32)


def _day(record: Record) -> str:
    return str(record.meta.get("collected_at", ""))
