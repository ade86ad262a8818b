"""Collecting: what a source may be, how rows become records, and what stops a run."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collecting import QA, code, gather, put, source
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from understudy.config import BaseConfig, CollectConfig, FieldMap, SourceConfig, StorageConfig
from understudy.core.records import digest, sha256_file
from understudy.data.sources.collect import _Intake, _items, collect, source_digests
from understudy.data.sources.sql import check_query
from understudy.errors import ConfigError, DataError, RemoteError
from understudy.models.base_files import folder_digest, take_in

# --- which files


def test_globs_are_sorted_and_places_are_relative_to_the_project(tmp_path: Path) -> None:
    for name in ("b", "a", "ä о"):
        put(tmp_path, f"in/{name}.jsonl", [{"text": f"t {name}"}, {"text": " "}])
    (tmp_path / "in" / "folder.jsonl").mkdir()
    ledger, rows, rejects = gather(tmp_path, source("in/*.jsonl", licence="MIT"))
    assert [r["meta"] for r in rows] == [{"source": f"in/{n}.jsonl", "licence": "MIT"} for n in ("a", "b", "ä о")]
    assert [r["where"] for r in rejects] == ["in/a.jsonl:2", "in/b.jsonl:2", "in/ä о.jsonl:2"]
    assert ledger.rejected == {"FIELD_BLANK": 3}


def test_a_column_can_be_the_address_of_the_page(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", [{"text": "x", "page": "https://a.org/x"}, {"text": "y", "page": None}])
    ledger, [row], _ = gather(tmp_path, source("a.jsonl", {"text": "text", "url": "page"}))
    assert row["meta"]["url"] == "https://a.org/x" and row["id"] == digest("x", 16)
    assert ledger.rejected == {"FIELD_MISSING": 1}


def test_an_absolute_path_is_named_by_its_file_only(tmp_path: Path) -> None:
    put(tmp_path, "far/a.jsonl", [{"text": "x"}])
    (tmp_path / "p").mkdir()
    _, rows, _ = gather(tmp_path / "p", source(str(tmp_path / "far" / "a.jsonl")))
    assert rows[0]["meta"] == {"source": "a.jsonl"}
    assert str(tmp_path) not in (tmp_path / "p" / ".out" / "rows.jsonl").read_text()


@pytest.mark.parametrize(
    "setting, value",
    [("key", "${env:NO_SUCH}"), ("secret", "s"), ("token", "t"), ("region", "eu"), ("anonymous", True)],
)
def test_what_only_s3_takes_is_refused_for_another_store_before_it_is_asked(
    tmp_path: Path, setting: str, value: str | bool
) -> None:
    for scheme in ("gs", "gcs", "abfs", "az"):
        storage = StorageConfig(**{setting: value})  # type: ignore[arg-type]
        error = code(tmp_path, source(f"{scheme}://b/a.jsonl", storage=storage))
        assert (error.code, error.exit_code) == ("STORE_SETTING", 2) and f"storage.{setting}" in error.what


def test_paths_that_leave_the_project_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", [{"text": "x"}])
    project = tmp_path / "p"
    project.mkdir()
    (project / "link.jsonl").symlink_to(tmp_path / "a.jsonl")
    for path in ("../a.jsonl", "../*.jsonl", "x/../../a.jsonl", "link.jsonl", "*.jsonl"):
        error = code(project, source(path))
        assert (error.code, error.exit_code) == ("PATH_ESCAPE", 6), path


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "dangling.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    expected = {
        "folder": "FILE_SPECIAL", "pipe.jsonl": "FILE_SPECIAL", "dangling.jsonl": "FILE_SPECIAL",
        "loop.jsonl": "PATH_CONFLICT", "missing.jsonl": "SOURCE_NOT_FOUND", "*.csv": "SOURCE_NOT_FOUND",
        "x" * 300: "PATH_NAME", "a\0b": "PATH_NAME",
    }  # fmt: skip
    for path, wanted in expected.items():
        error = code(tmp_path, source(path))
        assert (error.code, error.exit_code) == (wanted, 2), path


def test_one_file_twice_or_inside_the_output_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", [{"text": "x", "q": "1", "a": "2"}])
    assert code(tmp_path, source(), source("./a.jsonl")).code == "PATH_CONFLICT"
    assert gather(tmp_path, source(), source(fields=QA))[0].rows_out == 2
    put(tmp_path, ".out/a.jsonl", [{"text": "x"}])
    assert code(tmp_path, source(".out/a.jsonl")).code == "PATH_CONFLICT"


@pytest.mark.parametrize("data", [b"PK\x03\x04..", b"<!DOCTYPE html>", b"version https://git-lfs", b"\x1f\x8b"])
def test_a_suffix_that_lies_is_told(tmp_path: Path, data: bytes) -> None:
    put(tmp_path, "a.jsonl", data + b"\n")
    assert code(tmp_path, source()).code == "FILE_KIND"


def test_a_file_that_changes_while_it_is_read_stops_the_run(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", [{"text": "x"}, {"text": "y"}])
    reading = _items(source(), tmp_path, _Intake())
    next(reading)
    put(tmp_path, "a.jsonl", [{"text": "x"}])
    with pytest.raises(DataError, match="FILE_CHANGED"):
        list(reading)


def test_content_that_is_not_what_the_run_bound_stops_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        put(tmp_path, f"{name}.jsonl", [{"text": name}])
    cfg = CollectConfig(sources=[source("*.jsonl")])
    bound = cfg.model_copy(update={"digests": source_digests(cfg, tmp_path)})
    collect(bound, tmp_path, tmp_path / ".out")
    put(tmp_path, "b.jsonl", [{"text": "other"}])
    with pytest.raises(DataError, match=r"FILE_CHANGED\] b\.jsonl:"):
        collect(bound, tmp_path, tmp_path / ".out")
    put(tmp_path, "b.jsonl", [{"text": "b"}])
    put(tmp_path, "c.jsonl", [{"text": "c"}])
    with pytest.raises(DataError, match=r"FILE_CHANGED\] c\.jsonl:"):
        collect(bound, tmp_path, tmp_path / ".out")


def test_a_base_that_is_not_what_the_run_bound_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "m/config.json", "{}")
    put(tmp_path, "m/tokenizer.json", "{}")
    put(tmp_path, "m/model.safetensors", "\x02\0\0\0\0\0\0\0{}")
    bound = BaseConfig(path="m", digest=folder_digest(tmp_path / "m"))
    assert take_in(bound, tmp_path, tmp_path / "one")["digest"] == bound.digest
    put(tmp_path, "m/model.safetensors", "\x03\0\0\0\0\0\0\0{} ")
    with pytest.raises(DataError, match="FILE_CHANGED"):
        take_in(bound, tmp_path, tmp_path / "two")


def test_a_relative_glob_leaves_out_what_the_project_writes(tmp_path: Path) -> None:
    for name in ("a", "in/runs/b", "runs/run-0001/journal/x", "store/s", "cache/c", "registry/r"):
        put(tmp_path, f"{name}.jsonl", [{"text": name}])
    for pattern in ("**/*.jsonl", "./**/*.jsonl"):
        _, rows, _ = gather(tmp_path, source(pattern))
        assert [r["text"] for r in rows] == ["a", "in/runs/b"]


# --- columns


def test_every_shape_becomes_a_record(tmp_path: Path) -> None:
    row = {
        "n": 7, "t": "T", "b": "B", "q": "Q?", "a": "A", "c": "C", "k": "kind", "g": "G", "f": ["x", "y"],
        "m": [{"role": "user", "content": "hi", "name": "x"}, {"role": "assistant", "content": "yo"}],
    }  # fmt: skip
    put(tmp_path, "a.jsonl", [row])
    common = {"id": "n", "category": "k", "group": "g", "facts": "f"}
    meta = {"source": "a.jsonl", "group": "G", "category": "kind", "facts": ["x", "y"]}
    turns = [{"role": "user", "content": "C\n\nQuestion: Q?"}, {"role": "assistant", "content": "A"}]
    _, [got], _ = gather(tmp_path, source(fields={**common, "context": "c", "question": "q", "response": "a"}))
    assert got == {"id": "7", "messages": turns, "meta": {**meta, "context": "C", "question": "Q?"}}
    for field in ("prompt", "question"):
        _, [got], _ = gather(tmp_path, source(fields={field: "q", "response": "a"}))
        assert [t["content"] for t in got["messages"]] == ["Q?", "A"] and got["id"] == digest(got["messages"], 16)
    _, [got], _ = gather(tmp_path, source(fields={"messages": "m"}))
    assert got["messages"] == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    _, [got], _ = gather(tmp_path, source(fields={"id": "n"}, text_template="{t}. {b} {{}}"))
    assert got == {"id": "7", "text": "T. B {}", "meta": {"source": "a.jsonl"}}


@pytest.mark.parametrize(
    ("fields", "template"),
    [
        ({}, None), ({"text": "text", "messages": "m"}, None), ({"prompt": "q"}, None), ({"context": "c"}, None),
        ({"prompt": "p", "response": "a", "context": "c"}, None), ({"text": "text"}, "{a}"), ({}, "{a.b}"),
        ({}, "{a[0]}"), ({}, "{}"), ({}, "{a!r}"), ({}, "{a"), ({}, "plain"),
    ],
)  # fmt: skip
def test_a_mapping_that_makes_no_record_is_refused(tmp_path: Path, fields: dict[str, str], template: str) -> None:
    put(tmp_path, "a.jsonl", [{"text": "x"}])
    assert code(tmp_path, source(fields=fields, text_template=template)).code == "FIELD_MAP"


def test_missing_null_and_blank_fields_are_told_apart(tmp_path: Path) -> None:
    good = {"q": "Q", "a": "A", "f": ["x"]}
    rows = [good, {"q": "Q"}, {**good, "a": None}, {**good, "q": " \n"}, {**good, "f": []}, {**good, "f": [1]}]
    put(tmp_path, "a.jsonl", rows)
    ledger, _, rejects = gather(tmp_path, source(fields={**QA, "facts": "f"}))
    assert ledger.rejected == {"FIELD_MISSING": 2, "FIELD_BLANK": 2, "FIELD_TYPE": 1}
    assert [r["where"] for r in rejects] == [f"a.jsonl:{n}" for n in range(2, 7)]


def test_mixed_types_in_a_column_stop_the_run(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", [{"text": "x"}, {"text": "y"}, {"text": 3}, {"text": True}])
    error = code(tmp_path, source())
    assert (error.code, error.exit_code) == ("SCHEMA_TYPE", 3)
    assert "text at a.jsonl:1; number at a.jsonl:3; boolean at a.jsonl:4" in error.what
    put(tmp_path, "b.jsonl", [{"text": 1, "x": "a"}, {"text": 1.5, "x": 2}])
    ledger, rows, _ = gather(tmp_path, source("b.jsonl"))
    assert [r["text"] for r in rows] == ["1", "1.5"] and ledger.notes == {"numbers_as_text": 2}


def test_a_column_that_no_row_has_is_named_with_the_nearest(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", [{"anwser": "x", "title": "t"}] * 200)
    error = code(tmp_path, source(fields={"text": "answer"}))
    assert (error.code, error.exit_code) == ("FIELD_UNKNOWN", 2)
    assert "anwser, title" in error.what and "'anwser'" in error.fix


def test_too_many_bad_rows_stop_with_the_first_five_and_the_total(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", b'{"text": "x"}\n' + b"oops\n" * 11)
    assert gather(tmp_path, source(max_bad_rows=11))[0].rejected == {"ROW_JSON": 11}
    error = code(tmp_path, source(max_bad_rows=10))
    assert (error.code, error.exit_code) == ("BAD_ROWS", 3)
    assert "11 bad rows" in error.what and error.what.count("ROW_JSON") == 5 and "a.jsonl:6" in error.what
    put(tmp_path, "b.jsonl", b"oops\n")
    assert code(tmp_path, source("b.jsonl")).code == "BAD_ROWS"


def test_equal_ids_with_equal_text_are_counted_and_with_other_text_stop(tmp_path: Path) -> None:
    ids = {"id": "id", "text": "text"}
    put(tmp_path, "a.jsonl", [{"id": 1, "text": "x"}, {"id": 1, "text": "x"}, {"id": 2, "text": "x"}])
    ledger, rows, rejects = gather(tmp_path, source(fields=ids))
    assert ledger.rejected == {"ID_DUPLICATE": 1} and [r["id"] for r in rows] == ["1", "2"]
    assert rejects[0]["where"] == "a.jsonl:2" and "a.jsonl:1" in rejects[0]["detail"]
    put(tmp_path, "b.jsonl", [{"id": 2, "text": "y"}])
    error = code(tmp_path, source(fields=ids), source("b.jsonl", fields=ids))
    assert (error.code, error.exit_code) == ("ID_CONFLICT", 3) and "'2' at a.jsonl:3 and b.jsonl:1" in error.what


def test_ids_that_only_look_different_are_set_aside_and_case_is_counted(tmp_path: Path) -> None:
    ids = ["\u04391", "\u0438\u03061", " x ", "x", "X", "x\u00a0"]
    put(tmp_path, "a.jsonl", [{"id": i, "text": f"text {n}"} for n, i in enumerate(ids)])
    ledger, rows, rejects = gather(tmp_path, source(fields={"id": "id", "text": "text"}))
    assert [r["id"] for r in rows] == ["\u04391", " x ", "X"] and ledger.notes["ids_differ_by_case"] == 1
    assert ledger.rejected == {"ID_CONFUSABLE": 3} and "a.jsonl:1" in rejects[0]["detail"]


def test_text_is_collected_as_it_was_written(tmp_path: Path) -> None:
    """Zero width, soft hyphens, storms of marks, right to left, families of emoji, special tokens."""
    texts = [
        "a\u200bb\u00adc",
        "e" + "\u0301" * 200,
        "\u202eabc \u05d0\u05d1",
        "👨‍👩‍👧‍👦",
        "İstanbul ılık",
        "<|im_end|>x",
    ]
    put(tmp_path, "a.jsonl", [{"text": text} for text in texts])
    assert [r["text"] for r in gather(tmp_path, source())[1]] == texts


USER, BOT, SYSTEM = ({"role": r, "content": "x"} for r in ("user", "assistant", "system"))
CHATS: dict[str, tuple[Any, str]] = {
    "unknown role": ([USER, {"role": "robot", "content": "x"}], "turn 1"),
    "two systems": ([SYSTEM, SYSTEM, USER, BOT], "turn 1"),
    "late system": ([USER, SYSTEM, BOT], "turn 1"),
    "user last": ([USER, BOT, USER], "turn 2"),
    "two answers": ([USER, BOT, BOT], "turn 2"),
    "empty turn": ([USER, {"role": "assistant", "content": " "}], "turn 1"),
    "null turn": ([{"role": "user", "content": None}, BOT], "turn 0"),
    "no assistant": ([SYSTEM, USER], "turn 1"),
    "no user": ([SYSTEM, BOT], "turn 1"),
    "no turns": ([], "empty"),
    "text turns": (["hi"], "turn 0"),
}


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_out_of_shape_is_quarantined_with_its_turn(tmp_path: Path, name: str) -> None:
    chat, seen = CHATS[name]
    put(tmp_path, "a.jsonl", [{"m": [SYSTEM, USER, BOT, USER, BOT]}, {"m": chat}])
    ledger, _, rejects = gather(tmp_path, source(fields={"messages": "m"}))
    assert ledger.rejected == {"CHAT_SHAPE": 1} and seen in rejects[0]["detail"]


def test_squad_gives_one_example_a_question(tmp_path: Path) -> None:
    answers = [{"text": "308", "answer_start": 1}, {"text": "308 points"}, {"text": "308"}]
    ask = {"id": "1", "question": "How many?", "answers": answers}
    impossible = {"id": "2", "question": "Why?", "answers": [], "is_impossible": True}
    articles = [
        {"title": "Bowl", "paragraphs": [{"context": "They gave 308.", "qas": [ask, impossible, "?"]}, {"qas": []}]},
        {"title": "Empty"},
    ]
    put(tmp_path, "s.json", json.dumps({"version": "1.1", "data": articles}))
    ledger, [got], rejects = gather(tmp_path, source("s.json", fields={}, format="squad", licence="CC"))
    assert got["messages"][0]["content"] == "They gave 308.\n\nQuestion: How many?"
    assert got["messages"][1]["content"] == "308" and got["id"] == "1"
    assert got["meta"] == {
        "source": "s.json", "licence": "CC", "group": "Bowl", "context": "They gave 308.", "question": "How many?",
        "answers": ["308", "308 points"],
    }  # fmt: skip
    assert ledger.rejected == {"UNANSWERABLE": 1, "SQUAD_SHAPE": 3}
    assert "paragraph 1 question 2" in rejects[0]["where"]


def test_questions_without_an_answer_are_set_aside_but_are_no_bad_rows(tmp_path: Path) -> None:
    asked = [{"question": f"{i}?", "answers": [], "is_impossible": True} for i in range(150)]
    asked += [{"question": "Who?", "answers": [{"text": "Ann"}]}, {"question": "What?", "answers": []}]
    put(tmp_path, "s.json", json.dumps({"data": [{"title": "T", "paragraphs": [{"context": "C", "qas": asked}]}]}))
    ledger, rows, _ = gather(tmp_path, source("s.json", fields={}, format="squad", max_bad_rows=1))
    assert len(rows) == 1 and ledger.rejected == {"UNANSWERABLE": 150, "ANSWER_MISSING": 1}
    error = code(tmp_path, source("s.json", fields={}, format="squad", max_bad_rows=0))
    assert error.code == "BAD_ROWS" and "1 bad rows" in error.what and "UNANSWERABLE" not in error.what
    put(tmp_path, "s.json", json.dumps({"data": [{"paragraphs": [{"context": "C", "qas": asked[:7]}]}]}))
    assert "7 bad rows, no good row" in code(tmp_path, source("s.json", fields={}, format="squad")).what


def test_csv_cells_may_hold_json_lists(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", 'q,a,f\nQ1,A,"[""x"", ""y""]"\nQ2,A,one; fact\nQ3,A,[1\n')
    ledger, rows, _ = gather(tmp_path, source("a.csv", fields={**QA, "facts": "f"}))
    assert [r["meta"]["facts"] for r in rows] == [["x", "y"], ["one; fact"]] and ledger.rejected == {"ROW_JSON": 1}


@given(
    parts=st.lists(st.binary(max_size=8) | st.sampled_from([b"\n", b'{"text":"a"}\n', b'{"text":"b"}\n']), max_size=12)
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_in_are_rows_out_and_rejects_for_random_bytes(tmp_path: Path, parts: list[bytes]) -> None:
    data = b'{"text":"first"}\n' + b"".join(parts)
    put(tmp_path, "a.jsonl", data)
    try:
        ledger, rows, rejects = gather(tmp_path, source())
    except DataError as e:
        assert e.code == "SCHEMA_TYPE"
        return
    assert ledger.rows_in == len(rows) + len(rejects)
    assert ledger.rows_in == sum(1 for line in data.splitlines() if line.removeprefix(b"\xef\xbb\xbf").strip())


def test_collecting_twice_gives_equal_bytes_and_digests_follow_content(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", [{"text": "x"}, {"text": ""}])
    seen = []
    for _ in range(2):
        gather(tmp_path, source())
        seen.append([(tmp_path / ".out" / n).read_bytes() for n in ("rows.jsonl", "rejects.jsonl")])
    assert seen[0] == seen[1]
    before = source_digests(CollectConfig(sources=[source()]), tmp_path)
    assert before == source_digests([source()], tmp_path) == {"a.jsonl": sha256_file(tmp_path / "a.jsonl")}
    put(tmp_path, "a.jsonl", [{"text": "y"}])
    assert before != source_digests([source()], tmp_path)


# --- SQL


ROWS = [(2, "a: 5% off\x07", b"x"), (1, "b", b"y"), (3, None, b"")]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "data").mkdir()
    connection = sqlite3.connect(tmp_path / "data" / "shop.db")
    connection.execute("CREATE TABLE t (id INTEGER, text TEXT, blob BLOB)")
    connection.executemany(
        "INSERT INTO t VALUES (?, ?, ?)", [(2, "a: 5% off\x07", b"x"), (1, "b", b"y"), (3, None, b"")]
    )
    connection.commit()
    connection.close()
    yield tmp_path


def query(text: str, url: str = "sqlite:///data/shop.db", **fields: str) -> SourceConfig:
    return SourceConfig(kind="sql", url=url, query=text, fields=FieldMap(**(fields or {"id": "id", "text": "text"})))


def test_a_query_is_read_in_its_own_order(shop: Path) -> None:
    text = "-- all; of it\nSELECT id, text FROM t WHERE text IS NULL OR text NOT LIKE '%:x%' ORDER BY id DESC;"
    ledger, rows, rejects = gather(shop, query(text))
    assert [(r["id"], r["text"]) for r in rows] == [("2", "a: 5% off"), ("1", "b")]
    assert ledger.rejected == {"FIELD_MISSING": 1} and ledger.notes["controls_removed"] == 1
    assert (
        rejects[0]["where"] == f"sql:{digest(text, 8)}:row 1" and rows[0]["meta"]["source"] == f"sql:{digest(text, 8)}"
    )
    (shop / "q.sql").write_text(text)
    filed = SourceConfig(kind="sql", url="sqlite:///data/shop.db", query_file="q.sql", fields=FieldMap(text="text"))
    assert gather(shop, filed)[2][0]["where"] == "q.sql:row 1"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("SELEC id FROM t", "SQL_WRITE"), ("DELETE FROM t", "SQL_WRITE"), ("", "SQL_WRITE"),
        ("SELECT 1; DELETE FROM t", "SQL_WRITE"), ("SELECT 1; SELECT 2", "SQL_WRITE"),
        ("WITH x AS (DELETE FROM t RETURNING id) SELECT * FROM x", "SQL_WRITE"),
        ("SELECT id INTO u FROM t", "SQL_WRITE"), ("SELECT 'a\\'; DROP TABLE t; --'", "SQL_WRITE"),
        ("SELECT id FROM", "SQL_SYNTAX"), ("SELECT id FROM nowhere", "SQL_SYNTAX"),
        ("SELECT nope FROM t", "SQL_SYNTAX"),
        ("SELECT id, text FROM t WHERE 0", "DATA_EMPTY"), ("SELECT id, id FROM t", "SQL_COLUMNS"),
    ],
)  # fmt: skip
def test_a_query_that_cannot_be_read_is_told_apart(shop: Path, text: str, wanted: str) -> None:
    error = code(shop, query(text or " "))
    exits = {"SQL_WRITE": 6, "SQL_SYNTAX": 2, "SQL_COLUMNS": 2, "DATA_EMPTY": 3}
    assert (error.code, error.exit_code) == (wanted, exits[wanted])
    assert sqlite3.connect(shop / "data" / "shop.db").execute("SELECT count(*) FROM t").fetchone() == (3,)


def test_words_inside_texts_names_and_comments_do_not_count(tmp_path: Path) -> None:
    check_query("/* drop; */ WITH x AS (SELECT 'delete; from' AS \"update\") SELECT * FROM x -- insert\n;", "q")


def test_a_blob_is_quarantined(shop: Path) -> None:
    assert code(shop, query("SELECT id, blob AS text FROM t")).code == "BAD_ROWS"


def test_a_database_that_is_not_there_or_not_one(shop: Path) -> None:
    (shop / "bad.db").write_bytes(b"not a database" * 100)
    cases = {
        "sqlite:///none.db": ("SOURCE_NOT_FOUND", 2), "sqlite:///../x.db": ("PATH_ESCAPE", 6),
        "sqlite:///bad.db": ("FILE_CORRUPT", 3), "nodb://me:hunter2@h/d": ("SQL_URL", 2), "me:hunter2": ("SQL_URL", 2),
    }  # fmt: skip
    for url, wanted in cases.items():
        error = code(shop, query("SELECT id, text FROM t", url))
        assert (error.code, error.exit_code) == wanted, error
        assert "hunter2" not in str(error)
    assert not (shop / "none.db").exists()


def test_a_server_that_does_not_answer_is_a_remote_error(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlalchemy

    def connect() -> None:
        raise sqlite3.OperationalError("cannot reach postgresql://me:hunter2@db/x\nsecond line")

    engine = sqlalchemy.create_engine("sqlite://", creator=connect)
    monkeypatch.setattr("understudy.data.sources.sql._engine", lambda url, project, where: engine)
    monkeypatch.setenv("SHOP_URL", "postgresql://me:hunter2@db/x")
    error = code(shop, query("SELECT 1", "${env:SHOP_URL}"))
    assert isinstance(error, RemoteError) and error.code == "DB_CONNECT" and "hunter2" not in str(error)


def test_a_variable_is_resolved_at_use_and_never_shown(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = query("SELECT id, text FROM t", "sqlite:///${env:SHOP_DB}")
    for value in (None, "", " ", "hunter2\nx"):
        monkeypatch.delenv("SHOP_DB", raising=False)
        if value is not None:
            monkeypatch.setenv("SHOP_DB", value)
        error = code(shop, asked)
        assert isinstance(error, ConfigError) and error.code == "ENV_MISSING"
        assert "SHOP_DB" in error.what and "hunter2" not in str(error)
    monkeypatch.setenv("SHOP_DB", "data/shop.db")
    assert gather(shop, asked)[0].rows_out == 2
    assert "shop.db" not in (shop / ".out" / "rows.jsonl").read_text()


def test_the_digest_of_a_query_follows_its_result(shop: Path) -> None:
    asked = [query("SELECT id, text FROM t ORDER BY id")]
    before = source_digests(asked, shop)
    assert before == source_digests(asked, shop)
    connection = sqlite3.connect(shop / "data" / "shop.db")
    connection.execute("UPDATE t SET text = 'c' WHERE id = 1")
    connection.commit()
    connection.close()
    assert before != source_digests(asked, shop)


def test_rows_that_are_not_what_the_run_bound_stop_it(shop: Path) -> None:
    cfg = CollectConfig(sources=[query("SELECT id, text FROM t ORDER BY id")])
    bound = cfg.model_copy(update={"digests": source_digests(cfg, shop)})
    assert collect(bound, shop, shop / ".out").rows_out == 2
    connection = sqlite3.connect(shop / "data" / "shop.db")
    connection.execute("UPDATE t SET text = 'c' WHERE id = 1")
    connection.commit()
    connection.close()
    with pytest.raises(DataError, match=r"FILE_CHANGED\] sql:"):
        collect(bound, shop, shop / ".out")


def test_sqlite_is_opened_read_only(shop: Path) -> None:
    from understudy.data.sources.sql import _engine

    with (
        _engine("sqlite:///data/shop.db", shop, "q").connect() as connection,
        pytest.raises(Exception, match="readonly"),
    ):
        connection.exec_driver_sql("DELETE FROM t")
