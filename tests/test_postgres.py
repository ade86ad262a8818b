"""SQL sources against a real PostgreSQL server (Debian's package), with a role that may only read."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collecting import code, gather

from understudy.config import FieldMap, SourceConfig

pytestmark = pytest.mark.services

SCHEMA = """
CREATE TABLE t (id int PRIMARY KEY, text text, n numeric(30, 4), b bytea, a int[], j jsonb, u uuid, d date,
  tz timestamptz, ts timestamp, i interval, x double precision);
INSERT INTO t VALUES
  (1, 'Отзыв', 12345678901234567890.5, '\\x00', '{1,2}', '[{"role": "user", "content": "hi"},
   {"role": "assistant", "content": "yo"}]', '5f0c3b1e-0000-4000-8000-000000000001', '9999-12-31',
   '2026-01-02 03:04:05+03', '2026-01-02 03:04:05', '1 day', 'NaN'),
  (2, NULL, NULL, NULL, NULL, NULL, NULL, 'infinity', NULL, NULL, NULL, NULL);
CREATE TABLE many AS SELECT g AS id, repeat('x', 500) || g AS text FROM generate_series(1, 50000) g;
CREATE TABLE secret (text text);
CREATE FUNCTION sneak() RETURNS int LANGUAGE sql AS 'INSERT INTO many VALUES (0, ''sneaked'') RETURNING id';
CREATE ROLE reader LOGIN PASSWORD 'hunter2';
GRANT SELECT, INSERT ON t, many TO reader;
"""


class Server:
    """A cluster in a folder of its own, run by the user postgres."""

    def __init__(self, folder: Path) -> None:
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/pg_ctl"))
        assert found, "PostgreSQL is not installed: apt-get install postgresql"
        self.bin, self.folder = Path(found[-1]).parent, folder
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]

    def call(self, name: str, *args: str, text: str | None = None) -> str:
        user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        command = [*user, str(self.bin / name), *args]
        done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=self.folder, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def start(self) -> None:
        data = str(self.folder / "data")
        self.call("initdb", "-D", data, "-A", "scram-sha-256", "-U", "boss", "--pwfile", str(self.folder / "password"))
        options = f"-p {self.port} -h 127.0.0.1 -k '' -c fsync=off"
        self.call("pg_ctl", "-D", data, "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        self.call("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")

    def sql(self, text: str) -> str:
        url = f"postgresql://boss:boss@127.0.0.1:{self.port}/postgres"
        return self.call("psql", "-q", "-t", "-v", "ON_ERROR_STOP=1", url, text=text)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="understudy-postgres-"))
    (folder / "password").write_text("boss")
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
        shutil.chown(folder / "password", "postgres")
    found = Server(folder)
    try:
        found.start()
        found.sql(SCHEMA)
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2")


def asked(server: Server, query: str, fields: dict[str, str] | None = None, **options: Any) -> SourceConfig:
    url = f"postgresql+psycopg://reader:${{env:SHOP_PASSWORD}}@127.0.0.1:{server.port}/postgres"
    return SourceConfig(kind="sql", url=url, query=query, fields=FieldMap(**(fields or {"text": "text"})), **options)


FORMS = {
    "n": "12345678901234567890.5000", "u": "5f0c3b1e-0000-4000-8000-000000000001", "d": "9999-12-31",
    "ts": "2026-01-02T03:04:05", "i": "86400 s",
}  # fmt: skip


@pytest.mark.parametrize("column", FORMS)
def test_every_type_has_one_written_form(tmp_path: Path, server: Server, column: str) -> None:
    query = f"SELECT {column} AS text FROM t WHERE id = 1"
    assert [r["text"] for r in gather(tmp_path, asked(server, query))[1]] == [FORMS[column]]


def test_a_time_with_a_zone_keeps_its_moment_and_json_its_shape(tmp_path: Path, server: Server) -> None:
    import datetime

    _, [row], _ = gather(tmp_path, asked(server, "SELECT tz AS text FROM t WHERE id = 1"))
    assert datetime.datetime.fromisoformat(row["text"]).timestamp() == 1_767_312_245
    _, [row], _ = gather(tmp_path, asked(server, "SELECT j FROM t WHERE id = 1", {"messages": "j"}))
    assert [t["content"] for t in row["messages"]] == ["hi", "yo"]


@pytest.mark.parametrize(("column", "reason"), [("b", "FIELD_TYPE"), ("x", "NUM_NOT_FINITE"), ("a", "FIELD_TYPE")])
def test_a_cell_without_a_form_costs_its_row(tmp_path: Path, server: Server, column: str, reason: str) -> None:
    error = code(tmp_path, asked(server, f"SELECT {column} AS text FROM t WHERE id = 1"))
    assert error.code == "BAD_ROWS" and reason in error.what


def test_a_date_beyond_the_calendar_is_named(tmp_path: Path, server: Server) -> None:
    error = code(tmp_path, asked(server, "SELECT d AS text FROM t"))
    assert (error.code, error.exit_code) == ("SCHEMA_TYPE", 3) and "hunter2" not in str(error)


def test_rows_are_streamed_and_a_cap_holds(tmp_path: Path, server: Server) -> None:
    query = "SELECT id, text FROM many ORDER BY id"
    ledger, rows, _ = gather(tmp_path, asked(server, query, {"id": "id", "text": "text"}))
    assert ledger.rows_out == 50_000 and rows[-1]["id"] == "50000"
    error = code(tmp_path, asked(server, query, max_rows=49_999))
    assert (error.code, error.exit_code) == ("ROW_CAP", 3)


def test_a_function_that_writes_is_stopped_by_the_transaction(tmp_path: Path, server: Server) -> None:
    """The role may insert and the statement is a SELECT: only the read-only transaction stands between."""
    error = code(tmp_path, asked(server, "SELECT sneak() AS text"))
    assert (error.code, error.exit_code) == ("SQL_WRITE", 6), error
    assert server.sql("SELECT count(*) FROM many").strip() == "50000"


def test_what_the_server_refuses_is_told_apart(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {"SELECT text FROM secret": ("DB_DENIED", 4), "SELECT nope FROM t": ("SQL_SYNTAX", 2)}
    for query, wanted in cases.items():
        error = code(tmp_path, asked(server, query))
        assert (error.code, error.exit_code) == wanted, error
    monkeypatch.setenv("SHOP_PASSWORD", "wrong-secret")
    error = code(tmp_path, asked(server, "SELECT text FROM t"))
    assert (error.code, error.exit_code) == ("DB_CONNECT", 4) and "wrong-secret" not in str(error)


def test_a_connection_that_is_dropped_midway_is_a_remote_error(tmp_path: Path, server: Server) -> None:
    from understudy.data.sources.sql import read_sql
    from understudy.errors import RemoteError

    rows = read_sql(asked(server, "SELECT text FROM many"), tmp_path, {}, {})
    for _ in range(1_500):
        next(rows)
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'reader'")
    with pytest.raises(RemoteError, match="DB_LOST"):
        list(rows)
