"""Parquet files: types, damage, and bounded memory."""

from __future__ import annotations

import datetime
import decimal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collecting import code, gather, put, source

T = {"text": "t"}


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_rows_are_read_in_order_with_their_numbers(tmp_path: Path) -> None:
    texts = [f"Строка {i}" if i % 500 else None for i in range(2_500)]
    write(tmp_path / "a.parquet", {"t": texts, "n": range(2_500)}, row_group_size=700)
    ledger, rows, rejects = gather(tmp_path, source("*.parquet", T))
    assert [r["text"] for r in rows] == [t for t in texts if t]
    assert [r["where"] for r in rejects] == [f"a.parquet:row {i + 1}" for i in range(0, 2_500, 500)]
    assert ledger.rejected == {"FIELD_MISSING": 5}


def test_chats_and_facts_keep_their_shape(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    write(tmp_path / "a.parquet", {"m": [chat], "f": [["x", "y"]]})
    _, [row], _ = gather(tmp_path, source("a.parquet", {"messages": "m", "facts": "f"}))
    assert row["messages"] == chat and row["meta"]["facts"] == ["x", "y"]


TYPES: list[tuple[Any, str]] = [
    (pa.array([decimal.Decimal("1234567890123456789.10")], pa.decimal128(21, 2)), "1234567890123456789.10"),
    (pa.array([datetime.datetime(2026, 1, 2, 3, 4)], pa.timestamp("us")), "2026-01-02T03:04:00"),
    (pa.array([datetime.datetime(2026, 1, 2, 3, 4)], pa.timestamp("ms", "Europe/Moscow")), "2026-01-02T06:04:00+03:00"),
    (pa.array([1_735_787_045_000_000_000], pa.timestamp("ns")), "2025-01-02T03:04:05"),
    (pa.array([datetime.date(9999, 12, 31)], pa.date32()), "9999-12-31"),
    (pa.array([datetime.time(3, 4, 5)], pa.time64("us")), "03:04:05"),
    (pa.array([2**63], pa.uint64()), str(2**63)),
    (pa.array(["a"]).dictionary_encode(), "a"),
    (pa.array([True]), "true"),
]


@pytest.mark.parametrize(("cells", "text"), TYPES, ids=[str(cells.type) for cells, _ in TYPES])
def test_every_type_has_one_written_form(tmp_path: Path, cells: Any, text: str) -> None:
    write(tmp_path / "a.parquet", {"t": cells})
    assert [r["text"] for r in gather(tmp_path, source("a.parquet", T))[1]] == [text]


BAD: list[tuple[Any, str]] = [
    (pa.array([b"\x00\x01"]), "FIELD_TYPE"),
    (pa.array([float("nan")]), "NUM_NOT_FINITE"),
    (pa.array([2**62], pa.timestamp("us")), "NUM_RANGE"),
    (pa.array(["x" * 3_000]), "ROW_TOO_LONG"),
    (pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]),
     "TEXT_ENCODING"),
]  # fmt: skip


@pytest.mark.parametrize(("cells", "reason"), BAD, ids=[reason + str(i) for i, (_, reason) in enumerate(BAD)])
def test_a_cell_without_a_form_costs_its_row(tmp_path: Path, cells: Any, reason: str) -> None:
    write(tmp_path / "a.parquet", {"t": cells})
    write(tmp_path / "b.parquet", {"t": pa.array(["good"])})
    ledger, rows, rejects = gather(tmp_path, source("*.parquet", T, max_row_bytes=2_000))
    assert [r["text"] for r in rows] == ["good"] and ledger.rejected == {reason: 1}
    assert rejects[0]["where"] == "a.parquet:row 1"


@pytest.mark.parametrize("damage", ["magic", "footer", "page", "empty", "text"])
def test_a_damaged_file_is_corrupt(tmp_path: Path, damage: str) -> None:
    whole = write(tmp_path / "a.parquet", {"t": [f"{i:08}" * 9 for i in range(999)]}, compression="snappy").read_bytes()
    data = {
        "magic": b"XXXX" + whole[4:-4] + b"XXXX",
        "footer": whole[:-50],
        "page": whole[:200] + bytes(b ^ 0x5A for b in whole[200:2_000]) + whole[2_000:],
        "empty": b"",
        "text": b'{"t": "x"}\n',
    }[damage]
    put(tmp_path, "a.parquet", data)
    error = code(tmp_path, source("a.parquet", T))
    assert (error.code, error.exit_code) == ("FILE_CORRUPT", 3) and "a.parquet" in error.where


def test_an_extension_type_is_refused(tmp_path: Path) -> None:
    class Secret(pa.ExtensionType):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(pa.string(), "test.secret")

        def __arrow_ext_serialize__(self) -> bytes:
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage_type: Any, serialized: bytes) -> Any:
            raise AssertionError("no foreign code is asked")

    cells = pa.ExtensionArray.from_storage(Secret(), pa.array(["x"]))
    write(tmp_path / "a.parquet", {"t": ["x"], "e": cells})
    write(tmp_path / "b.parquet", {"t": ["x"], "n": pa.StructArray.from_arrays([cells], ["e"])})
    for name in ("a.parquet", "b.parquet"):
        error = code(tmp_path, source(name, T))
        assert (error.code, error.exit_code) == ("FILE_CORRUPT", 3) and "test.secret" in error.what


def test_a_row_group_beyond_the_limit_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.parquet", {"t": ["x" * 1_000] * 100}, use_dictionary=False)
    monkeypatch.setattr("understudy.data.sources.columnar.MAX_GROUP", 50_000)
    error = code(tmp_path, source("a.parquet", T))
    assert error.code == "FILE_CORRUPT" and "row group 0" in error.what


def test_an_unknown_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"answer": ["x"], "title": ["y"]})
    error = code(tmp_path, source("a.parquet", {"text": "anwser"}))
    assert error.code == "FIELD_UNKNOWN" and "'answer'" in error.fix


MEASURE = """
import sys, tracemalloc
import pyarrow as pa, pyarrow.parquet as pq
from pathlib import Path
from understudy.config import SourceConfig
from understudy.data.sources.files import LocalFile
from understudy.data.sources.formats import read_file
path = Path(sys.argv[1])
tracemalloc.start()
rows = sum(1 for _ in read_file(LocalFile("a", path), SourceConfig(path="a.parquet"), {}, ["t"]))
print(rows, tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().max_memory())
"""


@pytest.mark.slow
def test_one_row_group_of_55_mb_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    batch = pa.table({"t": ["слово " * 500 + str(i) for i in range(10_000)]})
    pq.write_table(batch, path, use_dictionary=False, compression="none")
    assert pq.ParquetFile(path).metadata.num_row_groups == 1 and path.stat().st_size > 50e6
    del batch
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    rows, peak = map(int, done.stdout.split())
    assert rows == 10_000 and peak < 40e6
