"""Sources in an object store, against a real S3 server (moto) on the loopback."""

from __future__ import annotations

import gzip
import io
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collecting import code, gather, put, source
from s3 import Bucket, s3_server

from understudy.config import CollectConfig, SourceConfig, StorageConfig
from understudy.data.sources.collect import collect, source_digests, source_files
from understudy.errors import DataError

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    with s3_server() as bucket:
        yield bucket


@pytest.fixture
def bucket(server: Bucket, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Bucket:
    """A bucket of its own for each test; the keys are in the environment."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("SHOP_KEY", "k")
    monkeypatch.setenv("SHOP_SECRET", "hunter2")
    name = "b" + str(abs(hash(request.node.name)))[:10]
    server.client.create_bucket(Bucket=name)
    return Bucket(server.endpoint, server.client, name)


def stored(bucket: Bucket, path: str, fields: dict[str, str] | None = None, **options: Any) -> SourceConfig:
    keys = {"endpoint_url": bucket.endpoint, "key": "${env:SHOP_KEY}", "secret": "${env:SHOP_SECRET}"}
    storage = StorageConfig(**{**keys, **options.pop("storage", {})})
    return source(f"s3://{bucket.name}/{path}", fields, storage=storage, **options)


def lines(*texts: str) -> bytes:
    return "".join(json.dumps({"text": t}) + "\n" for t in texts).encode()


def test_every_format_is_read_from_the_store(tmp_path: Path, bucket: Bucket) -> None:
    table = io.BytesIO()
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(9_000)]}), table, row_group_size=1_000)
    bucket.put("in/a.jsonl.gz", gzip.compress(lines("один", " ")))
    bucket.put("in/b.csv", b'text\n"two\nlines"\n')
    bucket.put("in/c.parquet", table.getvalue())
    bucket.put("in/d.txt", b"a document")
    ledger, rows, rejects = gather(tmp_path, stored(bucket, "in/*"))
    assert [r["text"] for r in rows[:3]] == ["один", "two\nlines", "row 0"] and rows[-1]["text"] == "a document"
    assert ledger.rows_out == 9_003 and rows[0]["meta"]["source"] == f"s3://{bucket.name}/in/a.jsonl.gz"
    assert rejects[0]["where"] == f"s3://{bucket.name}/in/a.jsonl.gz:2"
    assert bucket.endpoint not in (tmp_path / ".out" / "rows.jsonl").read_text()


TREE = [
    "a.jsonl",
    "b.csv",
    "x/a.jsonl",
    "x/b.jsonl",
    "x/y/c.jsonl",
    ".h.jsonl",
    "x/.h.jsonl",
    ".d/a.jsonl",
    "x1/a.jsonl",
    "x/^.jsonl",
]
GLOBS = ["*.jsonl", "**/*.jsonl", "x/*.jsonl", "x/**/*.jsonl", "*/a.jsonl", "x/[ab].jsonl", "x/[!a].jsonl", "x?/*"]
GLOBS += ["x/.*", "*/*/c.jsonl", "x/a.jsonl", "**/c.jsonl", "x/[a-c].jsonl", "x[0-9]/[!b-z]*", "x/**", "[]x]/[^a]*"]


@pytest.mark.parametrize("glob", GLOBS)
def test_a_glob_means_what_it_means_on_disk(tmp_path: Path, bucket: Bucket, glob: str) -> None:
    for name in TREE:
        put(tmp_path, name, [{"text": name}])
        bucket.put(name, lines(name))
    here = [f.label for f in source_files(source(glob), tmp_path)]
    there = [f.label.removeprefix(f"s3://{bucket.name}/") for f in source_files(stored(bucket, glob), tmp_path)]
    assert here == there and here


def test_the_digest_follows_the_content_and_not_the_upload(tmp_path: Path, bucket: Bucket) -> None:
    bucket.put("a.jsonl", lines("x"))
    asked = CollectConfig(sources=[stored(bucket, "*.jsonl")])
    before = source_digests(asked, tmp_path)
    bucket.put("a.jsonl", lines("x"))
    assert source_digests(asked, tmp_path) == before and list(before) == [f"s3://{bucket.name}/a.jsonl"]
    bound = asked.model_copy(update={"digests": before})
    assert collect(bound, tmp_path, tmp_path / ".out").rows_out == 1
    bucket.put("a.jsonl", lines("y"))
    assert source_digests(asked, tmp_path) != before
    with pytest.raises(DataError, match="FILE_CHANGED"):
        collect(bound, tmp_path, tmp_path / ".out")


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_an_object_that_changes_while_it_is_read_stops_the_run(tmp_path: Path, bucket: Bucket, how: str) -> None:
    from understudy.data.sources.formats import read_file

    asked = stored(bucket, "a.jsonl")
    bucket.put("a.jsonl", lines(*("x" * 900 + str(i) for i in range(30_000))))
    [file] = source_files(asked, tmp_path)
    reading = read_file(file, asked)
    next(reading)
    if how == "gone":
        bucket.client.delete_object(Bucket=bucket.name, Key="a.jsonl")
    else:
        bucket.put("a.jsonl", lines("y") * 30_000)
    with pytest.raises(DataError, match="FILE_CHANGED"):
        list(reading)


def test_what_is_not_there_is_told_apart(tmp_path: Path, bucket: Bucket) -> None:
    bucket.put("a.jsonl", lines("x"))
    cases = {
        f"s3://{bucket.name}/b.jsonl": ("SOURCE_NOT_FOUND", 2),
        f"s3://{bucket.name}/*.csv": ("SOURCE_NOT_FOUND", 2),
        "s3://nobucket-here/a.jsonl": ("STORE_BUCKET", 4),
        "s3://nobucket-here/*.jsonl": ("STORE_BUCKET", 4),
        "ftp://host/a.jsonl": ("URL_SCHEME", 2),
        "https://host/a.jsonl": ("URL_SCHEME", 2),
        "memory://a.jsonl": ("URL_SCHEME", 2),
        "s3://b*/a.jsonl": ("URL_MALFORMED", 2),
    }
    for path, wanted in cases.items():
        asked = stored(bucket, "x").model_copy(update={"path": path})
        error = code(tmp_path, asked)
        assert (error.code, error.exit_code) == wanted, error


def test_credentials_come_by_reference_only_and_are_never_shown(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("a.jsonl", lines("x"))
    missing = stored(bucket, "a.jsonl", storage={"key": None, "secret": None})
    error = code(tmp_path, missing)
    assert (error.code, error.exit_code) == ("STORE_CREDENTIALS", 4)
    monkeypatch.delenv("SHOP_SECRET")
    error = code(tmp_path, stored(bucket, "a.jsonl"))
    assert (error.code, error.exit_code) == ("ENV_MISSING", 2) and "SHOP_SECRET" in error.what
    assert "hunter2" not in str(error)
    bucket.client.put_object_acl(Bucket=bucket.name, Key="a.jsonl", ACL="public-read")
    public = {"key": None, "secret": None, "anonymous": True}
    assert gather(tmp_path, stored(bucket, "a.jsonl", storage=public))[1]
    bucket.put("private.jsonl", lines("x"))
    error = code(tmp_path, stored(bucket, "private.jsonl", storage=public))
    assert (error.code, error.exit_code) == ("STORE_DENIED", 4)


def test_a_store_that_is_down_or_silent_is_a_remote_error(tmp_path: Path, bucket: Bucket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = code(tmp_path, stored(bucket, "a.jsonl", storage={"endpoint_url": f"http://127.0.0.1:{port}"}))
    assert (error.code, error.exit_code) == ("STORE_UNREACHABLE", 4)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        held: list[socket.socket] = []
        threading.Thread(target=lambda: [held.append(silent.accept()[0]) for _ in range(20)], daemon=True).start()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        error = code(tmp_path, stored(bucket, "a.jsonl", storage={"endpoint_url": address, "timeout_s": 1}))
    assert (error.code, error.exit_code) == ("TIMEOUT", 4)


def test_how_a_store_is_reached_is_no_identity(tmp_path: Path, bucket: Bucket) -> None:
    from understudy.core.stage import without_execution

    one, two = (stored(bucket, "a.jsonl", storage={"timeout_s": t}) for t in (5, 50))
    assert one != two
    assert without_execution(SourceConfig, one.model_dump()) == without_execution(SourceConfig, two.model_dump())
