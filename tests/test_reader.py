"""The row reader against bad bytes: each row of the catalogue as a real file."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from understudy.config import SourceConfig
from understudy.data.sources import reader
from understudy.data.sources.files import LocalFile
from understudy.data.sources.formats import read_file
from understudy.data.sources.reader import Bad, Row
from understudy.errors import ConfigError, DataError

GOOD = b'{"text": "a"}\n'


def read(path: Path, data: bytes, **options: Any) -> tuple[list[Row | Bad], dict[str, int]]:
    path.write_bytes(data)
    notes: dict[str, int] = {}
    return list(read_file(LocalFile(path.name, path), SourceConfig(path=path.name, **options), notes)), notes


def reasons(items: list[Row | Bad]) -> list[str]:
    return [item.reason if isinstance(item, Bad) else "ok" for item in items]


def values(items: list[Row | Bad]) -> list[dict[str, Any]]:
    return [item.values for item in items if isinstance(item, Row)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
@pytest.mark.parametrize("data", [b"", b"\n \r\n\t\n", b"\xef\xbb\xbf"])
def test_an_empty_or_blank_file_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    with pytest.raises(DataError) as e:
        read(tmp_path / name, data)
    assert e.value.code == "DATA_EMPTY" and name in e.value.line()


@pytest.mark.parametrize(("name", "data"), [("a.csv", b"id,text\n"), ("a.csv", b"id,text"), ("a.json", b"[ ]")])
def test_a_file_without_rows_is_empty(tmp_path: Path, name: str, data: bytes) -> None:
    with pytest.raises(DataError, match="DATA_EMPTY"):
        read(tmp_path / name, data)


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (b'\xef\xbb\xbf{"text": "a"}\n{"text": "b"}\n', "bom_removed"),
        (b'{"text": "a"}\r\n{"text": "b"}\r\n', "crlf_lines"),
        (b'{"text": "a"}\r{"text": "b"}\r', "cr_lines"),
        (b'{"text": "a"}\n\n{"text": "b"}', "no_final_newline"),
    ],
)
def test_marks_and_line_ends_are_accepted_and_noted(tmp_path: Path, data: bytes, note: str) -> None:
    items, notes = read(tmp_path / "a.jsonl", data)
    assert values(items) == [{"text": "a"}, {"text": "b"}] and note in notes
    csv, csv_notes = read(tmp_path / "a.csv", data.replace(b'{"text": "', b"").replace(b'"}', b""))
    assert len(csv) == 1 and note in csv_notes


def test_a_crlf_across_the_chunk_border_is_one_line_end(tmp_path: Path) -> None:
    first = b'{"text": "' + b"x" * ((1 << 18) - 13) + b'"}\r'
    assert len(first) == 1 << 18
    items, notes = read(tmp_path / "a.jsonl", first + b"\n" + GOOD)
    assert [i.where for i in items] == ["a.jsonl:1", "a.jsonl:2"] and notes == {"crlf_lines": 1}
    assert items[1].offset == len(first) + 1


RUSSIAN = "съешь же ещё этих мягких французских булок"


@pytest.mark.parametrize(("codec", "guess"), [("cp1251", "cp1251"), ("koi8-r", "KOI8-R"), ("latin-1", "cp1252")])
def test_other_encodings_are_quarantined_with_offset_and_a_guess(tmp_path: Path, codec: str, guess: str) -> None:
    text = "voilà une phrase française" if codec == "latin-1" else RUSSIAN
    bad = json.dumps({"text": text}, ensure_ascii=False).encode(codec)
    items, _ = read(tmp_path / "a.jsonl", GOOD + bad + b"\n" + GOOD)
    assert reasons(items) == ["ok", "TEXT_ENCODING", "ok"]
    assert isinstance(items[1], Bad) and guess in items[1].detail
    at = len(GOOD) + next(i for i, b in enumerate(bad) if b > 127)
    assert f"at byte {at} " in items[1].detail and items[1].where == "a.jsonl:2"


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named_and_never_read(tmp_path: Path, codec: str) -> None:
    data = "".join(json.dumps({"text": RUSSIAN}, ensure_ascii=False) + "\n" for _ in range(3)).encode(codec)
    items, _ = read(tmp_path / "a.jsonl", data)
    assert reasons(items) == ["TEXT_ENCODING"] * 3 and all("UTF-16" in i.detail for i in items if isinstance(i, Bad))
    whole, _ = read(tmp_path / "a.json", json.dumps([{"text": "a"}]).encode(codec))
    assert reasons(whole) == ["TEXT_ENCODING"]
    with pytest.raises(DataError, match=r"TEXT_ENCODING.*UTF-16"):
        read(tmp_path / "a.csv", "id,text\n1,a\n".encode(codec))


def test_a_raw_nul_is_quarantined_and_an_escaped_one_removed_and_counted(tmp_path: Path) -> None:
    items, notes = read(
        tmp_path / "a.jsonl", GOOD + b'{"text": "a\x00b"}\n' + b'{"text": "a\\u0000b\\u0001\\u0085c"}\n'
    )
    assert reasons(items) == ["ok", "TEXT_NUL", "ok"]
    assert values(items)[1] == {"text": "ab\nc"} and notes["controls_removed"] == 3
    assert reasons(read(tmp_path / "b.csv", b"id,text\n1,a\x00b\n2,c\x01d\n")[0]) == ["TEXT_NUL", "ok"]
    assert reasons(read(tmp_path / "b.jsonl", GOOD * 9 + b'{"text": "a\x01b"}\n')[0])[-1] == "ROW_JSON"


ROWS = {
    b'{"text": "\\ud800"}': "TEXT_SURROGATE",
    b'{"\\udfff": 1}': "TEXT_SURROGATE",
    b'{"a": 1}{"a": 2}': "ROW_MULTI",
    b'{"a": 1} {': "ROW_MULTI",
    b'{"a": 1}, ': "ROW_JSON",
    b'{"a": 1, "a": 2}': "ROW_DUP_KEY",
    b'{"a": {"b": 1, "b": 1}}': "ROW_DUP_KEY",
    b'{"a": NaN}': "NUM_NOT_FINITE",
    b'{"a": -Infinity}': "NUM_NOT_FINITE",
    b'{"a": 1234567890123456789012345678901234567890}': "NUM_RANGE",
    b'{"a": 18446744073709551616}': "NUM_RANGE",
    b'{"a": 1e400}': "NUM_RANGE",
    b'{"a": ' + b"9" * 5000 + b"}": "NUM_RANGE",
    b"[1]": "ROW_NOT_OBJECT",
    b'"text"': "ROW_NOT_OBJECT",
    b"null": "ROW_NOT_OBJECT",
    b"nonsense": "ROW_JSON",
    b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}": "ROW_DEPTH",
    b'{"a":' * 10_000 + b"1" + b"}" * 10_000: "ROW_DEPTH",
    b"[" * 10_000: "ROW_DEPTH",
}


@pytest.mark.parametrize(("row", "reason"), ROWS.items(), ids=[f"{i}-{v}" for i, v in enumerate(ROWS.values())])
def test_a_bad_row_costs_one_row(tmp_path: Path, row: bytes, reason: str) -> None:
    items, _ = read(tmp_path / "a.jsonl", GOOD + row + b"\n" + GOOD)
    assert reasons(items) == ["ok", reason, "ok"] and items[1].where == "a.jsonl:2" and items[1].offset == len(GOOD)


def test_what_only_looks_bad_is_kept(tmp_path: Path) -> None:
    row = {"text": "[" * 500 + '"\\', "pair": "\U0001f600", "max": 2**63, "min": -(2**63), "deep": [[[[1]]]]}
    items, _ = read(tmp_path / "a.jsonl", json.dumps(row).encode())
    assert values(items) == [row]


def test_a_cut_last_row_is_quarantined_and_the_earlier_kept(tmp_path: Path) -> None:
    assert reasons(read(tmp_path / "a.jsonl", GOOD + b'{"text": "ab')[0]) == ["ok", "ROW_TRUNCATED"]
    assert reasons(read(tmp_path / "a.jsonl", GOOD + '{"text": "я'.encode()[:-1])[0]) == ["ok", "ROW_TRUNCATED"]
    assert reasons(read(tmp_path / "a.jsonl", GOOD + b'{"text": {"a": 1}')[0]) == ["ok", "ROW_TRUNCATED"]
    assert reasons(read(tmp_path / "a.csv", b"id,text\n1,a\n2")[0]) == ["ok", "ROW_TRUNCATED"]
    assert reasons(read(tmp_path / "a.csv", b'id,text\n1,a\n2,"b')[0]) == ["ok", "ROW_TRUNCATED"]
    for cut in (b'[{"a": 1}, {"a"', b'[{"a": 1}, ', b'[{"a": 1}, {"a": 2}'):
        items, _ = read(tmp_path / "a.json", cut)
        assert reasons(items) == ["ok", "ROW_TRUNCATED"] and items[1].offset == 10


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json"])
def test_a_30_mb_row_is_skipped_in_bounded_memory(tmp_path: Path, name: str) -> None:
    before, after = {
        "a.jsonl": (GOOD, b"\n" + GOOD),
        "a.csv": (b"text\na\n", b"\nb\n"),
        "a.json": (b'[{"text": "a"},', b',{"text": "b"}]'),
    }[name]
    with open(tmp_path / name, "wb") as f:
        f.write(before + b'{"text": "')
        f.seek(30_000_000, os.SEEK_CUR)
        f.write(b'"}' + after)
    tracemalloc.start()
    items = list(read_file(LocalFile(name, tmp_path / name), SourceConfig(path=name, max_row_bytes=1_000_000)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reasons(items) == ["ok", "ROW_TOO_LONG", "ok"] and peak < 6_000_000


def test_a_row_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    for end in (b"\n", b"\r\n", b""):
        items, _ = read(tmp_path / "a.jsonl", GOOD.strip() + end, max_row_bytes=13)
        assert reasons(items) == ["ok"]
        assert reasons(read(tmp_path / "a.jsonl", GOOD.strip() + end, max_row_bytes=12)[0]) == ["ROW_TOO_LONG"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'[{"a": 1},\n {"a": "},{\\"["}]', ["ok", "ok"]),
        (b'{"version": "1", "data": [{"a": 1}, {"a": 2}], "info": {"n": {}}}', ["ok", "ok"]),
        (b'[{"a": 1, "a": 1}, 3, {"a": NaN}, {"b": "\xff"}, {"c": 1}]', None),
        (b'[{"a": 1}, , {"a": 2}, ]', ["ok", "ROW_JSON", "ok", "ROW_JSON"]),
    ],
)
def test_json_items_are_judged_one_by_one(tmp_path: Path, data: bytes, expected: list[str] | None) -> None:
    expected = expected or ["ROW_DUP_KEY", "ROW_NOT_OBJECT", "NUM_NOT_FINITE", "TEXT_ENCODING", "ok"]
    items, _ = read(tmp_path / "a.json", data)
    assert reasons(items) == expected


def test_json_items_keep_line_and_offset(tmp_path: Path) -> None:
    data = b'[\n{"a": 1},\n\n  {"a": 2}\n]'
    items, _ = read(tmp_path / "a.json", data)
    assert [(i.where, i.offset) for i in items] == [("a.json:2", 2), ("a.json:4", data.index(b'{"a": 2'))]


TEXT = st.text(st.sampled_from('ab"\\[]{},:\n я'), max_size=8)


@given(rows=st.lists(st.dictionaries(TEXT, TEXT | st.integers() | st.lists(TEXT, max_size=2)), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_json_cut_anywhere_gives_the_rows_of_the_json_module(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    keep, reader.CHUNK = reader.CHUNK, 7  # some chunk border cuts every kind of token
    try:
        for text in (json.dumps(rows), json.dumps({"n": {}, "data": rows}, indent=1, ensure_ascii=False)):
            items, _ = read(tmp_path / "a.json", text.encode())
            whole = [r for r in rows if all(not isinstance(v, int) or abs(v) < 2**63 for v in r.values())]
            assert len(items) == len(rows) and values(items) == whole
    finally:
        reader.CHUNK = keep


@pytest.mark.parametrize("data", [b'{"a": 1}\n{"a": 2}\n', b'{"a": [1], "b": [2]}', b"3", b"<p>hello", b'[{"a":1}] {}'])
def test_json_without_one_list_is_refused_with_a_hint(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DataError, match="DATA_SHAPE"):
        read(tmp_path / "a.json", data)


def test_csv_counts_records_and_keeps_embedded_newlines(tmp_path: Path) -> None:
    data = b'id,text\r\n1,"one\r\ntwo, ""three"""\r\n\r\n2,5" disk\r\n3,a,b\r\n4\r\n5,=1+2\r\n'
    items, _ = read(tmp_path / "a.csv", data)
    assert reasons(items) == ["ok", "ok", "ROW_RAGGED", "ROW_RAGGED", "ok"]
    assert values(items)[:2] == [{"id": "1", "text": 'one\ntwo, "three"'}, {"id": "2", "text": '5" disk'}]
    assert items[2].where == "a.csv:row 3" and isinstance(items[2], Bad) and "line 6" in items[2].detail
    assert values(items)[2]["text"] == "=1+2"


def test_csv_with_stray_quotes_loses_no_row_silently(tmp_path: Path) -> None:
    items, _ = read(tmp_path / "a.csv", b'id,text\n1,"a"b\n2,"open\n3,c\n4,d\n')
    assert reasons(items) == ["ROW_QUOTE"] * 4


def test_a_quote_that_never_closes_is_bounded(tmp_path: Path) -> None:
    items, _ = read(tmp_path / "a.csv", b'id,text\n1,"open\n' + b"2,b\n" * 50, max_row_bytes=40)
    assert len(items) == 51 and set(reasons(items)) == {"ROW_TOO_LONG"}


def test_a_wrong_delimiter_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"CSV_DELIMITER.*';' gives 2.*delimiter: \";\""):
        read(tmp_path / "a.csv", b"id;text\n1;a, b\n2;c\n")
    assert values(read(tmp_path / "a.csv", b"id;text\n1;a, b\n", delimiter=";")[0]) == [{"id": "1", "text": "a, b"}]
    assert len(read(tmp_path / "a.csv", b"text\na; b, c\nd\n")[0]) == 2
    assert values(read(tmp_path / "a.tsv", b"id\ttext\n1\ta\n")[0]) == [{"id": "1", "text": "a"}]
    with pytest.raises(DataError, match="CSV_HEADER"):
        read(tmp_path / "a.csv", b"id,id\n1,2\n")


def test_an_unknown_suffix_asks_for_the_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="FORMAT_UNKNOWN"):
        read(tmp_path / "a.dat", GOOD)
    assert len(read(tmp_path / "a.dat", GOOD, format="jsonl")[0]) == 1


BITS = st.sampled_from(
    [
        b"\n",
        b"\r",
        b"\r\n",
        b'{"a": "b"}',
        b"{",
        b"}",
        b'"',
        b",",
        b"[",
        b"\\",
        b"\xef\xbb\xbf",
        b" ",
        b"id,t\n",
        b"\\u",
    ]
)


@given(parts=st.lists(st.binary(max_size=6) | BITS, max_size=30))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_line_of_random_bytes_is_a_row_or_a_reason(tmp_path: Path, parts: list[bytes]) -> None:
    data = b"".join(parts)
    for name in ("a.jsonl", "a.json", "a.csv"):
        try:
            items, _ = read(tmp_path / name, data, max_row_bytes=20)
        except (DataError, ConfigError):
            continue
        wide = any(isinstance(i, Bad) and "UTF-16" in i.detail for i in items)
        if name == "a.jsonl" and not wide:
            assert len(items) == sum(1 for line in data.splitlines() if line.removeprefix(b"\xef\xbb\xbf").strip())
