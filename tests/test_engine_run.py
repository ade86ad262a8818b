"""A whole run with `answer.engine: openvino`: its answers, its release, proof before serving, and refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from thread import make_tiny, one_line, understudy

from understudy.core.records import read_jsonl
from understudy.errors import IntegrityError
from understudy.models import parity
from understudy.models.base import Sampling
from understudy.models.local import LocalModel
from understudy.serve.server import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny(tmp_path_factory.mktemp("engine") / "project")
    with open(folder / "understudy.yaml", "a", encoding="utf-8") as f:
        f.write("answer: {engine: openvino, max_new_tokens: 12}\n")
    result = understudy("run", "--quiet", "-C", str(folder))
    assert result.returncode in (0, 7), result.stderr
    return folder


def released(project: Path) -> Path:
    (folder,) = (project / "store" / "register").iterdir()
    return folder


def test_held_is_answered_by_the_engine_that_serves_as_transformers_would(project: Path) -> None:
    (answers,) = (project / "store" / "answer-held-candidate").iterdir()
    about = json.loads((answers / "answers.json").read_text())
    assert about["identity"]["engine"].startswith("openvino-genai ")
    rows = {row["id"]: row for row in read_jsonl(answers / "answers.jsonl")}
    (held,) = (project / "store" / "hold").iterdir()
    asked = {e["id"]: e["messages"][:1] for e in read_jsonl(held / "held.jsonl")}
    reference = LocalModel(released(project) / "model")
    want = reference.generate([asked[i] for i in rows], Sampling(max_new_tokens=12))
    assert [row["text"] for row in rows.values()] == [a.text for a in want]
    assert all(row["loss_tokens"] > 0 and row["loss_sum"] > 0 for row in rows.values())


def test_the_release_is_loaded_with_its_engine_and_proven_first(project: Path) -> None:
    folder = released(project)
    release = json.loads((folder / "release.json").read_text())
    assert release["engine"]["name"] == "openvino" and "engine/model.gguf" in release["files"]
    assert parity.FILE in release["files"]
    served = load(folder, served_by="tiny v1")
    assert served.model.identity["engine"] == f"openvino-genai {release['engine']['version']}"
    assert not (folder / "engine" / "model.gguf.draft").exists()


def test_no_held_prompt_is_a_probe(project: Path) -> None:
    certificate = json.loads((released(project) / parity.FILE).read_text())
    (held,) = (project / "store" / "hold").iterdir()
    shut = [e["messages"][0]["content"] for e in read_jsonl(held / "held.jsonl")]
    asked = [probe["chat"][-1]["content"] for probe in certificate["probes"]]
    assert len(asked) > 10 and not set(asked) & set(shut)


def test_a_release_whose_certificate_does_not_fit_is_not_served(project: Path, tmp_path: Path) -> None:
    """Every digest is right, as after a faulty export; only the proof tells."""
    from understudy.core.records import sha256_file

    folder = tmp_path / "release"
    shutil.copytree(released(project), folder)
    certificate = json.loads((folder / parity.FILE).read_text())
    certificate["probes"][2]["prompt"][4] += 1
    (folder / parity.FILE).write_text(json.dumps(certificate))
    release = json.loads((folder / "release.json").read_text())
    release["files"][parity.FILE] = sha256_file(folder / parity.FILE)
    (folder / "release.json").write_text(json.dumps(release))
    with pytest.raises(IntegrityError, match="PARITY.*token 5 of probe 3's prompt"):
        load(folder, served_by="tiny v1")


def test_a_base_that_the_engine_cannot_read_is_refused_before_anything_runs(project: Path, tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "other")
    from understudy.models.tiny import BASE_DIR

    shutil.copytree(BASE_DIR, folder / "model")
    config = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with open(folder / "understudy.yaml", "a", encoding="utf-8") as f:
        f.write("base: {path: model}\nanswer: {engine: openvino}\n")
    one_line(understudy("run", "--quiet", "-C", str(folder)), "EXPORT_ARCHITECTURE", 2)
    assert not (folder / "store").exists() or not list((folder / "store").glob("*/*/artifact.json"))
