"""Packed files: gzip, zstd, zip and tar are read as streams, and what is hostile stops before it costs anything."""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collecting import code, gather, put, source

ROWS = [{"text": f"Строка номер {i}"} for i in range(3_000)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
TEXTS = [row["text"] for row in ROWS]


def gz(data: bytes) -> bytes:
    return gzip.compress(data, 9, mtime=0)


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


def name_only(value: object) -> str:
    """A test's id without its bytes, which hold times."""
    return value if isinstance(value, str) else ""


def zipped(members: dict[str, bytes], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], mode: str = "w", **kinds: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size, header.type = len(data), kinds.get(name.split(".")[0], tarfile.REGTYPE)
            header.linkname = "/etc/passwd"
            header.size *= header.isreg()
            archive.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl.gz", gz(LINES)),
        ("a.jsonl.gz", gz(LINES[:0]) + gz(LINES)),
        ("A.JSONL.GZ", gz(LINES)),
        ("a.jsonl.zst", zstd(LINES)),
        ("a.jsonl.zst", zstd(LINES[:0]) + zstd(LINES)),
        ("a.zip", zipped({"in/a.jsonl": LINES})),
        ("a.tar", tarred({"in/a.jsonl": LINES})),
        ("a.tar.gz", tarred({"in/a.jsonl": LINES}, "w:gz")),
        ("a.tgz", tarred({"in/a.jsonl": LINES}, "w:gz")),
        ("a.tar.zst", zstd(tarred({"in/a.jsonl": LINES}))),
    ],
    ids=name_only,
)
def test_every_way_of_packing_gives_the_same_rows(tmp_path: Path, name: str, data: bytes) -> None:
    put(tmp_path, name, data)
    ledger, rows, _ = gather(tmp_path, source(name))
    assert [r["text"] for r in rows] == TEXTS and rows[0]["meta"] == {"source": name}
    assert [p.name for p in tmp_path.rglob("*") if p.is_file() and ".out" not in p.parts] == [name]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv.gz", gz(b'text\n"two\nlines"\nx\n')),
        ("a.json.zst", zstd(b'[{"text": "two\\nlines"}, {"text": "x"}]')),
        ("a.txt.gz", gz(b"two\nlines")),
        ("a.html.gz", gz(b"<p>two<br>lines")),
    ],
    ids=name_only,
)
def test_every_format_may_be_packed(tmp_path: Path, name: str, data: bytes) -> None:
    put(tmp_path, name, data)
    assert gather(tmp_path, source(name))[1][0]["text"] == "two\nlines"


def test_members_are_chosen_by_pattern_and_named_in_places(tmp_path: Path) -> None:
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["from parquet", None]}), table)
    members = {"README": b"?", "x/a.jsonl": b'{"text": "x"}\noops\n', "y/b.parquet": table.getvalue(), "z/": b""}
    for name, data in (("a.zip", zipped(members)), ("a.tar.gz", tarred(members, "w:gz"))):
        put(tmp_path, name, data)
        _, rows, rejects = gather(tmp_path, source(name, members="?/*"))
        assert [r["text"] for r in rows] == ["x", "from parquet"]
        assert [r["where"] for r in rejects] == [f"{name}!x/a.jsonl:2", f"{name}!y/b.parquet:row 2"]
        assert code(tmp_path, source(name)).code == "FORMAT_UNKNOWN"


# zstd keeps a checksum only where the writer asks for one, so a flipped bit is gzip's to find.
@pytest.mark.parametrize(
    ("pack", "damage"),
    [(gz, d) for d in ("cut", "flipped", "tail", "other")] + [(zstd, d) for d in ("cut", "tail", "other")],
)
def test_damage_is_found_and_a_wrong_suffix_named(tmp_path: Path, pack: Any, damage: str) -> None:
    whole = pack(os.urandom(30_000).hex().encode() + b"\n" + LINES)
    name = "a.jsonl.gz" if pack is gz else "a.jsonl.zst"
    middle = len(whole) // 2
    data = {
        "cut": whole[:-20],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :],
        "tail": whole + b"more",
        "other": LINES,
    }[damage]
    put(tmp_path, name, data)
    error = code(tmp_path, source(name, max_row_bytes=100_000))
    assert (error.code, error.exit_code) == ("FILE_KIND" if damage == "other" else "FILE_CORRUPT", 3)
    put(tmp_path, "b.jsonl", whole)
    assert code(tmp_path, source("b.jsonl")).code == "FILE_KIND"


UNSAFE = ["../up.jsonl", "/etc/abs.jsonl", "x/../../up.jsonl", "C:\\x.jsonl", "..\\up.jsonl", "//host/x.jsonl"]


@pytest.mark.parametrize("name", UNSAFE)
def test_a_member_that_leaves_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    good = {"a.jsonl": LINES}
    put(tmp_path, "a.zip", zipped({**good, name: LINES}))
    put(tmp_path, "a.tar", tarred({**good, name: LINES}))
    for archive in ("a.zip", "a.tar"):
        error = code(tmp_path, source(archive))
        assert (error.code, error.exit_code) == ("ARCHIVE_UNSAFE", 6), archive
    assert not (tmp_path / ".out" / "rows.jsonl").stat().st_size and not (tmp_path.parent / "up.jsonl").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    for mode, name in (("w", "a.tar"), ("w:gz", "a.tar.gz")):
        put(tmp_path, name, tarred({"a.jsonl": LINES, "odd.jsonl": b""}, mode, odd=kind))
        assert code(tmp_path, source(name)).code == "ARCHIVE_UNSAFE"
    link = zipfile.ZipInfo("odd.jsonl")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert code(tmp_path, source("a.zip")).code == "ARCHIVE_UNSAFE"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("a.jsonl", "./a.jsonl"):
            archive.writestr(name, LINES)
            header = tarfile.TarInfo(name)
            tar.addfile(header)
    for name in ("a.zip", "a.tar"):
        assert code(tmp_path, source(name)).code == "ARCHIVE_UNSAFE"


def bomb(name: str) -> bytes:
    zeros = b"\0" * (64 << 20)
    plain = {"a.jsonl": zeros}
    if name == "a.jsonl.gz":
        return gz(zeros)
    if name == "a.jsonl.zst":
        return zstd(zeros)
    if name == "a.zip":
        return zipped(plain)
    if name == "lie.zip":
        whole = zipped(plain)
        return whole.replace((64 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    return tarred(plain, "w:gz")


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.zip", "a.tar.gz"])
def test_a_bomb_is_refused_early(tmp_path: Path, name: str) -> None:
    put(tmp_path, name, bomb(name))
    assert (tmp_path / name).stat().st_size < 100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = code(tmp_path, source(name))
    assert (error.code, error.exit_code) == ("ARCHIVE_LIMIT", 6)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("place", ["local name", "local magic", "version", "encoding"])
def test_a_zip_whose_headers_are_damaged_is_one_line(tmp_path: Path, place: str) -> None:
    data = bytearray(zipped({"a.jsonl": LINES, "ж.jsonl": LINES}))
    second, directory = data.index(b"PK\x03\x04", 4), data.index(b"PK\x01\x02")
    at, value = {
        "local name": (30, ord("z")),
        "local magic": (second, 0),
        "version": (directory + 6, 99),
        "encoding": (data.index("ж".encode(), directory), 0xFF),
    }[place]
    data[at] = value
    put(tmp_path, "a.zip", bytes(data))
    assert code(tmp_path, source("a.zip")).code == "FILE_CORRUPT"


def test_a_zip_that_lies_about_its_size_is_corrupt_and_bounded(tmp_path: Path) -> None:
    put(tmp_path, "lie.zip", bomb("lie.zip"))
    error = code(tmp_path, source("lie.zip"))
    assert error.code in ("FILE_CORRUPT", "ARCHIVE_LIMIT")


def test_a_file_that_unpacks_beyond_the_setting_is_refused(tmp_path: Path) -> None:
    noise = "".join(json.dumps({"text": os.urandom(400).hex()}) + "\n" for _ in range(2_000)).encode()
    for name, data in (("a.jsonl.gz", gz(noise)), ("a.zip", zipped({"a.jsonl": noise}))):
        put(tmp_path, name, data)
        assert gather(tmp_path, source(name, max_unpacked_mb=2))[0].rows_out == 2_000
        assert code(tmp_path, source(name, max_unpacked_mb=1)).code == "ARCHIVE_LIMIT"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.zip", zipped({"b.zip": zipped({"c.jsonl": LINES})})),
        ("a.zip", zipped({"b.jsonl": gz(LINES)})),
        ("a.tar", tarred({"b.jsonl.gz": gz(LINES)})),
        ("a.tar.gz", gz(gz(tarred({"b.jsonl": LINES})))),
        ("a.jsonl.gz", gz(gz(LINES))),
        ("a.jsonl.zst", zstd(tarred({"b.jsonl": LINES}))),
    ],
    ids=name_only,
)
def test_an_archive_inside_an_archive_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    put(tmp_path, name, data)
    error = code(tmp_path, source(name, format="jsonl"))
    assert error.code == ("FILE_KIND" if name == "a.tar.gz" else "ARCHIVE_LIMIT"), error


@pytest.mark.parametrize("kind", ["zip", "tar", "gz", "zst"])
def test_nine_layers_are_refused_at_the_second(tmp_path: Path, kind: str) -> None:
    """Each layer would be within every cap: what is refused is that there is another one."""
    data, pack = LINES, {"gz": gz, "zst": zstd}.get(kind)
    for layer in range(9):
        data = pack(data) if pack else (zipped if kind == "zip" else tarred)({f"{layer}.jsonl": data})
    name = f"a.jsonl.{kind}" if pack else f"a.{kind}"
    put(tmp_path, name, data)
    error = code(tmp_path, source(name))
    assert (error.code, error.exit_code) == ("ARCHIVE_LIMIT", 6) and "inside an archive" in error.what
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == [name]


def test_ten_gigabytes_and_a_million_members_are_refused_by_what_the_zip_says_of_itself(tmp_path: Path) -> None:
    for entry, at, size, value in (("size", 24, 4, 10**10 % 2**32), ("members", 10, 2, 0xFFFF)):
        whole = bytearray(zipped({"a.jsonl": LINES}))
        start = whole.rindex(b"PK\x01\x02" if entry == "size" else b"PK\x05\x06") + at
        whole[start : start + size] = value.to_bytes(size, "little")
        put(tmp_path, "a.zip", bytes(whole))
        error = code(tmp_path, source("a.zip"))
        assert (error.code, error.exit_code) == ("ARCHIVE_LIMIT", 6), entry


def test_too_many_members_are_refused_before_any_is_read(tmp_path: Path) -> None:
    put(tmp_path, "a.zip", zipped({f"{i}.jsonl": b"" for i in range(10_001)}))
    put(tmp_path, "a.tar.gz", gz(tarred({f"{i}.jsonl": b"" for i in range(10_001)})))
    for name in ("a.zip", "a.tar.gz"):
        assert code(tmp_path, source(name)).code == "ARCHIVE_LIMIT"


def test_a_tar_header_of_megabytes_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.tar", tarred({"x" * 3_000_000: b""}))
    assert code(tmp_path, source("a.tar")).code == "ARCHIVE_LIMIT"


LOCKED = {
    "a.csv": b"%PDF-1.7\n" + b"x" * 2_000 + b"trailer << /Encrypt 5 0 R >>\n%%EOF",
    "a.jsonl": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600 + "EncryptedPackage".encode("utf-16-le"),
    "a.parquet": b"PARE" + b"x" * 60 + b"PARE",
}


@pytest.mark.parametrize("name", LOCKED)
def test_what_wants_a_password_is_locked(tmp_path: Path, name: str) -> None:
    put(tmp_path, name, LOCKED[name])
    error = code(tmp_path, source(name))
    assert (error.code, error.exit_code) == ("FILE_LOCKED", 3)


def test_an_encrypted_member_is_locked(tmp_path: Path) -> None:
    whole = bytearray(zipped({"a.jsonl": LINES}))
    whole[6] |= 1
    whole[whole.rindex(b"PK\x01\x02") + 8] |= 1
    put(tmp_path, "a.zip", bytes(whole))
    assert code(tmp_path, source("a.zip")).code == "FILE_LOCKED"


LIES = [
    (b"PK\x03\x04..", "zip"), (b"<!DOCTYPE html>", "HTML"), (b"\xef\xbb\xbf<HTML>", "HTML"), (b"%PDF-1.4", "PDF"),
    (b"version https://git-lfs.github.com/spec/v1", "LFS"), (b"Rar!\x1a\x07", "rar"), (b"7z\xbc\xaf\x27", "7z"),
    (b"PAR1....PAR1", "Parquet"), (b"SQLite format 3\0", "SQLite"), (tarred({"a": b"x"}), "tar"), (zstd(LINES), "zstd"),
    (b"\xd0\xcf\x11\xe0" * 9, "Office"), (b"BZh91AY", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"ARROW1\0\0", "Arrow"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "kind"), LIES, ids=[kind for _, kind in LIES])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt", "a.jsonl.gz"])
def test_a_suffix_that_lies_is_told_with_the_real_kind(tmp_path: Path, data: bytes, kind: str, name: str) -> None:
    put(tmp_path, name, gz(data + b"\n") if name.endswith(".gz") else data + b"\n")
    error = code(tmp_path, source(name))
    nested = name.endswith(".gz") and kind in ("zip", "tar", "zstd")
    assert error.code == ("ARCHIVE_LIMIT" if nested else "FILE_KIND")
    assert nested or kind in error.what


def test_an_office_document_is_no_archive_of_rows(tmp_path: Path) -> None:
    put(tmp_path, "a.zip", zipped({"[Content_Types].xml": b"<x/>", "xl/workbook.xml": b"<x/>"}))
    assert code(tmp_path, source("a.zip")).code == "FILE_KIND"


def test_nothing_is_opened_outside_the_project_whatever_an_archive_says(tmp_path: Path) -> None:
    """Every file that is opened for writing is under the output, or has no name."""
    for i, name in enumerate(UNSAFE):
        put(tmp_path, f"{i}.zip", zipped({"a.jsonl": LINES, name: LINES}))
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'tests'); seen = []\n"
        "def hook(event, args):\n"
        "    if event == 'open' and isinstance(args[0], str) and args[1] and set(args[1]) & set('wax+'):\n"
        "        seen.append(args[0])\n"
        "from collecting import collect, CollectConfig, source\nfrom understudy.errors import UnderstudyError\n"
        "sys.addaudithook(hook); root = Path(sys.argv[1])\n"
        f"for i in range({len(UNSAFE)}):\n"
        "    try: collect(CollectConfig(sources=[source(f'{i}.zip')]), root, root / '.out')\n"
        "    except UnderstudyError as e: print(e.code)\n"
        "print(*{str(Path(p).resolve().relative_to(root.resolve())) for p in seen if isinstance(p, str)})"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    codes, opened = done.stdout.split()[: len(UNSAFE)], done.stdout.split()[len(UNSAFE) :]
    assert codes == ["ARCHIVE_UNSAFE"] * len(UNSAFE)
    assert ".out/rows.jsonl" in opened and all(name.startswith(".out/") for name in opened)
