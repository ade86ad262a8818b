"""What a run binds, keeps and shows, and what nobody needs any more; nothing is trained here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_core import Silent
from thread import TINY, make_tiny

from understudy.cli import project as cli
from understudy.core.artifact import Dataset, Release, Report, Store
from understudy.core.journal import length
from understudy.core.lease import hold
from understudy.core.plan import Plan
from understudy.core.runner import Runner
from understudy.errors import BusyError
from understudy.planning import collect_garbage
from understudy.project import Project
from understudy.terminal import print_summary


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_tiny(tmp_path)


def test_a_run_keeps_the_configuration_that_was_read(root: Path) -> None:
    project = Project(root)
    read = project.loaded.data
    (root / "understudy.yaml").write_text(TINY + "dedupe: {normalise: false}\n")
    run, _, _ = project.open_run(new=False, control=None)
    assert (run.path / "understudy.yaml").read_bytes() == read == TINY.encode()


def test_execution_settings_go_on_with_the_same_run(root: Path) -> None:
    first, plan, _ = Project(root).open_run(new=False, control=None)
    (root / "understudy.yaml").write_text(TINY + "answer: {batch_size: 3}\n")
    again, other, fresh = Project(root).open_run(new=False, control=None)
    assert (again.id, fresh) == (first.id, False)
    assert [s.fingerprint for s in other.steps] == [s.fingerprint for s in plan.steps]
    assert first.plan().step("answer-held-base").config["batch_size"] == 3
    (root / "understudy.yaml").write_text(TINY + "answer: {max_new_tokens: 3}\n")
    assert Project(root).open_run(new=False, control=None)[2]


def test_an_edit_during_a_run_that_fails_is_noted(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(root)
    used = project.loaded.digest[:8]
    (root / "understudy.yaml").unlink()
    monkeypatch.setattr(cli, "open_project", lambda allow_secrets: project)
    with hold(root / "runs" / ".lock", what="test"), pytest.raises(BusyError):
        cli.run()
    assert f"this run used {used}" in capsys.readouterr().err


def test_a_report_goes_to_its_run_and_over_no_file_of_the_user(root: Path) -> None:
    project = Project(root)
    run, plan, _ = project.open_run(new=False, control=None)
    step = plan.step("report")
    staged = project.store.stage_directory("report", step.fingerprint)
    (staged / "report.html").write_text("<p>made</p>")
    header = {"name": "report", "stage": "report", "fingerprint": step.fingerprint, "inputs": {}}
    project.store.commit(Report(staged, measured_files=("report.html",)), staged, header)
    (root / "report.html").write_text("<p>mine</p>")
    project.execute(run, Plan((step,)), Silent())
    assert (root / "report.html").read_text() == "<p>mine</p>"
    assert (run.path / "report.html").read_text() == "<p>made</p>"


def test_a_run_that_was_stopped_shows_what_ran(root: Path) -> None:
    project = Project(root)
    run, plan, _ = project.open_run(new=False, control=None)
    runner = Runner(root, project.store, run.journal, Silent())
    for name in ("collect", "clean"):
        runner.run_step(plan.step(name))
    assert {s.name: s.cached for s in project.summary(run).stages} == {"collect": False, "clean": False}
    run.write("status.json", {"attempts": length(run.journal)})  # carried on
    runner.run_step(plan.step("clean"))
    runner.run_step(plan.step("dedupe"))
    shown = {s.name: s.cached for s in project.summary(run).stages}
    assert shown == {"collect": True, "clean": True, "dedupe": False}


def test_a_version_is_not_called_champion_once_it_may_be_none(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(root)
    run, _, _ = project.open_run(new=False, control=None)
    verdict = {"passed": True, "rules": []}
    summary = project.summary(run).model_copy(update={"verdict": None, "version": 1})
    print_summary(type(summary).model_validate({**summary.model_dump(), "verdict": verdict}))
    out = capsys.readouterr().out
    assert "version 1" in out and "champion" not in out


def commit(
    store: Store, name: str, fingerprint: str, *, release: dict[str, object] | None = None, inputs: str = ""
) -> Path:
    staged = store.stage_directory(name, fingerprint)
    artifact = Release(staged, facts=release) if release else Dataset(staged)
    needs = {inputs: {"fingerprint": fingerprint}} if inputs else {}
    header = {"name": name, "stage": name, "fingerprint": fingerprint, "inputs": needs}
    return store.commit(artifact, staged, header).path


def test_gc_keeps_registered_lineages_of_every_name_and_removes_partial_work_of_nobody(root: Path) -> None:
    project = Project(root)
    store = project.store
    run, plan, _ = project.open_run(new=False, control=None)
    planned = commit(store, "collect", plan.step("collect").fingerprint)
    lineage = commit(store, "split", "a" * 64)
    release = commit(store, "register", "a" * 64, release={"passed": True, "name": "an-earlier-name"}, inputs="split")
    refused = commit(store, "register", "b" * 64, release={"passed": False, "name": "tiny-task"})
    going_on, left = store.scratch("train-1", plan.step("train-1").fingerprint), store.scratch("train-1", "c" * 64)
    for scratch in (going_on, left):
        scratch.mkdir(parents=True)
    assert "2 artifacts" in list(collect_garbage(project, delete=True))[-1]
    assert planned.exists() and lineage.exists() and release.exists() and going_on.exists()
    assert not refused.exists() and not left.exists()
    assert json.loads((run.path / "plan.json").read_text())["steps"]
