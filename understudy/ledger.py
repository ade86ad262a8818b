"""The row ledger of a run: rows in, out and rejected at every step, and the sums that tie one step to the next.

Every step balances on its own (the store refuses one that does not); `links` show that no row is lost between steps.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from understudy.core.artifact import Artifact
from understudy.core.records import read_jsonl
from understudy.errors import ConfigError

ASIDE = ("held", "test")
"""What split rejects because the HeldSet keeps it."""
READS = ("collect", "collect_web")


class Entry(BaseModel):
    """One step's rows. `skipped`: it stands for an earlier step, whose rows are counted there."""

    step: str
    stage: str
    rows_in: int
    rows_out: int
    rejected: dict[str, int]
    notes: dict[str, int]
    skipped: bool = False


class Link(BaseModel):
    """Two counts that must be equal: what one step gave and what the next one took."""

    text: str
    given: int
    taken: int

    @property
    def holds(self) -> bool:
        return self.given == self.taken


class Accounts(BaseModel):
    """The ledger of one run. `flow`: where the rows that were read and written came to rest; the parts sum to both."""

    schema_version: int = 1
    run: str
    steps: list[Entry]
    links: list[Link]
    flow: dict[str, int]

    @property
    def balanced(self) -> bool:
        own = all(s.rows_in == s.rows_out + sum(s.rejected.values()) for s in self.steps)
        return own and all(link.holds for link in self.links)


@dataclass(frozen=True, slots=True)
class Rejected:
    """One row that a step did not pass on."""

    step: str
    where: str
    reason: str
    detail: str


def accounts(run: str, artifacts: Sequence[Artifact]) -> Accounts:
    """The ledger of what a run has made so far."""
    counted = [a for a in artifacts if a.ledger]
    entries = [_entry(a) for a in counted]
    by_name = {a.name: a for a in counted}
    links = [link for a in counted if not a.manifest.get("alias_of") for link in _links(a, by_name)]
    return Accounts(run=run, steps=entries, links=links, flow=_flow([e for e in entries if not e.skipped]))


def _entry(artifact: Artifact) -> Entry:
    ledger, manifest = artifact.ledger, artifact.manifest
    assert ledger is not None
    return Entry(
        step=artifact.name, stage=str(manifest["stage"]), rows_in=ledger.rows_in, rows_out=ledger.rows_out,
        rejected=ledger.rejected, notes=ledger.notes, skipped=bool(manifest.get("alias_of")),
    )  # fmt: skip


def _links(artifact: Artifact, by_name: dict[str, Artifact]) -> Iterator[Link]:
    """What a step took, against what its inputs gave."""
    assert artifact.ledger is not None
    parents = [by_name[name] for name in artifact.manifest["inputs"] if name in by_name]
    stage, taken = artifact.manifest["stage"], artifact.ledger.rows_in
    if stage in ("clean", "merge", "dedupe", "split"):
        given = sum(_out(p) for p in parents if p.kind == "Corpus")
        yield Link(text=f"{' and '.join(p.name for p in parents)} > {artifact.name}", given=given, taken=taken)
    elif stage in ("pack", "sabotage"):
        sources = [p for p in parents if p.kind == "Dataset"]
        whole = stage == "pack"
        given = sum(_training(p, validation=whole) for p in sources)
        yield Link(text=f"{' and '.join(p.name for p in sources)} > {artifact.name}", given=given, taken=taken)
    elif stage == "augment":
        # An alias stands for a round whose rows are there already.
        sources = [p for p in parents if p.kind == "Dataset" and not p.manifest.get("alias_of")]
        given = sum(_training(p, validation=False) for p in sources)
        rows = taken - _twins(artifact.ledger.notes, artifact.ledger.rejected)
        yield Link(text=f"{' and '.join(p.name for p in sources)} > {artifact.name}", given=given, taken=rows)
    elif stage == "hold" and "split" in by_name:
        split = by_name["split"].ledger
        assert split is not None
        given = sum(split.rejected.get(name, 0) for name in ASIDE)
        yield Link(text=f"set aside by split > {artifact.name}", given=given, taken=artifact.ledger.rows_out)


def _out(artifact: Artifact) -> int:
    return artifact.ledger.rows_out if artifact.ledger else 0


def _training(artifact: Artifact, *, validation: bool) -> int:
    """Rows that a Dataset gives to training; split's also has documents, dev and validation."""
    if artifact.manifest["stage"] != "split" or artifact.ledger is None:
        return _out(artifact)
    names = ["train", "seed", *(["validation"] if validation else [])]
    return sum(artifact.ledger.notes.get(f"{name}_rows", 0) for name in names)


def _twins(notes: dict[str, int], rejected: dict[str, int]) -> int:
    """How many twins an augmentation wanted: made and not made."""
    return notes.get("twins", 0) + sum(rejected.values())


def _flow(entries: Sequence[Entry]) -> dict[str, int]:
    """`read`, `written` rows and twins, and where they are: training, validation, dev, held, documents, or rejected."""
    flow: Counter[str] = Counter()
    for entry in entries:
        flow["read"] += entry.rows_in if entry.stage in READS else 0
        flow["written by the teacher"] += entry.rows_in if entry.stage == "synthesize" else 0
        flow["training"] += entry.rows_out if entry.stage == "synthesize" else 0
        if entry.stage == "augment":
            flow["written as twins"] += _twins(entry.notes, entry.rejected)
            flow["training"] += entry.notes.get("twins", 0)
        if entry.stage in (*READS, "clean", "merge", "dedupe", "split", "synthesize", "augment"):
            flow["rejected"] += sum(count for reason, count in entry.rejected.items() if reason not in ASIDE)
        if entry.stage == "split":
            flow["held"] += sum(entry.rejected.get(name, 0) for name in ASIDE)
            flow["training"] += entry.notes.get("train_rows", 0) + entry.notes.get("seed_rows", 0)
            for name in ("validation", "dev", "documents"):
                flow[name] += entry.notes.get(f"{name}_rows", 0)
    return dict(flow)


def rejected(artifacts: Sequence[Artifact], step: str | None = None, reason: str | None = None) -> list[Rejected]:
    """Rows that were rejected, in the order of steps and rows. Raises ConfigError for a reason that no step gave."""
    chosen = [a for a in artifacts if a.ledger and (step is None or a.name == step) and not a.manifest.get("alias_of")]
    known = Counter[str]()
    for a in chosen:
        known.update(a.ledger.rejected if a.ledger else {})
    if reason is not None and reason not in known:
        where = f" in {step}" if step else ""
        fix = f"reasons there are: {', '.join(sorted(known)) or 'none'}"
        raise ConfigError("REASON_UNKNOWN", reason, f"no row was rejected for it{where}", fix)
    rows = [(a.name, row) for a in chosen for row in _rejects(a)]
    return [
        Rejected(name, str(row["where"]), str(row["reason"]), str(row.get("detail", "")))
        for name, row in rows
        if reason in (None, row["reason"])
    ]


def _rejects(artifact: Artifact) -> Iterator[dict[str, Any]]:
    file = artifact.path / "rejects.jsonl"
    return read_jsonl(file) if file.is_file() else iter(())


def table(books: Accounts) -> Iterator[str]:
    """The ledger in at most 80 columns: steps, then the sums between them, then where the rows are."""
    yield f"{books.run:<26}{'in':>8}{'out':>8}{'lost':>8}  why"
    for s in books.steps:
        if s.skipped:
            yield f"{s.step:<26}{'':>24}  skipped: no further round is needed"
            continue
        lost = sum(s.rejected.values())
        why = ", ".join(f"{reason} {count}" for reason, count in sorted(s.rejected.items(), key=lambda kv: -kv[1]))
        notes = ", ".join(f"{name} {count:,}" for name, count in sorted(s.notes.items()) if count)
        first = f"{s.step:<26}{s.rows_in:>8,}{s.rows_out:>8,}{lost or '-':>8}  "
        yield from textwrap.wrap(first + why, 80, subsequent_indent=" " * 52) if why else [first.rstrip()]
        if notes:
            yield from textwrap.wrap(f"noted: {notes}", 80, initial_indent="  ", subsequent_indent="    ")
    yield ""
    for link in books.links:
        mark = f"{link.given:,}" if link.holds else f"{link.given:,} given, {link.taken:,} TAKEN"
        yield from textwrap.wrap(f"{link.text}: {mark}", 80, subsequent_indent="  ")
    yield ""
    yield from textwrap.wrap(_sentence(books.flow), 80)


def _sentence(flow: dict[str, int]) -> str:
    """Where every row is: `446 rows read + 272 written by the teacher = 300 training + ...`."""
    sources = ("read", "written by the teacher", "written as twins")
    came = " + ".join(f"{flow[name]:,} {name}" for name in sources if flow.get(name))
    went = " + ".join(f"{count:,} {name}" for name, count in flow.items() if name not in sources and count)
    return f"{came or 'nothing read'} = {went or 'nothing'}"


def listing(rows: Sequence[Rejected], most: int) -> Iterator[str]:
    """Rejected rows, one or more lines each; at most `most` of them, and how many there are."""
    for row in rows[:most]:
        yield from textwrap.wrap(
            f"{row.step}  {row.where}  {row.reason}  {row.detail}", 80, subsequent_indent="    ", break_on_hyphens=False
        )
    more = f"; --all lists the other {len(rows) - most:,}" if len(rows) > most else ""
    yield f"{len(rows):,} rows listed by their rejects{more}" if rows else "no rejected row is listed"
