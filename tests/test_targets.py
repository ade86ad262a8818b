"""A plan written for an orchestrator names every step and runs nothing; it needs nothing of the orchestrator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from thread import make_tiny, one_line, understudy

from understudy.core.artifact import Corpus, Store
from understudy.core.records import Ledger, write_jsonl


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_tiny(tmp_path / "task")


def stages(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load((folder / "dvc.yaml").read_text("utf-8"))["stages"]
    return found


def test_dvc_yaml_names_every_step_with_what_it_reads(project: Path) -> None:
    assert understudy("export", "dvc", "-C", str(project)).returncode == 0
    found = stages(project)
    printed = understudy("plan", "--list", "-C", str(project)).stdout.splitlines()[:-1]
    assert list(found) == ["plan", *(line.split()[1] for line in printed)]
    assert found["dedupe"] == {
        "cmd": "understudy step dedupe --plan plan/plan.json --store work --by-name",
        "deps": ["plan/steps/dedupe.json", "work/clean/artifact.json"],
        "outs": [{"work/dedupe": {"persist": True}}],
    }
    assert found["plan"]["deps"] == ["understudy.yaml", "data/rows.jsonl"] and found["plan"]["always_changed"]
    assert not (project / "store").exists() and not (project / "runs").exists()


def test_what_lies_in_a_store_is_no_path_that_dvc_could_miss(project: Path) -> None:
    from understudy.config import Config
    from understudy.targets.dvc import _plan

    one = {"path": "data/rows.jsonl", "fields": {"text": "t"}}
    stored = [one | {"path": path} for path in ("s3://bucket/data/*.jsonl", "file:///srv/rows.jsonl")]
    config = Config.model_validate({"version": 1, "name": "a", "sources": [one, *stored]})
    assert _plan(config)["deps"] == ["understudy.yaml", "data/rows.jsonl"]


def test_only_files_of_steps_that_moved_change(project: Path) -> None:
    assert understudy("plan", "--to", "plan", "-C", str(project)).returncode == 0
    before = {p.name: p.read_bytes() for p in (project / "plan" / "steps").iterdir()}
    (project / "plan" / "steps" / "gone.json").write_text("{}")
    config = project / "understudy.yaml"
    config.write_text(config.read_text().replace("must_beat: []", "must_beat: [base]"))
    assert understudy("plan", "--to", "plan", "-C", str(project)).returncode == 0
    after = {p.name: p.read_bytes() for p in (project / "plan" / "steps").iterdir()}
    assert before.keys() == after.keys()
    assert {name for name in after if after[name] != before[name]} == {"gate.json", "register.json", "report.json"}


def test_a_dvc_yaml_of_somebody_else_stays(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages: {}\n")
    line = one_line(understudy("export", "dvc", "-C", str(project)), "DVC_EXISTS", 2)
    assert "move it away" in line and (project / "dvc.yaml").read_text() == "stages: {}\n"


def commit(store: Store, fingerprint: str, text: str) -> Path:
    staged = store.stage_directory("collect", fingerprint)
    write_jsonl(staged / "rows.jsonl", [{"text": text}])
    header = {"name": "collect", "stage": "collect", "fingerprint": fingerprint}
    return store.commit(Corpus(staged, ledger=Ledger(1, 1)), staged, header).path


def test_a_store_by_name_holds_the_last_output_of_each_step(tmp_path: Path) -> None:
    store = Store(tmp_path, by_name=True)
    first = commit(store, "f" * 16, "one")
    assert first == tmp_path / "collect" and store.find("collect", "f" * 16) and not store.find("collect", "e" * 16)
    assert commit(store, "e" * 16, "two") == first
    assert json.loads((first / "rows.jsonl").read_text())["text"] == "two"
    assert store.find("collect", "f" * 16) is None and list(store.all()) == [first]
    assert not any((tmp_path / ".tmp").iterdir())
