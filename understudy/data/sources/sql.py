"""Rows of one SELECT through SQLAlchemy: read-only, streamed, in the query's own order.

Three locks: only one SELECT or WITH statement without a writing word is sent, SQLite is opened with mode=ro and servers
get a read-only transaction, and nothing is ever committed. Messages never show a URL or the value of a variable.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config import SourceConfig
from understudy.core.records import canonical, digest
from understudy.data.clean import Fault, Notes, scrub
from understudy.data.sources.cells import plain
from understudy.data.sources.reader import Bad, Row
from understudy.errors import ConfigError, DataError, IntegrityError, RemoteError, UnderstudyError, extra

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
# What the words of a statement are looked for outside of: comments, texts, quoted names, dollar quotes.
QUOTED = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\$(\w*)\$.*?\$\1\$", re.DOTALL)
WRITES = re.compile(r"\b(insert|update|delete|merge|drop|alter|create|truncate|grant|revoke|into)\b", re.IGNORECASE)
ROWS_AT_ONCE = 1000


def label(source: SourceConfig, project: Path) -> str:
    """The name of a query in places and digests, `sql:` or `bigquery:` and its digest; free of host and user."""
    return source.query_file or f"{source.kind}:{digest(query_of(source, project), 8)}"


def resolve_env(text: str, where: str) -> str:
    """`text` with each `${env:NAME}` replaced. Raises ConfigError ENV_MISSING naming the variable, never its value."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        found = os.environ.get(name, "")
        if not found.strip() or "\n" in found or "\r" in found:
            state = "is not set" if name not in os.environ else "is empty or holds a line break"
            raise ConfigError("ENV_MISSING", where, f"the environment variable {name} {state}", f"export {name}=...")
        return found

    return REFERENCE.sub(value, text)


def check_query(query: str, where: str) -> None:
    """Raise IntegrityError SQL_WRITE unless `query` is one SELECT or WITH statement that only reads."""
    bare = QUOTED.sub(lambda m: " " if m[0][:2] in ("--", "/*") else " '' ", query).strip().rstrip(";").strip()
    what = ""
    if "\\'" in query:
        what = "a backslash before a quote reads differently in each database"
    elif not re.match(r"(select|with)\b", bare, re.IGNORECASE):
        what = f"the statement starts with {bare.split()[0][:20] if bare else 'nothing'!r}"
    elif ";" in bare:
        what = "there is more than one statement"
    elif word := WRITES.search(bare):
        what = f"the statement holds {word[0].upper()}"
    if what:
        raise IntegrityError("SQL_WRITE", where, what, "give one SELECT that only reads")


def read_sql(source: SourceConfig, project: Path, notes: Notes, digests: dict[str, str]) -> Iterator[Row | Bad]:
    """Stream the rows of a source's query; at their end `digests` gets what `result_digest` says of them.

    Raises ConfigError ENV_MISSING, SOURCE_NOT_FOUND, SQL_URL, SQL_SYNTAX, SQL_COLUMNS; IntegrityError SQL_WRITE;
    DataError DATA_EMPTY, SCHEMA_TYPE; RemoteError DB_CONNECT, DB_DENIED, DB_LOST; ResourceError EXTRA_MISSING.
    """
    where = label(source, project)
    count = 0
    with _result(source, project, where) as (columns, rows):
        running = _running(columns)
        for count, cells in enumerate(rows, 1):
            running.update(_line(cells))
            place = f"{where}:row {count}"
            try:
                values = {name: plain(name, cell) for name, cell in zip(columns, cells, strict=True)}
                yield Row(place, -1, scrub(values, notes))
            except Fault as fault:
                yield Bad(place, -1, fault.reason, fault.detail)
    if not count:
        raise DataError("DATA_EMPTY", where, "the query gives no rows", "run it by hand and mend its conditions")
    digests[where] = running.hexdigest()


def result_digest(source: SourceConfig, project: Path) -> str:
    """sha256 over columns and rows of the query's result, in its order."""
    with _result(source, project, label(source, project)) as (columns, rows):
        running = _running(columns)
        for cells in rows:
            running.update(_line(cells))
    return running.hexdigest()


def _running(columns: list[str]) -> hashlib._Hash:
    return hashlib.sha256(canonical(columns).encode())


def _line(cells: Any) -> bytes:
    return b"\n" + repr(tuple(map(_plain, cells))).encode("utf-8", "surrogatepass")


def _plain(cell: Any) -> Any:
    return bytes(cell) if isinstance(cell, (memoryview, bytearray)) else cell


def query_of(source: SourceConfig, project: Path) -> str:
    """The text of a source's query. Raises ConfigError SOURCE_NOT_FOUND, SQL_SYNTAX; IntegrityError PATH_ESCAPE."""
    if source.query_file is None:
        return source.query or ""
    path = project / source.query_file
    if not path.resolve().is_relative_to(project.resolve()) and not os.path.isabs(source.query_file):
        fix = "move the file into the project, or give an absolute path"
        raise IntegrityError("PATH_ESCAPE", source.query_file, "the path leaves the project", fix)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        what = f"byte {e.start} is not UTF-8"
        raise ConfigError("SQL_SYNTAX", source.query_file, what, "convert the file to UTF-8") from e
    except OSError as e:
        raise ConfigError("SOURCE_NOT_FOUND", source.query_file, e.strerror or "not readable", "give the file") from e


@contextmanager
def _result(source: SourceConfig, project: Path, where: str) -> Iterator[tuple[list[str], Iterator[Any]]]:
    """Column names and streamed rows of the query; the connection lives as long as the block."""
    query = query_of(source, project)
    check_query(query, where)
    url = resolve_env(source.url or "", where)
    with extra("sql"):
        from sqlalchemy import exc
    engine = _engine(url, project, where)
    try:
        try:
            connection = _read_only(engine)
        except (exc.SQLAlchemyError, OSError) as e:
            fix = "check that the server is up and the URL right"
            raise RemoteError("DB_CONNECT", where, _masked(e, url), fix) from e
        with connection:
            try:
                options = {"stream_results": True, "yield_per": ROWS_AT_ONCE, "no_parameters": True}
                result = connection.exec_driver_sql(query.strip().rstrip(";"), execution_options=options)
            except exc.DBAPIError as e:
                raise _refusal(e, engine, url, where) from e
            columns = list(result.keys())
            if twice := sorted({name for name in columns if columns.count(name) > 1}):
                what = f"columns named twice: {', '.join(twice)}"
                raise ConfigError("SQL_COLUMNS", where, what, "name them apart with AS")
            yield columns, _stream(result, url, where)
    finally:
        engine.dispose()


def _stream(result: Any, url: str, where: str) -> Iterator[Any]:
    from sqlalchemy import exc

    try:
        yield from result
    except exc.DataError as e:
        fix = "cast that column to text in the query"
        raise DataError("SCHEMA_TYPE", where, f"a value has no Python form: {_masked(e, url)}", fix) from e
    except exc.DBAPIError as e:
        if not e.connection_invalidated and (refusal := _by_state(e, where, url)):
            raise refusal from e
        raise RemoteError("DB_LOST", where, _masked(e, url), "run again; no row of this source was kept") from e


def _engine(url: str, project: Path, where: str) -> Engine:
    with extra("sql"):
        from sqlalchemy import create_engine, exc
        from sqlalchemy.engine import make_url
        from sqlalchemy.pool import NullPool

        try:
            parsed = make_url(url)
            if parsed.get_backend_name() == "sqlite":
                return _sqlite(parsed.database, project, where)
            return create_engine(parsed, poolclass=NullPool)
        # The library's own words would show the URL, which may hold a password.
        except (exc.ArgumentError, exc.NoSuchModuleError, ValueError):
            what = "this is no SQLAlchemy URL of a known database"
            raise ConfigError("SQL_URL", where, what, "write e.g. sqlite:///data/catalogue.db") from None


def _sqlite(database: str | None, project: Path, where: str) -> Engine:
    import sqlite3
    from urllib.parse import quote

    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    name = database or ""
    path = (project / name).resolve()
    if not os.path.isabs(name) and not path.is_relative_to(project.resolve()):
        fix = "move the file into the project, or give an absolute path"
        raise IntegrityError("PATH_ESCAPE", where, "the database lies outside the project", fix)
    if not path.is_file():
        shown = Path(name).name or "(none)"
        raise ConfigError("SOURCE_NOT_FOUND", where, f"no SQLite file {shown!r} is there", "give its path")
    uri = f"file:{quote(str(path))}?mode=ro"
    return create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=NullPool)


def _read_only(engine: Engine) -> Connection:
    connection = engine.connect()
    if engine.dialect.name == "postgresql":
        connection = connection.execution_options(postgresql_readonly=True)
    elif engine.dialect.name in ("mysql", "mariadb"):
        connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
    elif engine.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA query_only = ON")
    return connection


def _refusal(error: Any, engine: Engine, url: str, where: str) -> UnderstudyError:
    from sqlalchemy import exc

    text = _masked(error, url)
    if refusal := _by_state(error, where, url):
        return refusal
    if error.connection_invalidated:
        return RemoteError("DB_LOST", where, text, "run again")
    if engine.dialect.name == "sqlite" and ("not a database" in text or "malformed" in text):
        return DataError("FILE_CORRUPT", where, text, "give an intact SQLite file")
    busy = engine.dialect.name == "sqlite" and ("locked" in text or "unable to open" in text or "disk I/O" in text)
    if isinstance(error, exc.ProgrammingError) or (engine.dialect.name == "sqlite" and not busy):
        return ConfigError("SQL_SYNTAX", where, text, "run the query by hand and mend it")
    return RemoteError("DB_CONNECT", where, text, "check the database and run again")


def _by_state(error: Any, where: str, url: str) -> UnderstudyError | None:
    """What a server's own code says where the driver's class does not: a write, or a missing right."""
    state = getattr(error.orig, "sqlstate", None)
    if state == "25006":
        return IntegrityError("SQL_WRITE", where, _masked(error, url), "give one SELECT that only reads")
    if state == "42501":
        return RemoteError("DB_DENIED", where, _masked(error, url), "grant the role SELECT on what the query reads")
    return None


def _masked(error: Any, url: str) -> str:
    """First line of the driver's own words, without the URL and its password."""
    text = str(getattr(error, "orig", None) or error).split("\n")[0]
    secret = re.search(r"://[^:@/]*:([^@]*)@", url)
    for part in (url, secret[1] if secret else ""):
        text = text.replace(part, "***") if part else text
    return text[:300]
