"""BigQuery: the real client against a stand-in for the service's REST interface; priced first, capped, and typed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collecting import code, gather
from thread import TINY, make_tiny, one_line, understudy
from warehouse import Table, Warehouse, warehouse

from understudy.config import FieldMap, SourceConfig
from understudy.data.sources.bigquery import estimate
from understudy.data.sources.collect import source_digests

pytestmark = pytest.mark.services


@pytest.fixture
def house() -> Iterator[Warehouse]:
    with warehouse() as found:
        text = [{"name": "id", "type": "INTEGER"}, {"name": "text", "type": "STRING"}]
        found.tables["d.reviews"] = Table(text, [[str(i), f"Отзыв {i}" if i != 3 else None] for i in range(7)])
        yield found


def asked(house: Warehouse, query: str = "SELECT id, text FROM `p.d.reviews`", **options: Any) -> SourceConfig:
    fields = FieldMap(**options.pop("fields", {"id": "id", "text": "text"}))
    known = {"kind": "bigquery", "project": "p", "query": query, "endpoint_url": house.address, "timeout_s": 4}
    return SourceConfig(**{**known, "fields": fields, **options})


def test_rows_come_page_by_page_and_the_job_carries_the_cap(tmp_path: Path, house: Warehouse) -> None:
    ledger, rows, rejects = gather(tmp_path, asked(house, max_bytes=5_000))
    assert [r["id"] for r in rows] == ["0", "1", "2", "4", "5", "6"] and rows[0]["text"] == "Отзыв 0"
    assert ledger.rejected == {"FIELD_MISSING": 1} and rejects[0]["where"].endswith(":row 4")
    assert ledger.notes["bigquery_bytes"] == 1_000
    assert [body["maximumBytesBilled"] for body in house.billed()] == ["5000"]


def test_a_query_over_the_cap_is_refused_before_it_costs_anything(tmp_path: Path, house: Warehouse) -> None:
    house.tables["d.reviews"].bytes = 3 << 40
    error = code(tmp_path, asked(house, max_bytes=1 << 40, price_per_tib=6.25))
    assert (error.code, error.exit_code) == ("BQ_COST", 4) and house.billed() == []
    assert "3,298,534,883,328 bytes (about 18.7500 at 6.25 per TiB)" in error.what


FAULTS = {
    "quota": ("BQ_QUOTA", 4), "denied": ("BQ_DENIED", 4), "unauthorized": ("BQ_CREDENTIALS", 4),
    "syntax": ("SQL_SYNTAX", 2),
    "billed": ("BQ_COST", 4), "down": ("BQ_UNREACHABLE", 4), "drop": ("BQ_UNREACHABLE", 4),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_service_refuses_is_told_apart(tmp_path: Path, house: Warehouse, fault: str) -> None:
    house.fault = fault
    error = code(tmp_path, asked(house, timeout_s=2))
    assert (error.code, error.exit_code) == FAULTS[fault], error


def test_a_table_or_service_that_is_not_there(tmp_path: Path, house: Warehouse) -> None:
    assert code(tmp_path, asked(house, "SELECT a FROM `d.nothing`")).code == "BQ_MISSING"
    error = code(tmp_path, asked(house, endpoint_url="http://127.0.0.1:9", timeout_s=2))
    assert (error.code, error.exit_code) == ("BQ_UNREACHABLE", 4)


@pytest.mark.parametrize("query", ["DELETE FROM d.reviews", "SELECT 1; DROP TABLE d.t", "CREATE TABLE d.x"])
def test_a_statement_that_writes_is_never_sent(tmp_path: Path, house: Warehouse, query: str) -> None:
    error = code(tmp_path, asked(house, query))
    assert (error.code, error.exit_code) == ("SQL_WRITE", 6) and house.seen == []


TYPES: list[tuple[str, dict[str, Any], Any, str]] = [
    ("NUMERIC", {}, "12345678901234567890.123456789", "12345678901234567890.123456789"),
    ("BIGNUMERIC", {}, "0.1", "0.1"),
    ("FLOAT", {}, "1.5", "1.5"),
    ("BOOLEAN", {}, "true", "true"),
    ("DATE", {}, "9999-12-31", "9999-12-31"),
    ("TIME", {}, "03:04:05", "03:04:05"),
    ("DATETIME", {}, "2026-01-02T03:04:05", "2026-01-02T03:04:05"),
    ("TIMESTAMP", {}, "1767323045000000", "2026-01-02T03:04:05+00:00"),
]


@pytest.mark.parametrize(("kind", "more", "cell", "text"), TYPES, ids=[t[0] for t in TYPES])
def test_every_type_has_one_written_form(
    tmp_path: Path, house: Warehouse, kind: str, more: dict[str, Any], cell: Any, text: str
) -> None:
    house.tables["d.t"] = Table([{"name": "text", "type": kind, **more}], [[cell]])
    _, rows, _ = gather(tmp_path, asked(house, "SELECT text FROM d.t", fields={"text": "text"}))
    assert [r["text"] for r in rows] == [text]


def test_lists_and_structures_keep_their_shape_and_bytes_cost_the_row(tmp_path: Path, house: Warehouse) -> None:
    turn = [{"name": "role", "type": "STRING"}, {"name": "content", "type": "STRING"}]
    cells = [{"v": {"f": [{"v": role}, {"v": "x"}]}} for role in ("user", "assistant")]
    house.tables["d.t"] = Table([{"name": "m", "type": "RECORD", "mode": "REPEATED", "fields": turn}], [[cells]])
    _, [row], _ = gather(tmp_path, asked(house, "SELECT m FROM d.t", fields={"messages": "m"}))
    assert [t["role"] for t in row["messages"]] == ["user", "assistant"]
    house.tables["d.b"] = Table([{"name": "text", "type": "BYTES"}], [["AAE="]])
    error = code(tmp_path, asked(house, "SELECT text FROM d.b", fields={"text": "text"}))
    assert error.code == "BAD_ROWS" and "FIELD_TYPE" in error.what


def test_the_digest_follows_the_tables_and_costs_nothing(tmp_path: Path, house: Warehouse) -> None:
    source = asked(house)
    before = source_digests([source], tmp_path)
    assert before == source_digests([source], tmp_path) and house.billed() == []
    assert list(before)[0].startswith("bigquery:")
    house.tables["d.reviews"].modified = 2
    assert source_digests([source], tmp_path) != before
    assert estimate(source, tmp_path).tables.keys() == {"p.d.reviews"}


def test_more_rows_than_the_cap_stop_the_run(tmp_path: Path, house: Warehouse) -> None:
    assert gather(tmp_path, asked(house, max_rows=7))[0].rows_in == 7
    error = code(tmp_path, asked(house, max_rows=6))
    assert (error.code, error.exit_code) == ("ROW_CAP", 3)


def test_no_credentials_are_told_before_anything_is_sent(
    tmp_path: Path, house: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    error = code(tmp_path, asked(house, endpoint_url=None))
    assert (error.code, error.exit_code) == ("BQ_CREDENTIALS", 4)


def test_the_command_line_prints_the_price(tmp_path: Path, house: Warehouse) -> None:
    folder = make_tiny(tmp_path)
    file = folder / "understudy.yaml"
    source = "{kind: bigquery, project: p, query: SELECT id FROM d.reviews, fields: {text: text}, "
    source += f"endpoint_url: '{house.address}'}}"
    file.write_text(TINY.replace("{path: data/rows.jsonl, fields: {prompt: q, response: a}}", source))
    done = understudy("check", "-C", str(folder))
    assert done.returncode == 0 and "would read 1,000 bytes (about 0.0000 at 6.25 per TiB)" in done.stderr
    house.tables["d.reviews"].bytes = 1 << 50
    one_line(understudy("plan", "-C", str(folder)), "BQ_COST", 4)
    assert house.billed() == []
