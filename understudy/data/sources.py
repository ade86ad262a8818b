"""Sources become one schema: collect(sources) -> rows.jsonl + rejects.jsonl, and a digest for every source.

A row of a file or query is mapped by FieldMap to a Document or an Example; a row that cannot be is quarantined with its
place and reason. What concerns a whole column, file or set of ids stops the run once the source is read to its end.
"""

from __future__ import annotations

import glob
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from string import Formatter
from typing import Any

from understudy.config import OWN_FOLDERS, CollectConfig, SourceConfig
from understudy.core.records import Document, Example, Ledger, Message, Record, digest, sha256_file, write_jsonl
from understudy.data import sql
from understudy.data.clean import Fault, context_turn
from understudy.data.reader import Bad, Row, parse_value, read_rows
from understudy.errors import ConfigError, DataError, IntegrityError

ROLES = ("system", "user", "assistant")
UNANSWERABLE = "UNANSWERABLE"
"""SQuAD's questions on purpose without an answer: set aside, but no fault of the file."""
SHOWN = 5
MAGIC = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "gzip data",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF",
    b"SQLite format 3": "an SQLite database",
    b"version https://git-lfs": "a Git LFS pointer, not the data",
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
}


@dataclass(slots=True)
class _Intake:
    """What is known of all sources together while they are read."""

    ledger: Ledger = field(default_factory=Ledger)
    rejects: list[Bad] = field(default_factory=list)
    seen: dict[str, tuple[str, str]] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)
    conflict_count: int = 0
    queries: dict[SourceConfig, str] = field(default_factory=dict)
    """Digest of the rows that each query gave."""


def collect(cfg: CollectConfig, project: Path, out: Path) -> Ledger:
    """Read every source in order.

    Raises ConfigError SOURCE_NOT_FOUND, FILE_SPECIAL, PATH_CONFLICT, FIELD_UNKNOWN, FIELD_MAP;
    IntegrityError PATH_ESCAPE; DataError BAD_ROWS, SCHEMA_TYPE, ID_CONFLICT, FILE_KIND, FILE_CHANGED; and what the
    reader and SQL raise.
    """
    intake = _Intake()
    for source in cfg.sources:
        _roles(source)
    _refuse_twice(cfg.sources, project, out)

    def records() -> Iterator[Record]:
        for source in cfg.sources:
            yield from _read_source(source, project, intake)

    intake.ledger.rows_out = write_jsonl(out / "rows.jsonl", records())
    write_jsonl(out / "rejects.jsonl", intake.rejects)
    if intake.conflict_count:
        what = f"{intake.conflict_count} ids name different texts: {'; '.join(intake.conflicts)}"
        raise DataError("ID_CONFLICT", "sources", what, "make the ids unique, or leave `fields.id` out")
    if cfg.digests:
        _refuse_changed(cfg, project, intake)
    return intake.ledger


def _refuse_changed(cfg: CollectConfig, project: Path, intake: _Intake) -> None:
    """What was read must be what the run bound, else the artifact would stand under another content's fingerprint."""
    read = source_digests(cfg, project, lambda source, _: intake.queries[source])
    changed = sorted(name for name in read.keys() | cfg.digests.keys() if read.get(name) != cfg.digests.get(name))
    if changed:
        what, fix = "the content changed since the run was bound to it", "`understudy run` binds what is there now"
        raise DataError("FILE_CHANGED", ", ".join(changed[:SHOWN]), what, fix)


def source_files(source: SourceConfig, project: Path) -> list[tuple[str, Path]]:
    """(label, path) of each file of a source, sorted; a label is relative to the project, or the bare name."""
    text, root = source.path or "", project.resolve()
    absolute = os.path.isabs(text)
    if not absolute and os.path.normpath(text).split(os.sep)[0] == os.pardir:
        raise _escape(text)
    try:
        exact = os.path.lexists(root / text)
        names = [text] if exact else _matches(text, root)
    except (OSError, ValueError) as e:
        raise ConfigError("PATH_NAME", text[:80], str(e), "give a path that this system can hold") from e
    if any(len(os.fsencode(part)) > 255 for part in Path(text).parts) or "\0" in text:
        raise ConfigError("PATH_NAME", text[:80], "no file can have this name", "give a shorter name")
    files: list[tuple[str, Path]] = []
    for name in names:
        path = _resolved(root / name, name)
        if not absolute and not path.is_relative_to(root):
            raise _escape(name)
        if not exact and path.is_dir():
            continue
        _refuse_special(path, name)
        shown = Path(os.path.normpath(root / name))
        files.append((shown.relative_to(root).as_posix() if shown.is_relative_to(root) else shown.name, path))
    if not files:
        raise ConfigError("SOURCE_NOT_FOUND", text, "no file is there", "give a file or glob relative to the project")
    return files


def _matches(pattern: str, root: Path) -> list[str]:
    """What a glob finds, sorted; a relative one leaves out what the project writes itself."""
    names = sorted(glob.glob(pattern, root_dir=root, recursive=True))
    return [n for n in names if os.path.isabs(n) or os.path.normpath(n).split(os.sep)[0] not in OWN_FOLDERS]


def _resolved(path: Path, name: str) -> Path:
    try:
        return path.resolve(strict=True)
    except RuntimeError as e:
        raise ConfigError("PATH_CONFLICT", name, "the symbolic links form a loop", "remove one of them") from e
    except OSError as e:
        what = f"a symbolic link to nowhere ({e.strerror})"
        raise ConfigError("FILE_SPECIAL", name, what, "point it at a file, or give the file itself") from e


def _escape(name: str) -> IntegrityError:
    fix = "move the file into the project, or give an absolute path"
    return IntegrityError("PATH_ESCAPE", name, "the path leaves the project", fix)


def _refuse_special(path: Path, name: str) -> None:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "no regular file"
        fix = f"give a glob such as {name.rstrip('/')}/*.jsonl" if stat.S_ISDIR(mode) else "give a regular file"
        raise ConfigError("FILE_SPECIAL", name, f"this is {kind}", fix)


def _refuse_twice(sources: Sequence[SourceConfig], project: Path, out: Path) -> None:
    """One file mapped twice in the same way doubles its rows; a file inside the output would be read while written."""
    known: set[tuple[Path, str]] = set()
    for source in sources:
        if source.kind != "files":
            continue
        for label, path in source_files(source, project):
            if path.is_relative_to(out.resolve()):
                raise ConfigError("PATH_CONFLICT", label, "the output would lie over this source", "narrow `path`")
            key = (path, digest([source.fields.model_dump(), source.text_template]))
            if key in known:
                raise ConfigError("PATH_CONFLICT", label, "two sources read this file in the same way", "drop one")
            known.add(key)


def source_digests(
    cfg: CollectConfig | Sequence[SourceConfig],
    project: Path,
    digest_query: Callable[[SourceConfig, Path], str] = sql.result_digest,
) -> dict[str, str]:
    """sha256 of each source file by its label, and of each query's result by `sql:` and the query's digest."""
    digests: dict[str, str] = {}
    for source in cfg.sources if isinstance(cfg, CollectConfig) else cfg:
        found: list[tuple[str, str]]
        if source.kind == "sql":
            found = [(sql.label(source, project), digest_query(source, project))]
        else:
            found = [(label, sha256_file(path)) for label, path in source_files(source, project)]
        for label, value in found:
            # Two absolute paths may share a bare name.
            twin = label
            number = 2
            while digests.get(twin, value) != value:
                twin, number = f"{label}#{number}", number + 1
            digests[twin] = value
    return digests


def _read_source(source: SourceConfig, project: Path, intake: _Intake) -> Iterator[Record]:
    ledger, columns = intake.ledger, _Columns(source)
    bad: list[Bad] = []
    total = good = 0
    for label, item in _items(source, project, intake):
        ledger.rows_in += 1
        if isinstance(item, Row):
            columns.see(item)
            try:
                record = _record(item, source, label, columns.roles, ledger.notes)
            except Fault as fault:
                item = Bad(item.where, item.offset, fault.reason, fault.detail)
        if isinstance(item, Bad):
            total += item.reason != UNANSWERABLE
            ledger.reject(item.reason)
            if total <= max(source.max_bad_rows, SHOWN):
                bad.append(item)
            continue
        good += 1
        if _is_new(record, item.where, intake):
            yield record
    name = source.path or sql.label(source, project)
    if columns.known:
        columns.check(name)
    if total > source.max_bad_rows or not good:
        faults = [b for b in bad if b.reason != UNANSWERABLE] or bad
        first = "; ".join(f"{b.where} {b.reason} ({b.detail})" for b in faults[:SHOWN])
        allowed = "no good row is left" if not good else f"max_bad_rows is {source.max_bad_rows}"
        raise DataError("BAD_ROWS", name, f"{total or len(bad)} bad rows, {allowed}. First: {first}", "mend the rows")
    intake.rejects += bad


def _items(source: SourceConfig, project: Path, intake: _Intake) -> Iterator[tuple[str, Row | Bad]]:
    if source.kind == "sql":
        label = sql.label(source, project)
        for item in sql.read_sql(source, project, intake.ledger.notes, intake.queries):
            yield label, item
        return
    for label, path in source_files(source, project):
        before = path.stat()
        _refuse_magic(path, label)
        rows = read_rows(path, source, intake.ledger.notes, label)
        for item in _questions(rows) if source.format == "squad" else rows:
            yield label, item
        after = path.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise DataError("FILE_CHANGED", label, "the file changed while it was read", "run again when it is at rest")


def _refuse_magic(path: Path, label: str) -> None:
    if not os.access(path, os.R_OK):
        raise ConfigError("FILE_DENIED", label, "this user may not read the file", "change its mode")
    with open(path, "rb") as f:
        start = f.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for magic, name in MAGIC.items():
        if start.startswith(magic.lower()):
            raise DataError("FILE_KIND", label, f"this is {name}", "give the rows as JSON Lines, JSON or CSV")


def _is_new(record: Record, where: str, intake: _Intake) -> bool:
    """Whether the id is new; the same id with the same text is a counted duplicate, with another text a conflict."""
    content = digest(record.text if isinstance(record, Document) else record.messages, 32)
    if record.id not in intake.seen:
        intake.seen[record.id] = (content, where)
        return True
    first = intake.seen[record.id]
    if first[0] == content:
        intake.ledger.reject("ID_DUPLICATE")
        intake.rejects.append(Bad(where, -1, "ID_DUPLICATE", f"the same row as {first[1]}"))
    else:
        intake.ledger.reject("ID_CONFLICT")
        intake.conflict_count += 1
        if len(intake.conflicts) < SHOWN:
            intake.conflicts.append(f"{record.id[:40]!r} at {first[1]} and {where}")
    return False


def _roles(source: SourceConfig) -> dict[str, str]:
    """Role -> column of what is mapped, `template:title` for a template's column. Raises ConfigError FIELD_MAP."""
    roles = {role: column for role, column in source.fields.model_dump().items() if column is not None}
    if source.text_template:
        roles |= {f"template:{name}": name for name in _template_columns(source.text_template)}
    where, given = source.path or source.kind, roles.keys() | ({"text_template"} if source.text_template else set())
    if source.format == "squad" and source.kind == "files":
        if roles:
            raise ConfigError("FIELD_MAP", where, "SQuAD rows need no `fields`", "leave `fields` out")
        return {}
    if len(given & {"text", "text_template", "messages", "prompt", "question"}) != 1:
        what = f"`fields` maps {', '.join(sorted(given)) or 'nothing'}"
        raise ConfigError("FIELD_MAP", where, what, "map one of text, messages, prompt + response, question + response")
    if bool(given & {"prompt", "question"}) != ("response" in given):
        raise ConfigError("FIELD_MAP", where, "`response` and a prompt or question go together", "map both columns")
    if "context" in given and "question" not in given:
        raise ConfigError("FIELD_MAP", where, "`context` goes with `question`", "map the question's column")
    return roles


def _template_columns(template: str) -> list[str]:
    try:
        parts = list(Formatter().parse(template))
    except ValueError as e:
        raise ConfigError("FIELD_MAP", "text_template", str(e), "write {column} and double other braces") from e
    names = [name for _, name, _, _ in parts if name is not None]
    odd = [name for _, name, form, conversion in parts if name is not None and (form or conversion)]
    odd += [name for name in names if not name or "." in name or "[" in name or name.isdigit()]
    if odd or not names:
        what = f"{{{odd[0]}}} is no plain column" if odd else "the template names no column"
        raise ConfigError("FIELD_MAP", "text_template", what, "write {column}, without attribute, index or format")
    return names


class _Columns:
    """Which columns exist and of which types the mapped ones are, over a whole source."""

    def __init__(self, source: SourceConfig) -> None:
        self.roles = _roles(source)
        self.known: dict[str, None] = {}
        self.types: dict[str, dict[str, str]] = {column: {} for column in self.roles.values()}

    def see(self, row: Row) -> None:
        if len(self.known) < 1000:
            self.known.update(dict.fromkeys(row.values))
        for column, types in self.types.items():
            value = row.values.get(column)
            if value is not None:
                types.setdefault(_type(value), row.where)
                self.known[column] = None

    def check(self, where: str) -> None:
        names = list(self.known)
        for role, column in self.roles.items():
            if column not in self.known:
                near = get_close_matches(column, names, n=1, cutoff=0.5)
                what = f"no row has the column {column!r} (fields.{role}); the columns are {', '.join(names[:40])}"
                fix = f"did you mean {near[0]!r}?" if near else "name one of them"
                raise ConfigError("FIELD_UNKNOWN", where, what, fix)
        for column, types in self.types.items():
            if len(types) > 1:
                first = "; ".join(f"{kind} at {place}" for kind, place in types.items())
                raise DataError("SCHEMA_TYPE", where, f"column {column!r} mixes types: {first}", "give it one type")


def _type(value: Any) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return names.get(type(value), type(value).__name__)


def _cell(row: Row, column: str, notes: dict[str, int]) -> str:
    value = row.values.get(column)
    if value is None:
        raise Fault("FIELD_MISSING", f"{column!r} is {'null' if column in row.values else 'not there'}")
    if isinstance(value, (int, float)):
        notes["numbers_as_text"] = notes.get("numbers_as_text", 0) + 1
        return json.dumps(value)
    if not isinstance(value, str):
        raise Fault("FIELD_TYPE", f"{column!r} is a {_type(value)}, not text")
    if not value.strip():
        raise Fault("FIELD_BLANK", f"{column!r} is blank")
    return value


def _record(row: Row, source: SourceConfig, label: str, roles: dict[str, str], notes: dict[str, int]) -> Record:
    if source.format == "squad" and source.kind == "files":
        return _squad_example(row, source, label)

    def cell(role: str) -> str:
        return _cell(row, roles[role], notes)

    meta: dict[str, Any] = {"source": label}
    if source.licence:
        meta["licence"] = source.licence
    meta |= {role: cell(role) for role in ("group", "category") if role in roles}
    if "facts" in roles:
        meta["facts"] = _facts(row, roles["facts"])
    own = cell("id") if "id" in roles else ""
    if source.text_template or "text" in roles:
        values = {name: _cell(row, name, notes) for key, name in roles.items() if key.startswith("template:")}
        text = source.text_template.format_map(values) if source.text_template else cell("text")
        return Document(own or digest(text, 16), text, meta)
    if "messages" in roles:
        messages = _chat(row, roles["messages"])
        return Example(own or digest(messages, 16), messages, meta)
    prompt = cell("prompt" if "prompt" in roles else "question")
    if "context" in roles:
        meta |= {"context": cell("context"), "question": prompt}
        prompt = context_turn(meta["context"], prompt)
    return _pair(own, prompt, cell("response"), meta)


def _pair(own: str, prompt: str, response: str, meta: dict[str, Any]) -> Example:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    return Example(own or digest(messages, 16), messages, meta)


def _facts(row: Row, column: str) -> list[str]:
    """A list of texts; a cell of CSV or SQL holds it as JSON, or one fact."""
    value = row.values.get(column)
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = parse_value(value)
    facts = value if isinstance(value, list) else [_cell(row, column, {})]
    if not facts:
        raise Fault("FIELD_BLANK", f"{column!r} is an empty list")
    if not all(isinstance(fact, str) and fact.strip() for fact in facts):
        raise Fault("FIELD_TYPE", f"{column!r} holds something other than non-blank texts")
    return facts


# [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
#  {"role": "assistant", "content": "Hello"}]
def _chat(row: Row, column: str) -> list[Message]:
    turns = row.values.get(column)
    if turns is None:
        raise Fault("FIELD_MISSING", f"{column!r} is {'null' if column in row.values else 'not there'}")
    if isinstance(turns, str):
        turns = parse_value(turns)
    if not isinstance(turns, list) or not turns:
        raise Fault("CHAT_SHAPE", f"{column!r} is no list of turns, or an empty one")
    for i, turn in enumerate(turns):
        role = turn.get("role") if isinstance(turn, dict) else None
        if role not in ROLES:
            raise Fault("CHAT_SHAPE", f"turn {i}: unknown role {role!r}; known are {', '.join(ROLES)}")
        if role == "system" and i:
            raise Fault("CHAT_SHAPE", f"turn {i}: a system turn that is not the first")
        if role == "assistant" and i and turns[i - 1]["role"] == role:
            raise Fault("CHAT_SHAPE", f"turn {i}: a second assistant turn in a row")
        if not isinstance(turn.get("content"), str) or not turn["content"].strip():
            raise Fault("CHAT_SHAPE", f"turn {i}: empty {role} turn")
    last = len(turns) - 1
    for role in ("assistant", "user"):
        if all(turn["role"] != role for turn in turns):
            raise Fault("CHAT_SHAPE", f"turn {last}: the chat ends without any {role} turn")
    if turns[-1]["role"] != "assistant":
        raise Fault("CHAT_SHAPE", f"turn {last}: the last turn is the {turns[-1]['role']}'s, not the assistant's")
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


# {"title": "Amazon", "paragraphs": [{"context": "...", "qas": [{"id": "5a", "question": "...",
#  "answers": [{"text": "308", "answer_start": 32}], "is_impossible": false}]}]}
def _questions(articles: Iterator[Row | Bad]) -> Iterator[Row | Bad]:
    """Each question of SQuAD articles as a row; a malformed article or paragraph is one bad row."""
    for article in articles:
        if isinstance(article, Bad):
            yield article
            continue
        title, paragraphs = article.values.get("title"), article.values.get("paragraphs")
        if not isinstance(paragraphs, list):
            yield Bad(article.where, article.offset, "SQUAD_SHAPE", "an article without a list of `paragraphs`")
            continue
        for p, paragraph in enumerate(paragraphs, 1):
            where, questions = f"{article.where} paragraph {p}", None
            if isinstance(paragraph, dict) and isinstance(paragraph.get("context"), str):
                questions = paragraph.get("qas")
            if not isinstance(questions, list):
                yield Bad(where, article.offset, "SQUAD_SHAPE", "a paragraph without `context` or a list of `qas`")
                continue
            for q, question in enumerate(questions, 1):
                place = f"{where} question {q}"
                if isinstance(question, dict):
                    values = {**question, "title": title, "context": paragraph["context"]}
                    yield Row(place, article.offset, values)
                else:
                    yield Bad(place, article.offset, "SQUAD_SHAPE", "a question that is no object")


def _squad_example(row: Row, source: SourceConfig, label: str) -> Example:
    context, question = _cell(row, "context", {}), _cell(row, "question", {})
    given = row.values.get("answers")
    answers = [a.get("text") for a in given if isinstance(a, dict)] if isinstance(given, list) else []
    texts = list(dict.fromkeys(a for a in answers if isinstance(a, str) and a.strip()))
    if row.values.get("is_impossible") is True:
        raise Fault(UNANSWERABLE, "the question has no answer in the passage")
    if not texts:
        raise Fault("ANSWER_MISSING", "the question has no answer in the passage")
    # Untitled articles still keep the questions of one passage together.
    group = row.values["title"] if isinstance(row.values["title"], str) else digest(context, 16)
    meta: dict[str, Any] = {"source": label, "group": group, "context": context, "question": question, "answers": texts}
    if source.licence:
        meta["licence"] = source.licence
    own = _cell(row, "id", {}) if row.values.get("id") is not None else ""
    return _pair(own, context_turn(context, question), texts[0], meta)
