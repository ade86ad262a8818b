"""Data sets of the Hub at a pinned commit: the real client against a stand-in for the Hub's interface."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collecting import code, gather
from hubserver import COMMIT, Hub, hub_server

from understudy.config import FieldMap, SourceConfig
from understudy.data.sources.collect import source_digests

pytestmark = pytest.mark.services


def table(*texts: str) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), buffer)
    return buffer.getvalue()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    # The tests' own rule is that nobody asks the network; this server is on the loopback.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with hub_server() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.address)
        found.files = {
            "README.md": b"# Data",
            ".gitattributes": b"*.parquet filter=lfs",
            "data/train-0.parquet": table(*(f"row {i}" * 20 for i in range(90))),
            "data/train-1.jsonl": b'{"text": "one"}\n{"text": " "}\n',
            "data/test.csv": b"text\ntwo\n",
        }
        assert len(found.files["data/train-0.parquet"]) > 1_000
        yield found


def asked(path: str | None = "data/train-*", **options: Any) -> SourceConfig:
    known = {"kind": "hub", "repo": "org/data", "revision": COMMIT, "path": path, "timeout_s": 5}
    return SourceConfig(**{**known, "fields": FieldMap(text="text"), **options})


def test_files_of_a_commit_are_read_by_our_own_readers(tmp_path: Path, hub: Hub) -> None:
    ledger, rows, rejects = gather(tmp_path, asked())
    label = f"hub:org/data@{COMMIT[:8]}/data/train-"
    assert len(rows) == 91 and rows[0]["meta"]["source"] == f"{label}0.parquet" and rows[-1]["text"] == "one"
    assert rejects[0]["where"] == f"{label}1.jsonl:2" and ledger.rejected == {"FIELD_BLANK": 1}
    assert len(gather(tmp_path, asked(None))[1]) == 92


def test_a_second_run_asks_nothing(tmp_path: Path, hub: Hub) -> None:
    before = source_digests([asked()], tmp_path)
    gather(tmp_path, asked())
    asked_before = len(hub.seen)
    assert source_digests([asked()], tmp_path) == before
    assert gather(tmp_path, asked())[0].rows_out == 91
    assert not [path for _, path, _ in hub.seen[asked_before:] if "tree" in path or "revision" in path]


def test_a_branch_is_refused_with_the_commit_to_pin(tmp_path: Path, hub: Hub) -> None:
    error = code(tmp_path, asked(revision="main"))
    assert (error.code, error.exit_code) == ("HUB_REVISION", 4) and error.fix == f"revision: {COMMIT}"
    for revision in ("f" * 40, "nowhere"):
        error = code(tmp_path, asked(revision=revision))
        assert (error.code, error.exit_code) == ("HUB_REVISION", 4), error


def test_missing_and_gated_data_sets_are_told_apart(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code(tmp_path, asked(repo="org/nothing")).code == "HUB_MISSING"
    hub.gated = True
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    error = code(tmp_path, asked())
    assert (error.code, error.exit_code) == ("HUB_GATED", 4)
    assert {token for _, _, token in hub.seen} == {""}, "a token that the file does not name is not sent"
    assert code(tmp_path, asked(token="${env:HF_TOKEN}")).code == "HUB_GATED"
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert gather(tmp_path, asked(token="${env:HF_TOKEN}"))[0].rows_out == 91
    assert "hf_good" not in "".join(p.read_text("utf-8", "replace") for p in tmp_path.rglob("*.json*"))


def test_code_of_a_data_set_is_never_run(tmp_path: Path, hub: Hub) -> None:
    canary = tmp_path / "canary"
    hub.files["data.py"] = f"open({str(canary)!r}, 'w')".encode()
    assert gather(tmp_path, asked())[0].rows_out == 91
    error = code(tmp_path / "x", asked("*.py"))
    assert (error.code, error.exit_code) == ("REMOTE_CODE", 6)
    hub.files = {"data.py": hub.files["data.py"], "README.md": b"#"}
    error = code(tmp_path / "y", asked(None))
    assert (error.code, error.exit_code) == ("REMOTE_CODE", 6) and "data.py" in error.what
    assert not canary.exists() and not [path for _, path, _ in hub.seen if path.endswith(".py")]


@pytest.mark.parametrize("path", ["data/train-0.parquet", "data/train-1.jsonl"])
def test_bytes_that_are_not_the_commits_are_refused(tmp_path: Path, hub: Hub, path: str) -> None:
    hub.spoilt = True
    error = code(tmp_path, asked(path))
    assert (error.code, error.exit_code) == ("HUB_DIGEST", 6)
    hub.spoilt = False
    assert gather(tmp_path, asked(path))[0].rows_out


def test_without_a_pattern_a_file_is_read_however_deep_it_lies(tmp_path: Path, hub: Hub) -> None:
    hub.files = {"a.jsonl": b'{"text": "one"}\n', "a/b/c/d/e.jsonl": b'{"text": "two"}\n', "README.md": b"#"}
    assert [row["text"] for row in gather(tmp_path, asked(None))[1]] == ["one", "two"]


def test_a_pattern_that_finds_nothing_names_what_is_there(tmp_path: Path, hub: Hub) -> None:
    error = code(tmp_path, asked("data/valid-*"))
    assert (error.code, error.exit_code) == ("HUB_EMPTY", 4) and "data/test.csv" in error.what


def test_a_hub_that_is_down_or_forbidden(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    error = code(tmp_path, asked())
    assert (error.code, error.exit_code) == ("HUB_UNREACHABLE", 4)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    error = code(tmp_path, asked())
    assert (error.code, error.exit_code) == ("HUB_OFFLINE", 4)


def test_the_digest_is_the_commits(tmp_path: Path, hub: Hub) -> None:
    before = source_digests([asked()], tmp_path / "a")
    hub.files["data/train-1.jsonl"] = b'{"text": "other"}\n'
    assert json.dumps(source_digests([asked()], tmp_path / "a")) == json.dumps(before)
    assert source_digests([asked()], tmp_path / "b") != before
