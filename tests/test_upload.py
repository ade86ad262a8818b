"""Prepared data goes out whole or not at all: to a folder, and to a real S3 server (moto)."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from collecting import gather, source
from s3 import Bucket, s3_server
from thread import make_tiny, one_line, understudy

from understudy.config import StorageConfig, UploadConfig
from understudy.core.records import Document, Example, write_jsonl
from understudy.data.upload import upload
from understudy.errors import ConfigError, RemoteError

EVIL = ["=1+1", "+7", "-x", "@SUM(A1)", "\tx", "\rx", "＝1", "plain", "a=b"]


def turns(prompt: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, list[Path]]:
    rows = {
        "train": [Example(f"t{i}", turns(f"Вопрос {i}?", text), {"category": "=c"}) for i, text in enumerate(EVIL)],
        "more": [Example("s1", turns("?", "written"), {"teacher": "x"})],
        "validation": [Example("v1", turns("V?", "a"), {})],
        "documents": [Document("d1", "Text", {"source": "a"})],
    }
    for name, records in rows.items():
        write_jsonl(tmp_path / "in" / f"{name}.jsonl", records)
    found = {name: [tmp_path / "in" / f"{name}.jsonl"] for name in ("train", "validation", "documents")}
    found["train"].append(tmp_path / "in" / "more.jsonl")
    return found


def config(**options: Any) -> UploadConfig:
    return UploadConfig(**options)


def test_chats_go_out_as_messages_with_a_manifest_that_can_be_checked(
    tmp_path: Path, parts: dict[str, list[Path]]
) -> None:
    done = upload(config(), parts, "out", tmp_path)
    folder = tmp_path / done.folder
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "train.jsonl", "validation.jsonl"]
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text("utf-8").splitlines()]
    assert [set(row) for row in rows] == [{"messages"}] * 10 and rows[-1]["messages"] == turns("?", "written")
    manifest = json.loads((folder / "manifest.json").read_text())
    for file in manifest["files"]:
        data = (folder / file["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
        assert len(data.splitlines()) == file["rows"]
    latest = json.loads((tmp_path / "out" / "latest.json").read_text())
    assert latest["folder"] == folder.name
    assert latest["manifest_sha256"] == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def test_the_same_data_is_written_once_and_other_data_beside_it(tmp_path: Path, parts: dict[str, list[Path]]) -> None:
    first = upload(config(), parts, "out", tmp_path)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.is_file()}
    again = upload(config(), parts, "out", tmp_path)
    assert first.written and not again.written and again.folder == first.folder
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.is_file()}
    write_jsonl(parts["validation"][0], [Example("v2", turns("V?", "b"), {})])
    other = upload(config(), parts, "out", tmp_path)
    assert other.written and other.folder != first.folder and (tmp_path / first.folder / "manifest.json").exists()
    assert json.loads((tmp_path / "out" / "latest.json").read_text())["folder"] == Path(other.folder).name
    (tmp_path / other.folder / "train.jsonl").write_text("cut")
    assert upload(config(), parts, "out", tmp_path).written
    assert len((tmp_path / other.folder / "train.jsonl").read_text("utf-8").splitlines()) == 10


def test_whole_records_come_back_exactly(tmp_path: Path, parts: dict[str, list[Path]]) -> None:
    fields = {"id": "id", "messages": "messages"}
    wanted = [json.loads(line) for path in parts["train"] for line in path.read_text("utf-8").splitlines()]
    for form in ("jsonl", "parquet"):
        done = upload(config(format=form, what=["train", "documents"]), parts, f"out-{form}", tmp_path)
        name = f"{done.folder}/train.{form}"
        _, rows, _ = gather(tmp_path, source(name, fields))
        assert [(r["id"], r["messages"]) for r in rows] == [(w["id"], w["messages"]) for w in wanted]
    table = pq.read_table(tmp_path / done.folder / "train.parquet").to_pylist()
    assert [json.loads(row["meta"]) for row in table] == [w["meta"] for w in wanted]


def test_only_what_people_read_is_neutralised(tmp_path: Path, parts: dict[str, list[Path]]) -> None:
    done = upload(config(format="csv", what=["train"]), parts, "out", tmp_path)
    with open(tmp_path / done.folder / "train.csv", encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [row["answer"] for row in rows[:9]] == [f"'{text}" for text in EVIL[:7]] + EVIL[7:]
    assert rows[0]["category"] == "'=c" and rows[0]["prompt"] == "Вопрос 0?"


def test_what_cannot_go_out_is_refused(tmp_path: Path, parts: dict[str, list[Path]]) -> None:
    for options, wanted in (({"what": ["documents"]}, "UPLOAD_SHAPE"), ({"what": ["held"]}, "UPLOAD_EMPTY")):
        with pytest.raises(ConfigError, match=wanted):
            upload(config(**options), parts, "out", tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_uploads_what_the_last_run_prepared(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path)
    one_line(understudy("upload", "-C", str(folder)), "NO_RUN", 2)
    bound = understudy("plan", "--bind", "-C", str(folder)).stdout.strip()
    for name in ("collect", "clean", "dedupe", "split"):
        assert understudy("step", name, "--plan", bound, "-C", str(folder)).returncode == 0
    one_line(understudy("upload", "-C", str(folder)), "USAGE", 2)
    done = understudy("upload", "--to", "out", "-C", str(folder))
    assert done.returncode == 0, done.stderr
    [manifest] = (folder / "out").glob("*/manifest.json")
    rows = {f["name"]: f["rows"] for f in json.loads(manifest.read_text())["files"]}
    split = {p.name: len(p.read_bytes().splitlines()) for p in folder.glob("store/split/*/*.jsonl")}
    assert rows == {name: split[name] for name in ("train.jsonl", "validation.jsonl")}
    assert "already there" in understudy("upload", "--to", "out", "-C", str(folder)).stdout


# --- S3


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    with s3_server() as bucket:
        yield bucket


@pytest.fixture
def bucket(server: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setenv("SHOP_SECRET", "s")
    for key in server.names():
        server.client.delete_object(Bucket=server.name, Key=key)
    return server


def stored(bucket: Bucket, **options: Any) -> UploadConfig:
    return config(storage=StorageConfig(endpoint_url=bucket.endpoint, key="k", secret="${env:SHOP_SECRET}"), **options)


@pytest.mark.services
def test_objects_are_read_back_by_our_own_source(tmp_path: Path, parts: dict[str, list[Path]], bucket: Bucket) -> None:
    done = upload(stored(bucket), parts, f"s3://{bucket.name}/sets", tmp_path)
    assert done.written and not upload(stored(bucket), parts, f"s3://{bucket.name}/sets", tmp_path).written
    folder = done.folder.rsplit("/", 1)[1]
    names = ["manifest.json", "train.jsonl", "validation.jsonl"]
    assert bucket.names() == [f"sets/{folder}/{n}" for n in names] + ["sets/latest.json"]
    asked = source(f"{done.folder}/train.jsonl", {"messages": "messages"}, storage=stored(bucket).storage)
    assert len(gather(tmp_path, asked)[1]) == 10


@pytest.mark.services
def test_a_write_that_fails_midway_leaves_no_manifest(
    tmp_path: Path, parts: dict[str, list[Path]], bucket: Bucket
) -> None:
    """A file is damaged on its way; nothing says that the data is there, and the earlier set stays the latest."""
    done = upload(stored(bucket), parts, f"s3://{bucket.name}/good", tmp_path)
    write_jsonl(parts["validation"][0], [Example("v2", turns("V?", "b"), {})])
    from understudy.data.upload import _Target

    original = _Target.put

    def corrupting(self: Any, name: str, path: Path, wanted: str) -> None:
        if name.endswith("validation.jsonl"):
            path = tmp_path / "other"
            path.write_text("damaged on the way")
        original(self, name, path, wanted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Target, "put", corrupting)
        with pytest.raises(RemoteError, match="UPLOAD_DAMAGED"):
            upload(stored(bucket), parts, f"s3://{bucket.name}/good", tmp_path)
    manifests = [key for key in bucket.names() if key.endswith("manifest.json")]
    assert manifests == [f"good/{done.folder.rsplit('/', 1)[1]}/manifest.json"]
    latest = json.loads(bucket.get("good/latest.json"))
    assert latest["folder"] == done.folder.rsplit("/", 1)[1]
    assert upload(stored(bucket), parts, f"s3://{bucket.name}/good", tmp_path).written


@pytest.mark.services
def test_a_bucket_that_is_not_there_is_named(tmp_path: Path, parts: dict[str, list[Path]], bucket: Bucket) -> None:
    with pytest.raises(RemoteError, match="STORE_BUCKET"):
        upload(stored(bucket), parts, "s3://nobucket-here/x", tmp_path)
