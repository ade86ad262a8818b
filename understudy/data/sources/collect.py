"""Sources become one schema: collect(sources) -> rows, places and rejects.jsonl, and a digest for every source.

A row of a file or query is mapped by FieldMap to a Document or an Example; a row that cannot be is quarantined with its
place and reason. What concerns a whole column, file or set of ids stops the run once the source is read to its end.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from understudy.config import CollectConfig, SourceConfig
from understudy.core.records import Document, Ledger, Record, digest, write_jsonl
from understudy.data.clean import Fault
from understudy.data.sources import bigquery, sql
from understudy.data.sources.files import LocalFile, SourceFile, local_files
from understudy.data.sources.formats import read_file
from understudy.data.sources.hub import hub_files
from understudy.data.sources.mapping import NO_FAULT, WITHDRAWN, Columns, record_of, roles_of, squad_questions
from understudy.data.sources.objects import remote_files, scheme_of
from understudy.data.sources.reader import Bad, Row
from understudy.errors import ConfigError, DataError

SHOWN = 5


Pages = Callable[[dict[str, int]], Iterator[tuple[str, Row | Bad]]]
"""(URL, row) of the pages of a web source; counts what is no row in the notes that it is given."""


@dataclass(slots=True)
class _Intake:
    """What is known of all sources together while they are read."""

    ledger: Ledger = field(default_factory=Ledger)
    rejects: list[Bad] = field(default_factory=list)
    seen: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """Digest of the text, place and id as given, by id in its plain form."""
    folded: set[str] = field(default_factory=set)
    conflicts: list[str] = field(default_factory=list)
    conflict_count: int = 0
    queries: dict[str, str] = field(default_factory=dict)
    """Digest of the rows that each query gave, by its label."""
    web: Pages | None = None
    """Reads the web source."""


def collect(cfg: CollectConfig, project: Path, out: Path, web: Pages | None = None) -> Ledger:
    """Read every source in order; `web` gives the rows of a web source.

    Raises ConfigError SOURCE_NOT_FOUND, FILE_SPECIAL, PATH_CONFLICT, FIELD_UNKNOWN, FIELD_MAP;
    IntegrityError PATH_ESCAPE; DataError BAD_ROWS, SCHEMA_TYPE, ID_CONFLICT, FILE_CHANGED; and what the readers of
    files and queries raise.
    """
    intake = _Intake(web=web)
    for source in cfg.sources:
        roles_of(source)
    _refuse_twice(cfg.sources, project, out)

    def records() -> Iterator[Record]:
        for source in cfg.sources:
            yield from _read_source(source, project, intake)

    intake.ledger.rows_out = write_jsonl(out / "rows.jsonl", records())
    write_jsonl(out / "places.jsonl", ({"id": own, "where": place} for _, place, own in intake.seen.values()))
    write_jsonl(out / "rejects.jsonl", intake.rejects)
    if intake.conflict_count:
        what = f"{intake.conflict_count} ids name different texts: {'; '.join(intake.conflicts)}"
        raise DataError("ID_CONFLICT", "sources", what, "make the ids unique, or leave `fields.id` out")
    if cfg.digests:
        _refuse_changed(cfg, project, intake)
    return intake.ledger


def _refuse_changed(cfg: CollectConfig, project: Path, intake: _Intake) -> None:
    """What was read must be what the run bound, else the artifact would stand under another content's fingerprint."""
    read = source_digests(cfg, project, intake.queries)
    changed = sorted(name for name in read.keys() | cfg.digests.keys() if read.get(name) != cfg.digests.get(name))
    if changed:
        what, fix = "the content changed since the run was bound to it", "`understudy run` binds what is there now"
        raise DataError("FILE_CHANGED", ", ".join(changed[:SHOWN]), what, fix)


def _refuse_twice(sources: Sequence[SourceConfig], project: Path, out: Path) -> None:
    """One file mapped twice in the same way doubles its rows; a file inside the output would be read while written."""
    known: set[tuple[str, str]] = set()
    for source in sources:
        for file in source_files(source, project):
            if Path(file.address).is_relative_to(out.resolve()):
                raise ConfigError("PATH_CONFLICT", file.label, "the output would lie over this source", "narrow `path`")
            reading = {"text_template", "unit", "select", "members"}
            key = (_place(file), digest([source.fields.model_dump(), source.model_dump(include=reading)]))
            if key in known:
                raise ConfigError("PATH_CONFLICT", file.label, "two sources read this file in the same way", "drop one")
            known.add(key)


def _place(file: SourceFile) -> str:
    """Equal for equal files: a disk may call one file by two names, by case or by hard links."""
    if not isinstance(file, LocalFile):
        return file.address
    about = file.path.stat()
    return f"{about.st_dev}:{about.st_ino}"


def source_files(source: SourceConfig, project: Path) -> Sequence[SourceFile]:
    """The files of a source, sorted; none for a query or a web source."""
    if source.kind == "hub":
        return hub_files(source, project)
    if source.kind != "files":
        return []
    if scheme_of(source.path or "") in ("", "file"):
        return local_files(source, project)
    return remote_files(source)


def source_name(source: SourceConfig, project: Path) -> str:
    """What messages call a source."""
    if source.kind == "web":
        return source.name or "web"
    return f"hub:{source.repo}" if source.kind == "hub" else source.path or sql.label(source, project)


def costs(sources: Sequence[SourceConfig], project: Path) -> Iterator[str]:
    """A line for each query that costs money: what it would read, by a dry run."""
    for source in sources:
        if source.kind == "bigquery":
            yield f"{sql.label(source, project)} would read {bigquery.estimate(source, project)}"


def source_digests(
    cfg: CollectConfig | Sequence[SourceConfig], project: Path, read: Mapping[str, str] | None = None
) -> dict[str, str]:
    """A digest for each source file and query, by its label; it follows the content.

    sha256 of a local file and of what an SQL query gives; for what costs money or time to read, what its keeper says
    of its state; a web source has none, it is bound to a day. `read` holds what SQL queries gave that were read just
    now; they are not asked again.
    """
    digests: dict[str, str] = {}
    for source in cfg.sources if isinstance(cfg, CollectConfig) else cfg:
        found = [(file.label, file.digest()) for file in source_files(source, project)]
        if source.kind == "sql":
            label = sql.label(source, project)
            found = [(label, read[label] if read else sql.result_digest(source, project))]
        elif source.kind == "bigquery":
            found = [(sql.label(source, project), bigquery.result_digest(source, project))]
        for label, value in found:
            # Two absolute paths may share a bare name.
            twin = label
            number = 2
            while digests.get(twin, value) != value:
                twin, number = f"{label}#{number}", number + 1
            digests[twin] = value
    return digests


def _read_source(source: SourceConfig, project: Path, intake: _Intake) -> Iterator[Record]:
    ledger, columns = intake.ledger, Columns(source)
    bad: list[Bad] = []
    total = good = 0
    for label, item in _items(source, project, intake):
        ledger.rows_in += 1
        if isinstance(item, Row):
            columns.see(item)
            try:
                record = record_of(item, source, label, columns.roles, ledger.notes)
            except Fault as fault:
                item = Bad(item.where, item.offset, fault.reason, fault.detail)
        if isinstance(item, Bad):
            total += item.reason not in NO_FAULT
            ledger.reject(item.reason)
            if total <= max(source.max_bad_rows, SHOWN):
                bad.append(item)
            continue
        good += 1
        if _is_new(record, item.where, intake):
            yield record
    name = source_name(source, project)
    if columns.known:
        columns.check(name)
    # A day on which no site could be read, and may be skipped, is an empty corpus; so is what was all taken back.
    may_be_empty = source.kind == "web" or {b.reason for b in bad} == {WITHDRAWN}
    if total > source.max_bad_rows or not (good or may_be_empty):
        faults = [b for b in bad if b.reason not in NO_FAULT] or bad
        first = "; ".join(f"{b.where} {b.reason} ({b.detail})" for b in faults[:SHOWN])
        allowed = "no good row is left" if not good else f"max_bad_rows is {source.max_bad_rows}"
        raise DataError("BAD_ROWS", name, f"{total or len(bad)} bad rows, {allowed}. First: {first}", "mend the rows")
    intake.rejects += bad


def _items(source: SourceConfig, project: Path, intake: _Intake) -> Iterator[tuple[str, Row | Bad]]:
    if source.kind == "web":
        assert intake.web, "the web stage gives the pages"
        yield from intake.web(intake.ledger.notes)
        return
    if source.kind in ("sql", "bigquery"):
        label, notes = sql.label(source, project), intake.ledger.notes
        if source.kind == "sql":
            rows = sql.read_sql(source, project, notes, intake.queries)
        else:
            rows = bigquery.read_bigquery(source, project, notes)
        for count, item in enumerate(rows, 1):
            if count > source.max_rows:
                what, fix = f"the query gives more than {source.max_rows:,} rows", "narrow it, or raise max_rows"
                raise DataError("ROW_CAP", label, what, fix)
            yield label, item
        return
    wanted = set(roles_of(source).values())
    for file in source_files(source, project):
        rows = read_file(file, source, intake.ledger.notes, wanted)
        for item in squad_questions(rows) if source.format == "squad" else rows:
            yield file.label, item


def _is_new(record: Record, where: str, intake: _Intake) -> bool:
    """Whether the id is new; the same id with the same text is a counted duplicate, with another text a conflict.

    An id that differs from an earlier one only in its Unicode form or in white space around it is set aside: people
    and other programs would take them for one. Ids that differ by case are kept and counted.
    """
    content = digest(record.text if isinstance(record, Document) else record.messages, 32)
    plain = unicodedata.normalize("NFC", record.id).strip()
    if plain not in intake.seen:
        intake.seen[plain] = (content, where, record.id)
        if plain.casefold() in intake.folded:
            intake.ledger.note("ids_differ_by_case")
        intake.folded.add(plain.casefold())
        return True
    text, place, known = intake.seen[plain]
    if known != record.id:
        intake.ledger.reject("ID_CONFUSABLE")
        detail = f"the id {record.id[:40]!a} looks like {known[:40]!a} at {place}"
        intake.rejects.append(Bad(where, -1, "ID_CONFUSABLE", detail))
    elif text == content:
        intake.ledger.reject("ID_DUPLICATE")
        intake.rejects.append(Bad(where, -1, "ID_DUPLICATE", f"the same row as {place}"))
    else:
        intake.ledger.reject("ID_CONFLICT")
        intake.conflict_count += 1
        if len(intake.conflicts) < SHOWN:
            intake.conflicts.append(f"{record.id[:40]!r} at {place} and {where}")
    return False
