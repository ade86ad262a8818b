"""A whole project from raw rows to a served release, with the real base, real training and a real HTTP service."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from endpoint import ask
from thread import make_project, understudy

from understudy.models.cache import kept

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has run once, with few rows and steps and an easier gate; everything in it is real."""
    folder = make_project(tmp_path_factory.mktemp("thread") / "course-advisor")
    result = understudy("run", "-C", str(folder))
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


def shown(folder: Path) -> dict:  # type: ignore[type-arg]
    result = understudy("show", "--json", "-C", str(folder))
    assert result.returncode == 0, result.stderr
    value: dict = json.loads(result.stdout)  # type: ignore[type-arg]
    return value


def rows(folder: Path, step: str, name: str) -> list[dict]:  # type: ignore[type-arg]
    """A file of a step's artifact in the last run."""
    plan = json.loads((sorted((folder / "runs").glob("run-*"))[-1] / "plan.json").read_text())
    fingerprint = next(s["fingerprint"] for s in plan["steps"] if s["name"] == step)
    path = folder / "store" / step / fingerprint[:16] / name
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_show_json_holds_what_its_schema_says(project: Path) -> None:
    from understudy.summary import Summary

    summary = Summary.model_validate(shown(project))
    assert [r.arm for r in summary.rounds] == ["targeted", "targeted", "untargeted"]
    assert summary.rounds[1].rows == summary.rounds[2].rows > summary.rounds[0].rows
    assert set(summary.held) == {"base", "few_shot", "candidate", "service"}
    assert {"coverage", "exact_facts"} <= set(summary.held["candidate"])
    assert summary.held["candidate"]["coverage"].n == 120
    assert {"candidate-few_shot", "candidate-base"} <= set(summary.differences)
    assert summary.verdict is not None and summary.report and Path(summary.report).is_file()
    schema = json.loads(understudy("schema", "show").stdout)
    assert {"run", "finished", "stages", "rounds", "held", "differences", "verdict", "version", "report"} <= set(
        schema["properties"]
    )


def test_thresholds_are_decided_anew_without_a_call(project: Path) -> None:
    calls = list(kept(project / "cache"))
    spent = (project / "runs/run-0001/spending.jsonl").read_bytes()
    assert calls and b'"judge"' in spent
    same = understudy("regate", "-C", str(project))
    assert same.returncode == 0 and "verdict: pass (as before); 0 calls" in same.stdout
    assert max(map(len, same.stdout.splitlines())) <= 80
    held = shown(project)["held"]["candidate"]["coverage"]
    strict = json.loads(understudy("regate", "--similarity", "100", "--json", "-C", str(project)).stdout)
    assert strict["before"]["held"]["candidate"]["coverage"]["value"] == held["value"]
    assert strict["after"]["held"]["candidate"]["coverage"]["value"] < held["value"]
    refused = understudy("regate", "--bar", "0.01", "-C", str(project))
    assert refused.returncode == 7 and "verdict: fail (before: pass)" in refused.stdout
    assert list(kept(project / "cache")) == calls
    assert (project / "runs/run-0001/spending.jsonl").read_bytes() == spent


def test_people_fill_in_a_sheet_and_hold_the_judge_against_it(project: Path, tmp_path: Path) -> None:
    sheet = understudy("calibrate", "--sheet", "40", "-C", str(project)).stdout
    rows = list(csv.DictReader(io.StringIO(sheet)))
    assert len(rows) == 40 and {"question", "reference", "answer", "covered"} <= rows[0].keys()
    labels = tmp_path / "labels.csv"
    with open(labels, "w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        # These people want the reference word for word.
        writer.writerows({**r, "covered": "yes" if r["answer"].strip() == r["reference"] else "no"} for r in rows)
    told = understudy("calibrate", str(labels), "-C", str(project))
    assert told.returncode == 0, told.stderr
    assert "judge against people: 40 answers of 40 items" in told.stdout and "corrected by people" in told.stdout
    assert max(map(len, told.stdout.splitlines())) <= 80
    nothing = understudy("calibrate", "-C", str(project))
    assert nothing.returncode == 2 and "CALIBRATE_NOTHING" in nothing.stderr
    missing = understudy("calibrate", "none.csv", "-C", str(project))
    assert missing.returncode == 3 and "FILE_NOT_FOUND" in missing.stderr


def test_every_stage_with_rows_balances(project: Path) -> None:
    stages = [s for s in shown(project)["stages"] if s["rows_in"] is not None]
    assert len(stages) > 20
    for stage in stages:
        assert stage["rows_in"] == stage["rows_out"] + sum(stage["rejected"].values()), stage["name"]


def test_second_run_does_nothing_fast(project: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in project.glob("store/*/*/artifact.json")}
    start = time.monotonic()
    result = understudy("run", "-C", str(project))
    assert "nothing to do" in result.stdout
    assert time.monotonic() - start < 15  # 5 s on an idle machine: `make bench` measures it
    assert {p: p.stat().st_mtime_ns for p in project.glob("store/*/*/artifact.json")} == before
    assert len(list((project / "runs").glob("run-*"))) == 1


def test_no_held_pair_reaches_training_teacher_or_seed(project: Path) -> None:
    held = rows(project, "hold", "held.jsonl")
    names = {r["meta"]["group"] for r in held}
    assert len(held) == 120 and len(names) == 30
    seen = ""
    for step in ("synthesize-1", "synthesize-2", "synthesize-untargeted"):
        seen += json.dumps(rows(project, step, "train.jsonl"), ensure_ascii=False)
    for file in ("seed.jsonl", "dev.jsonl", "documents.jsonl"):
        seen += json.dumps(rows(project, "split", file), ensure_ascii=False)
    assert not [n for n in names if n in seen]
    calls = [json.dumps(held, ensure_ascii=False) for held in kept(project / "cache")]
    teacher = [text for text in calls if "SEED EXAMPLES (JSON)" in text]
    assert len(teacher) > 10
    assert not [n for n in names for text in teacher if n in text]


def test_held_set_is_an_input_of_held_stages_only(project: Path) -> None:
    plan = json.loads((project / "runs" / "run-0001" / "plan.json").read_text())
    readers = {s["stage"] for s in plan["steps"] if "hold" in s["inputs"].values()}
    assert readers == {"answer_held", "ask_service", "score_held", "report"}


def test_plan_why_names_a_changed_field(project: Path) -> None:
    file = project / "understudy.yaml"
    before = file.read_text("utf-8")
    try:
        file.write_text(before.replace("max_steps: 30", "max_steps: 31"), "utf-8")
        result = understudy("plan", "--why", "-C", str(project))
        assert "config max_steps: 30 > 31" in result.stdout
        assert "done collect" in result.stdout and "run  train-1" in result.stdout
    finally:
        file.write_text(before, "utf-8")


def test_explain_runs_and_gc(project: Path) -> None:
    explained = understudy("explain", "train-1", "-C", str(project)).stdout
    assert "Fine-tune the base" in explained and "input data: pack-1" in explained
    assert understudy("runs", "-C", str(project)).stdout.startswith("run-0001  2")
    (project / "store" / "train-1" / "old").mkdir()
    (project / "store" / "train-1" / "old" / "artifact.json").write_text('{"inputs": {}}')
    assert "would remove store/train-1/old" in understudy("gc", "-C", str(project)).stdout
    assert (project / "store" / "train-1" / "old").exists()
    assert "removed store/train-1/old" in understudy("gc", "--delete", "-C", str(project)).stdout
    assert not (project / "store" / "train-1" / "old").exists()
    assert "nothing to do" in understudy("run", "-C", str(project)).stdout


def test_one_step_of_a_plan_runs_alone_and_equals_the_run(project: Path, tmp_path: Path) -> None:
    plan = project / "runs" / "run-0001" / "plan.json"
    for name in ("collect", "clean", "dedupe"):
        result = understudy("step", name, "--plan", str(plan), "--store", str(tmp_path), "-C", str(project))
        assert result.stdout.startswith(f"ran {name}"), result.stderr
    status = json.loads((project / "runs" / "run-0001" / "status.json").read_text())["steps"]
    assert status["dedupe"]["content_digest"].startswith(result.stdout.split()[-1])


def test_second_process_is_told_who_holds_the_project(project: Path) -> None:
    from understudy.core.lease import hold

    with hold(project / "runs" / ".lock", what="test"):
        result = understudy("run", "-C", str(project))
    assert result.returncode == 75
    assert "BUSY" in result.stderr and "pid" in result.stderr


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Iterator[Path]:
    """The same project, stopped in the middle of five of its steps and carried on each time."""
    folder = make_project(tmp_path_factory.mktemp("killed") / "course-advisor")
    stops = [
        ("split", signal.SIGKILL),
        ("synthesize-1", signal.SIGKILL),
        ("train-1", signal.SIGKILL),
        ("answer-dev-2", signal.SIGINT),
        ("train-untargeted", signal.SIGTERM),
    ]
    for step, number in stops:
        stop_in(folder, step, number)
    result = understudy("run", "--quiet", "-C", str(folder))
    assert result.returncode == 0, result.stderr[-2000:]
    yield folder


def stop_in(folder: Path, step: str, number: signal.Signals) -> None:
    """Start a run and send it a signal soon after `step` has started."""
    command = [sys.executable, "-m", "understudy", "run", "--quiet", "-C", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 240
        while not list(folder.glob(f"runs/run-*/journal/{step}.*.jsonl")):
            assert process.poll() is None and time.monotonic() < deadline, f"{step} did not start"
            time.sleep(0.005)
        time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + number and "Traceback" not in errors


def test_stopped_runs_end_in_the_same_content(project: Path, killed: Path) -> None:
    def digests(folder: Path) -> dict[str, str]:
        status = json.loads((folder / "runs" / "run-0001" / "status.json").read_text())
        return {name: row["content_digest"] for name, row in status["steps"].items()}

    assert digests(killed) == digests(project)
    assert not list((killed / "store" / ".tmp").iterdir())


def test_release_is_registered_once_and_kept_by_new_runs(project: Path) -> None:
    assert shown(project)["version"] == 1
    # A new run asks the canaries afresh, and decides and packages again; nothing is written, trained or judged anew.
    result = understudy("run", "--new", "-C", str(project))
    assert result.returncode == 0, result.stdout + result.stderr
    ran = {stage["name"] for stage in shown(project)["stages"] if not stage["cached"]}
    assert ran == {"canary-0", "canary-1", "canary-2", "canary-3", "gate", "register", "report"}
    assert shown(project)["version"] == 1


def test_a_model_is_not_asked_to_beat_itself_when_only_the_bar_moved(project: Path) -> None:
    config = project / "understudy.yaml"
    before = config.read_text()
    try:
        config.write_text(before.replace("bar: null", "bar: 1.0"))
        assert "answer-held-champion" not in understudy("plan", "--list", "-C", str(project)).stdout
        config.write_text(before.replace("max_steps: 30", "max_steps: 31"))
        assert "answer-held-champion" in understudy("plan", "--list", "-C", str(project)).stdout
    finally:
        config.write_text(before)


def test_serve_answers_as_the_champion_did_with_no_simulator_there(project: Path) -> None:
    from openai import OpenAI

    stored = {r["id"]: r["text"] for r in rows(project, "answer-held-candidate", "answers.jsonl")}
    held = rows(project, "hold", "held.jsonl")[:10]
    command = [sys.executable, "-m", "understudy", "serve", "--port", "0", "-C", str(project)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = next(word for line in process.stderr or () for word in line.split() if word.startswith("http://"))
            client = OpenAI(base_url=url.rstrip("/").removesuffix("/v1") + "/v1", api_key="none", max_retries=0)
            for row in held:
                raw = client.chat.completions.with_raw_response.create(
                    model="understudy", messages=row["messages"][:-1]
                )
                reply = raw.parse()
                assert reply.choices[0].message.content == stored[row["id"]]
                assert raw.headers["x-understudy-served-by"] == reply.model == "understudy v1"
            pieces = client.chat.completions.create(model="understudy", messages=held[0]["messages"][:-1], stream=True)
            assert "".join(p.choices[0].delta.content or "" for p in pieces) == stored[held[0]["id"]]
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
    assert process.returncode in (0, 143)


def test_untrained_adapter_fails_the_gate_and_registers_nothing(project: Path) -> None:
    before = understudy("runs", "--json", "-C", str(project)).stdout
    result = understudy("run", "--quiet", "--control", "untrained_adapter", "-C", str(project))
    assert result.returncode == 7 and "GATE_FAILED" in result.stderr
    assert "NEGATIVE CONTROL untrained_adapter" in result.stdout
    summary = shown(project)
    assert summary["verdict"]["passed"] is False and summary["version"] is None
    assert summary["control"] == "untrained_adapter"
    assert len(json.loads(understudy("runs", "--json", "-C", str(project)).stdout)) == len(json.loads(before)) + 1


WATCHED = """
traffic: {store: content, consent: assumed}
watch: {min_queries: 40, on_drift: retrain}
serve: {policy: service_first, port: 0}
"""


def test_drift_of_a_served_project_is_seen_and_leads_to_harvest_and_run(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("traffic"))  # others were served before
    with open(folder / "understudy.yaml", "a", encoding="utf-8") as f:
        f.write(WATCHED)
    pairs = [json.loads(line) for line in (folder / "data" / "coverage.jsonl").read_text("utf-8").splitlines()]
    usual = [f"{p['context']}\n\nQuestion: {p['question']}" for p in pairs[:60]]

    def looked() -> str:
        done = understudy("watch", "--once", "-C", str(folder))
        assert done.returncode == 0, done.stderr
        return done.stdout

    serve_and_ask(folder, usual)
    assert "ALARM" not in (first := looked()) and "60 queries against" in first, first
    serve_and_ask(folder, [f"Bake {n} loaves of sourdough at {200 + n} degrees, how long?" for n in range(45)])
    drifted = looked()
    assert "ALARM  drift" in drifted, drifted
    (alert,) = [json.loads(line) for line in (folder / "runs" / "alerts.jsonl").read_text("utf-8").splitlines()]
    assert (alert["kind"], alert["change"], alert["actions"]) == ("drift", "raised", {"harvest": 0, "run": 0})
    (harvested,) = (folder / "data" / "harvest").glob("*.jsonl")
    assert {json.loads(line)["served_by"] for line in harvested.read_text("utf-8").splitlines()} == {"simulated-1"}
    level = json.loads(understudy("traffic", "--json", "-C", str(folder)).stdout)
    assert level["requests"] == 105 and level["answered"] == {"service": 105}


def serve_and_ask(folder: Path, questions: list[str]) -> None:
    """Serve the champion from a process of its own, ask, and stop it orderly."""
    command = [sys.executable, "-m", "understudy", "serve", "-C", str(folder)]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert running.stderr
        url = running.stderr.readline().strip()
        with httpx2.Client(timeout=250, trust_env=False) as client:
            for question in questions:
                reply = client.post(f"{url}/chat/completions", json=ask(question))
                assert reply.status_code == 200 and reply.json()["model"] == "simulated-1", reply.text
    finally:
        running.terminate()
        running.communicate(timeout=60)
