"""Artifacts, stages, plans and the runner, with stages that touch no language model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from understudy.config import EXECUTION
from understudy.core.artifact import MANIFEST, MEASURED, Artifact, Corpus, Dataset, Store
from understudy.core.journal import Journal, events
from understudy.core.lease import hold
from understudy.core.plan import Plan, why
from understudy.core.records import Example, Ledger, canonical, digest, write_jsonl
from understudy.core.runner import Runner
from understudy.core.stage import SkipIf, Step, adopt, stage
from understudy.errors import BusyError, ConfigError, IntegrityError, RemoteError

CALLS: list[str] = []


class Words(BaseModel):
    words: list[str] = ["a"]
    enough: bool = False


@stage(revision=1)
def toy_collect(cfg: Words, out: Path) -> Corpus:
    """Write the words."""
    CALLS.append("collect")
    n = write_jsonl(out / "rows.jsonl", [{"word": w} for w in cfg.words])
    return Corpus(out, ledger=Ledger(n, n), facts={"enough": cfg.enough}, measured={"host": time.time()})


@stage(revision=1)
def toy_upper(cfg: Words, corpus: Corpus, extra: list[Corpus], maybe: Dataset | None, out: Path) -> Dataset:
    """Shout."""
    CALLS.append("upper")
    text = (corpus.path / "rows.jsonl").read_text().upper()
    (out / "train.jsonl").write_text(text + "".join(e.name for e in extra))
    return Dataset(out)


@stage(revision=1)
def toy_lossy(cfg: Words, corpus: Corpus, out: Path) -> Corpus:
    """Lose a row without saying so."""
    (out / "rows.jsonl").write_text("")
    return Corpus(out, ledger=Ledger(2, 1))


class Service(BaseModel):
    model: str = "m"
    concurrency: int = Field(default=8, json_schema_extra=EXECUTION)


class Asked(BaseModel):
    service: Service | None = None
    others: list[Service] = []
    batch_size: int = Field(default=32, json_schema_extra=EXECUTION)


@stage(revision=1)
def toy_ask(cfg: Asked, out: Path) -> Corpus:
    """Write down how it was asked."""
    (out / "rows.jsonl").write_text(cfg.model_dump_json())
    (out / MEASURED).write_text('{"greedy": {"seconds": 1.5}}')
    return Corpus(out, measured={"calls": 3})


class Silent:
    def started(self, step: Step, index: int, total: int) -> None: ...
    def progress(self, step: Step, done: int, total: int, values: dict[str, float]) -> None: ...
    def finished(self, step: Step, artifact: Artifact, seconds: float, state: str) -> None: ...


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    CALLS.clear()
    return Runner(tmp_path, Store(tmp_path / "store"), tmp_path / "journal", Silent())


def two_steps(words: list[str] | None = None) -> Plan:
    corpus = toy_collect.step(Words(words=words or ["a", "b"]))
    return Plan.of("toy", [toy_upper.step(Words(), corpus=corpus, extra=[])])


def test_second_run_reuses_every_step_and_keeps_the_bytes(runner: Runner) -> None:
    first = runner.run(two_steps())
    second = runner.run(two_steps())
    assert [o.state for o in first] == ["ran", "ran"] and [o.state for o in second] == ["cached", "cached"]
    assert CALLS == ["collect", "upper"]
    assert [o.artifact.content_digest for o in first] == [o.artifact.content_digest for o in second]


def test_content_digest_ignores_what_was_measured(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        runner = Runner(tmp_path / name, Store(tmp_path / name / "store"), tmp_path / name / "j", Silent())
        digests.append(runner.run(two_steps())[0].artifact.content_digest)
        time.sleep(0.01)
    assert digests[0] == digests[1]


def test_changed_config_rebuilds_only_what_depends_on_it(runner: Runner) -> None:
    runner.run(two_steps())
    corpus = toy_collect.step(Words(words=["a", "b"]))
    plan = Plan.of("toy", [toy_upper.step(Words(words=["other"]), corpus=corpus, extra=[])])
    assert [o.state for o in runner.run(plan)] == ["cached", "ran"]


def test_wrong_edge_is_refused_while_the_plan_is_built() -> None:
    corpus = toy_collect.step(Words())
    upper = toy_upper.step(Words(), corpus=corpus, extra=[])
    with pytest.raises(ConfigError, match="got Dataset, wants Corpus"):
        toy_upper.step(Words(), corpus=upper, extra=[])
    with pytest.raises(ConfigError, match="EDGE_MISSING"):
        toy_upper.step(Words(), extra=[])
    with pytest.raises(ConfigError, match="wants a list"):
        toy_upper.step(Words(), corpus=corpus, extra=corpus)
    with pytest.raises(ConfigError, match="EDGE_UNKNOWN"):
        toy_collect.step(Words(), corpse=corpus)


def test_unbalanced_ledger_is_not_committed(runner: Runner) -> None:
    plan = Plan.of("toy", [toy_lossy.step(Words(), corpus=toy_collect.step(Words()))])
    with pytest.raises(IntegrityError, match="LEDGER"):
        runner.run(plan)
    assert runner.store.find("toy_lossy", plan.steps[1].fingerprint) is None
    assert not list((runner.store.root / ".tmp").iterdir())


def test_changed_file_in_the_store_is_noticed(runner: Runner) -> None:
    outcome = runner.run(two_steps())[0]
    (outcome.artifact.path / "rows.jsonl").write_text('{"word": "x"}\n{"word": "b"}\n')
    with pytest.raises(IntegrityError, match="ARTIFACT_CHANGED"):
        runner.run(two_steps())


def test_directory_without_manifest_does_not_exist(runner: Runner) -> None:
    plan = two_steps()
    path = runner.store.address(plan.steps[0].name, plan.steps[0].fingerprint)
    path.mkdir(parents=True)
    (path / "rows.jsonl").write_text("half")
    assert runner.run(plan)[0].state == "ran"


def test_skipped_step_stands_for_the_earlier_artifact(runner: Runner) -> None:
    first = toy_collect.step(Words(words=["a"], enough=True))
    second = toy_collect.step(
        Words(words=["b"]), name="second", skip_if=SkipIf(of=first, field="enough", equals=True, alias=first)
    )
    outcomes = runner.run(Plan.of("toy", [toy_upper.step(Words(), corpus=second, extra=[])]))
    assert [o.state for o in outcomes] == ["ran", "skipped", "ran"]
    assert outcomes[1].artifact.path == outcomes[0].artifact.path
    assert "A" in (outcomes[2].artifact.path / "train.jsonl").read_text()


def test_step_runs_when_the_skip_condition_does_not_hold(runner: Runner) -> None:
    first = toy_collect.step(Words(words=["a"], enough=False))
    second = toy_collect.step(
        Words(words=["b"]), name="second", skip_if=SkipIf(of=first, field="enough", equals=True, alias=first)
    )
    assert [o.state for o in runner.run(Plan.of("toy", [second]))] == ["ran", "ran"]


def test_plan_survives_json(runner: Runner, tmp_path: Path) -> None:
    plan = two_steps()
    plan.save(tmp_path / "plan.json")
    again = Plan.load(tmp_path / "plan.json")
    assert again.to_json() == plan.to_json()
    assert runner.run_step(again.step("toy_collect")).state == "ran"
    assert runner.run_step(again.step("toy_upper")).state == "ran"


def test_step_without_its_input_says_what_to_run(runner: Runner) -> None:
    with pytest.raises(IntegrityError, match="run toy_collect first"):
        runner.run_step(two_steps().step("toy_upper"))


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (lambda d: d.update(schema=99), "PLAN_VERSION"),
        (lambda d: d["steps"][0].update(stage="nonsense"), "STAGE_UNKNOWN"),
        (lambda d: d["steps"].reverse(), "PLAN_ORDER"),
        (lambda d: d["steps"][1]["inputs"].update(corpus="toy_upper"), "DAG_CYCLE"),
        (lambda d: d["steps"][0]["inputs"].update(corpus="toy_upper"), "DAG_CYCLE"),
        (lambda d: d["steps"][1]["inputs"].update(corpus="nobody"), "PLAN_SYNTAX"),
        (lambda d: d["steps"].append(d["steps"][0]), "STEP_TWICE"),
        (lambda d: d.pop("steps"), "PLAN_SYNTAX"),
        (lambda d: d["steps"][0].pop("name"), "PLAN_SYNTAX"),
        (lambda d: d["steps"][0].pop("libraries"), "PLAN_SYNTAX"),
        (lambda d: d["steps"].insert(0, "collect"), "PLAN_SYNTAX"),
        (lambda d: d["steps"][0]["needs"].update(retries="many"), "PLAN_SYNTAX"),
        (lambda d: d["steps"][0]["needs"].update(cores=2), "PLAN_SYNTAX"),
        (lambda d: d["steps"][0]["config"].update(words=7), "PLAN_SYNTAX"),
        (lambda d: d["steps"][0]["config"].update(words=["other"]), "PLAN_STALE"),
        (lambda d: d["steps"][0].update(revision=2), "PLAN_STALE"),
        (lambda d: d["steps"][0].update(libraries={"torch": "1.0"}), "PLAN_STALE"),
        (lambda d: d["steps"][1].update(fingerprint="0" * 64), "PLAN_STALE"),
    ],
)
def test_broken_plan_files_are_named(tmp_path: Path, edit: object, code: str) -> None:
    data = two_steps().to_json()
    edit(data)  # type: ignore[operator]
    (tmp_path / "plan.json").write_text(json.dumps(data))
    with pytest.raises(ConfigError) as e:
        Plan.load(tmp_path / "plan.json")
    assert e.value.code == code


def test_a_loop_in_a_plan_file_is_printed(tmp_path: Path) -> None:
    data = two_steps().to_json()
    data["steps"][0]["inputs"]["corpus"] = "toy_upper"
    (tmp_path / "plan.json").write_text(json.dumps(data))
    with pytest.raises(ConfigError, match="toy_collect > toy_upper > toy_collect"):
        Plan.load(tmp_path / "plan.json")


def test_a_plan_of_another_release_can_be_read_about(tmp_path: Path) -> None:
    data = two_steps().to_json()
    data["steps"][0].update(revision=2)
    (tmp_path / "plan.json").write_text(json.dumps(data))
    assert Plan.load(tmp_path / "plan.json", stale=True).to_json() == data


def test_missing_plan_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="PLAN_NOT_FOUND"):
        Plan.load(tmp_path / "none.json")


def test_why_names_the_field_and_the_input() -> None:
    before = {row["name"]: row for row in two_steps().to_json()["steps"]}
    now = two_steps(["a", "c"])
    assert why(now.steps[0], before["toy_collect"]) == ['config words.1: "b" > "c"']
    assert why(now.steps[1], before["toy_upper"]) == ["an input changed"]
    assert why(two_steps().steps[0], before["toy_collect"]) == []
    assert why(now.steps[0], None) == ["never ran"]


def test_revision_and_inputs_are_identity_but_needs_are_not() -> None:
    corpus = toy_collect.step(Words())
    other = toy_collect.step(Words(words=["z"]))
    a = toy_upper.step(Words(), corpus=corpus, extra=[])
    assert a.fingerprint != toy_upper.step(Words(), corpus=other, extra=[]).fingerprint
    assert a.fingerprint != toy_upper.step(Words(), corpus=corpus, extra=[other]).fingerprint
    assert a.fingerprint == toy_upper.step(Words(), name="another", corpus=corpus, extra=[]).fingerprint


def test_execution_settings_reach_the_step_and_are_no_identity(runner: Runner, tmp_path: Path) -> None:
    plain = Asked(service=Service(), others=[Service()])
    other = Asked(service=Service(concurrency=1), others=[Service(concurrency=2)], batch_size=4)
    changed = Asked(service=Service(model="n"), others=[Service()])
    assert toy_ask.step(plain).fingerprint == toy_ask.step(other).fingerprint
    assert toy_ask.step(plain).fingerprint != toy_ask.step(changed).fingerprint
    Plan.of("toy", [toy_ask.step(other)]).save(tmp_path / "plan.json")
    made = runner.run(Plan.load(tmp_path / "plan.json"))[0].artifact
    assert json.loads((made.path / "rows.jsonl").read_text()) == other.model_dump()
    assert runner.run(Plan.of("toy", [toy_ask.step(plain)]))[0].state == "cached"
    before = Plan.of("toy", [toy_ask.step(other)]).to_json()["steps"][0]
    assert why(toy_ask.step(changed), before) == ['config service.model: "m" > "n"']


def test_what_a_stage_measured_itself_is_kept(runner: Runner) -> None:
    made = runner.run(Plan.of("toy", [toy_ask.step(Asked())]))[0].artifact
    assert made.measured["greedy"] == {"seconds": 1.5} and made.measured["calls"] == 3 and "seconds" in made.measured


@pytest.mark.parametrize("name", [MANIFEST, MEASURED])
def test_damaged_manifest_says_what_to_remove(runner: Runner, name: str) -> None:
    path = runner.run(two_steps())[0].artifact.path
    (path / name).write_text("{")
    with pytest.raises(IntegrityError, match=f"remove toy_collect/{path.name} from the store") as e:
        runner.run(two_steps())
    assert e.value.code == "ARTIFACT_CHANGED"


def test_what_is_staged_is_not_among_the_artifacts(runner: Runner) -> None:
    made = [o.artifact.path for o in runner.run(two_steps())]
    staged = runner.store.stage_directory("toy_collect", "f" * 64)
    (staged / MANIFEST).write_text("{}")
    assert list(runner.store.all()) == made


def test_adopted_artifact_is_an_input_like_any_other(runner: Runner) -> None:
    made = runner.run(Plan.of("toy", [toy_collect.step(Words(words=["x"]))]))[0].artifact
    address = made.path.relative_to(runner.store.root).as_posix()
    step = adopt("champion", "Corpus", address, made.manifest["fingerprint"])
    outcomes = runner.run(Plan.of("toy", [toy_upper.step(Words(), corpus=step, extra=[])]))
    assert [o.state for o in outcomes] == ["cached", "ran"]


def test_remote_errors_are_retried_as_often_as_needs_say(tmp_path: Path, runner: Runner) -> None:
    from understudy.core.stage import Needs

    attempts: list[int] = []

    @stage(revision=1, needs=Needs(retries=1))
    def toy_flaky(cfg: Words, out: Path) -> Corpus:
        attempts.append(1)
        if len(attempts) == 1:
            raise RemoteError("TIMEOUT", "service", "no answer")
        (out / "rows.jsonl").write_text("")
        return Corpus(out)

    assert runner.run(Plan.of("toy", [toy_flaky.step(Words())]))[0].state == "ran"
    assert len(attempts) == 2
    assert [e["event"] for e in events(tmp_path / "journal")] == ["started", "failed", "started", "finished"]


def test_held_lock_names_its_owner_and_a_dead_owner_frees_it(tmp_path: Path) -> None:
    code = "import sys,time; from understudy.core.lease import hold; from pathlib import Path\n"
    code += "with hold(Path(sys.argv[1]), what='x'): print('held', flush=True); time.sleep(60)"
    owner = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    assert owner.stdout and owner.stdout.readline() == "held\n"
    with pytest.raises(BusyError, match=f"pid {owner.pid}"), hold(tmp_path / "lock", what="project"):
        pass
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    with hold(tmp_path / "lock", what="project"):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


KILLED = """
    import os, sys, time
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from understudy.core.artifact import Store
    from understudy.core.runner import Runner
    import test_core
    kill_at = int(sys.argv[2])
    real, count = os.fsync, 0
    def fsync(fd):
        global count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), 9)
        real(fd)
    os.fsync = fsync
    root = Path(sys.argv[1])
    Runner(root, Store(root / "store"), root / "journal", test_core.Silent()).run(test_core.two_steps())
    print(count)
"""


@pytest.mark.slow
def test_kill_at_every_sync_of_a_run_then_run_again(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(textwrap.dedent(KILLED.format(tests=str(Path(__file__).parent))))

    def run(root: Path, kill_at: int) -> subprocess.CompletedProcess[str]:
        root.mkdir(exist_ok=True)
        command = [sys.executable, str(script), str(root), str(kill_at)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    whole = run(tmp_path / "whole", 0)
    syncs = int(whole.stdout)
    assert syncs >= 6
    expected = [json.loads(p.read_text())["content_digest"] for p in sorted((tmp_path / "whole").rglob(MANIFEST))]
    for kill_at in range(1, syncs + 1):
        root = tmp_path / f"kill-{kill_at}"
        assert run(root, kill_at).returncode == -signal.SIGKILL
        assert run(root, 0).returncode == 0
        found = [json.loads(p.read_text())["content_digest"] for p in sorted(root.rglob(MANIFEST))]
        assert found == expected
        assert not list((root / "store" / ".tmp").iterdir())


def test_journal_keeps_attempts_apart_and_reads_past_a_cut_line(tmp_path: Path) -> None:
    Journal(tmp_path, "train").write("started")
    second = Journal(tmp_path, "train")
    second.write("started")
    with open(second.path, "a") as f:
        f.write('{"at": "2026')
    assert [(e["attempt"], e["event"]) for e in events(tmp_path)] == [(1, "started"), (2, "started")]


def test_canonical_json_is_the_same_for_equal_values() -> None:
    assert canonical({"b": 1, "a": [1.5, "é"]}) == canonical({"a": [1.5, "é"], "b": 1})
    assert digest("x") != digest(["x"])


def test_example_prompt_and_answer() -> None:
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert Example("1", chat).prompt == chat[:1] and Example("1", chat).answer == "a"
    assert Example("1", chat[:1]).answer is None and Example("1", chat[:1]).prompt == chat[:1]
