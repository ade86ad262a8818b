"""Fingerprints of the protected rows: hashes of their n-grams, to compare others with them unread.

A protected example gives up to four units, each of which can leak alone: its passage, question and answer together, and
a long question or answer. A guard holds no text; it can only be asked whether it knows a phrase that one has.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from understudy.core.records import Document, Example, Record, digest
from understudy.data.shingles import Grams, ngrams, words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ALONE_WORDS = 20
"""Words from which a question or an answer is a unit of its own; shorter ones only together."""
_TRACKING = ("utm_", "fbclid", "gclid", "yclid")


class Protected(NamedTuple):
    """A row that others must not show: its split, the rank of that split, and its group."""

    record: Record
    split: str
    rank: int
    group: str


@dataclass(slots=True)
class Unit:
    """What can leak: `what` is passage, exchange, question or answer; `id` names the protected row, never its text."""

    id: str
    what: str
    split: str
    rank: int
    words: int


@dataclass(slots=True)
class Guard:
    """Hashes of the protected rows' units, and the settings of the comparison.

    `grams` (n,) uint64, sorted; `pairs` (m, 2) int64 of (index in grams, index in units), sorted; `groups` (n,) int64,
    how many protected groups hold a gram; `wholes`: hash of all words of an exchange -> unit; `pages`: hash of an
    address -> unit.
    """

    ngram_words: int
    share: float
    units: list[Unit]
    grams: NDArray[np.uint64]
    pairs: NDArray[np.int64]
    groups: NDArray[np.int64]
    wholes: dict[int, int] = field(default_factory=dict)
    pages: dict[int, int] = field(default_factory=dict)


def build(rows: Iterable[Protected], ngram_words: int, share: float) -> Guard:
    """Fingerprint the examples among `rows`; a passage that several share is one unit."""
    import numpy as np

    units, texts, owners = list[Unit](), list[str](), list[str]()
    wholes, pages, seen = dict[int, int](), dict[int, int](), set[tuple[str, int, str]]()
    for row in sorted(rows, key=lambda r: -r.rank):
        for what, text in parts(row.record):
            key = (what, row.rank, digest(text, 32))
            if what == "passage" and key in seen:
                continue
            seen.add(key)
            units.append(Unit(row.record.id, what, row.split, row.rank, 0))
            texts.append(text)
            owners.append(row.group)
        if page := page_of(row.record):
            pages.setdefault(page, len(units) - 1)
    found = words(texts)
    for unit, count in zip(units, found.counts.tolist(), strict=True):
        unit.words = count
    for i, total in enumerate(in_whole(found)):
        if units[i].what == "exchange" and total:
            wholes.setdefault(total, i)
    kept = [u.what in ("passage", "exchange") or u.words >= ALONE_WORDS for u in units]
    runs = ngrams(found, ngram_words)
    mask = np.array(kept, bool)[runs.owners]
    own, at = np.unique(runs.hashes[mask], return_inverse=True)
    pairs = np.unique(np.stack([at, runs.owners[mask]], axis=1), axis=0)
    numbers = {group: i for i, group in enumerate(dict.fromkeys(owners))}
    group_of_unit = np.array([numbers[group] for group in owners], np.int64)
    by_group = np.unique(np.stack([pairs[:, 0], group_of_unit[pairs[:, 1]]], axis=1), axis=0)
    groups = np.bincount(by_group[:, 0], minlength=len(own))
    return Guard(ngram_words, share, units, own, pairs, groups, wholes, pages)


def parts(record: Record) -> list[tuple[str, str]]:
    """(unit, text) of a record: passage, exchange, question, answer."""
    if isinstance(record, Document):
        return [("passage", record.text)]
    context, asked = record.meta.get("context"), record.meta.get("question")
    turns = [turn["content"] for turn in record.messages if turn["role"] != "system"]
    if isinstance(context, str) and isinstance(asked, str) and context.strip():
        turns = [asked, *([record.answer] if record.answer else [])]
        found = [("passage", context)]
    else:
        found = []
    found.append(("exchange", "\n".join(turns)))
    found.append(("question", "\n".join(turns[:-1] if record.answer else turns)))
    if record.answer:
        found.append(("answer", record.answer))
    return found


def text_of(record: Record) -> str:
    """Everything of a record that a model would see."""
    if isinstance(record, Document):
        return record.text
    return "\n".join(turn["content"] for turn in record.messages if turn["role"] != "system")


def exchange_of(record: Record) -> str:
    """The text whose words, all equal and in order, make an example the same as another; empty for a document."""
    return dict(parts(record))["exchange"] if isinstance(record, Example) else ""


def in_whole(found: Grams) -> list[int]:
    """One number for all words of each text, in order; 0 for a text without a word."""
    return [int(digest(found[i].tobytes().hex(), 15), 16) if len(found[i]) else 0 for i in range(len(found))]


def page_of(record: Record) -> int:
    """Hash of the page that a record was read from, 0 without one; `http://WWW.a.org/x/?utm_source=b#c` is a.org/x."""
    url = record.meta.get("url")
    if not isinstance(url, str) or not url.strip():
        return 0
    try:
        split = urlsplit(url.strip())
    except ValueError:
        return 0
    query = sorted((k, v) for k, v in parse_qsl(split.query) if not k.lower().startswith(_TRACKING))
    address = f"{(split.hostname or '').removeprefix('www.')}{split.path.rstrip('/')}?{urlencode(query)}"
    return int(digest(address, 15), 16)


def save(guard: Guard, out: Path) -> None:
    """Write the guard into `out`; equal guards give equal bytes."""
    import numpy as np

    out.mkdir(parents=True, exist_ok=True)
    for name in ("grams", "pairs", "groups"):
        np.save(out / f"{name}.npy", getattr(guard, name), allow_pickle=False)
    value: dict[str, Any] = {
        "ngram_words": guard.ngram_words,
        "share": guard.share,
        "units": [[u.id, u.what, u.split, u.rank, u.words] for u in guard.units],
        "wholes": sorted(guard.wholes.items()),
        "pages": sorted(guard.pages.items()),
    }
    (out / "guard.json").write_text(json.dumps(value, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")


def load(folder: Path) -> Guard:
    """The guard that `save` wrote into `folder`."""
    import numpy as np

    value = json.loads((folder / "guard.json").read_text("utf-8"))
    arrays = [np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("grams", "pairs", "groups")]
    units = [Unit(*row) for row in value["units"]]
    grams, pairs, groups = arrays
    wholes, pages = dict(value["wholes"]), dict(value["pages"])
    return Guard(value["ngram_words"], value["share"], units, grams, pairs, groups, wholes, pages)
