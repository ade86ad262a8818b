"""What a plan will need: the arithmetic by hand, and a real round of synthesis against its forecast."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from thread import make_project, make_tiny, understudy

import understudy.stages as _stages  # noqa: F401  (declares what plans name)
from understudy.config import Price, ServiceConfig, SourceConfig, SplitConfig, TrainConfig
from understudy.core.artifact import Artifact
from understudy.core.machine import forget_peak, peak_memory_mb
from understudy.core.plan import Plan
from understudy.core.records import Document, Example
from understudy.core.runner import Runner
from understudy.data.sources.peek import peek
from understudy.forecast import effort, memory, quantities, speech
from understudy.forecast.compare import compare, row
from understudy.forecast.effort import Shape, Work
from understudy.forecast.figures import Figure, Need, add
from understudy.forecast.people import prompts
from understudy.forecast.predict import Forecast, Predicted
from understudy.forecast.rows import Rows, divide
from understudy.forecast.seen import Lessons
from understudy.forecast.table import lines
from understudy.models.account import spending
from understudy.project import Project
from understudy.train.sft import schedule

USER = {"role": "user", "content": "Who?"}
TINY = Shape(parameters=1_000, layers=2, hidden=10)


class Quiet:
    def started(self, step: Any, index: int, total: int) -> None: ...
    def progress(self, step: Any, done: int, total: int, values: dict[str, float]) -> None: ...
    def finished(self, step: Any, artifact: Artifact, seconds: float, state: str) -> None: ...


def pair(i: int, answer: str = "Ada.") -> Example:
    return Example(f"e{i}", [USER, {"role": "assistant", "content": answer}], {"category": "who"})


def test_a_sum_is_as_sure_as_its_least_sure_part_and_nothing_adds_no_doubt() -> None:
    counted, guessed = Figure(3), Figure(4, "guess")
    assert counted + guessed == Figure(7, "guess")
    assert counted + Figure(0, "guess") == counted and Figure(0, "guess") + counted == counted
    assert counted.times(Figure(2, "measured")) == Figure(6, "measured")
    one = Need(rows=Figure(10), calls=Figure(5), memory_mb=Figure(100))
    two = Need(rows=Figure(4), calls=Figure(1), memory_mb=Figure(300, "guess"))
    both = add([one, two])
    assert (both.rows, both.calls, both.memory_mb) == (Figure(10), Figure(6), Figure(300, "guess"))


def test_coverage_pairs_become_seed_dev_and_held_and_documents_stay_out_of_the_shares() -> None:
    corpus = Rows(Figure(100), [Document("d", "text"), *(pair(i) for i in range(3))])
    parts = divide(SplitConfig(seed_pairs=20, dev_pairs=30, validation=0.1), corpus, Rows(Figure(90), [pair(1)]))
    counts = {name: part.count.value for name, part in parts.parts.items()}
    assert counts == {"documents": 25, "seed": 20, "dev": 30, "held": 40, "validation": 8, "train": 67}
    few = divide(SplitConfig(seed_pairs=20, dev_pairs=30), corpus, Rows(Figure(25), [pair(1)]))
    assert few["dev"].count.value == 25 and few["held"].count.value == 0


def test_rows_beyond_the_first_are_told_from_the_bytes_that_are_left(tmp_path: Path) -> None:
    for name, rows in (("a", 300), ("b", 100)):
        lines = (json.dumps({"q": f"What is {i:04}?", "a": f"{i:04}"}) + "\n" for i in range(rows))
        (tmp_path / f"{name}.jsonl").write_text('not a row\n{"q": [], "a": {}}\n' + "".join(lines))
    source = SourceConfig.model_validate({"path": "*.jsonl", "fields": {"prompt": "q", "response": "a"}})
    some, count, counted = peek(source, tmp_path, 1000)
    assert (len(some), count, counted) == (400, 400, True), "bad rows are passed over"
    some, count, counted = peek(source, tmp_path, 100)
    assert len(some) == 100 and count == pytest.approx(400, rel=0.02) and not counted
    bucket = SourceConfig.model_validate({"path": "s3://bucket/rows.jsonl", "fields": {"prompt": "q", "response": "a"}})
    assert peek(bucket, tmp_path, 100) == ([], 0, False), "nothing is read that costs"


def test_without_a_coverage_set_the_test_split_is_held() -> None:
    parts = divide(SplitConfig(validation=0.1, test=0.2), Rows(Figure(50), [pair(1)]), None)
    counts = {name: part.count.value for name, part in parts.parts.items()}
    assert counts == {"documents": 0, "held": 10, "validation": 5, "train": 35}


@pytest.mark.parametrize(
    ("kept", "calls"), [(1.0, 60), (0.5, 120), (0.55, 110), (0.1, 240), (2.0, 60)]
)  # 240 rows, 4 a call: never fewer than the quota needs, never more than four times as many
def test_a_poor_yield_costs_requests_up_to_a_cap(kept: float, calls: int) -> None:
    assert quantities.teacher_calls(240, 4, kept) == calls


def test_verdicts_and_rubrics_multiply_the_judges_calls() -> None:
    assert quantities.judge_calls(100, 3, True, 1.0) == 400
    assert quantities.judge_calls(60, 1, False, 0.7) == 42
    assert quantities.new_answers("score-dev-2", "openai", 1) == 1.0, "a rented judge: an upper end"


def test_bias_prompts_are_a_question_as_it_is_and_once_for_each_group() -> None:
    from understudy.data.counterfactual.entities import Query

    asked = [Query("style", "How does {name} teach?", "en"), Query("who", "Is {name} {group}?", "en")]
    asked.append(Query("style", "Как учит {name}?", "ru"))
    assert prompts(["en", "en", "ru"], asked, {"en": [2, 3], "ru": [2]}) == 2 * (6 + 5) + 3


def test_tokens_come_from_bytes_once_a_service_has_shown_how_it_counts() -> None:
    chats = [[{"role": "user", "content": "ä" * 40}], [{"role": "user", "content": "a" * 60}]]
    # 16 bytes for each turn's marks, 80 and 60 bytes of text, a quarter of a token a byte.
    assert speech.tokens(chats, None, Figure(0.25, "measured"), len) == Figure((96 + 76) / 2 / 4, "measured")
    assert speech.tokens(chats, None, None, len) == Figure(50, "guess")


def test_money_is_tokens_by_price() -> None:
    service = ServiceConfig(price=Price(prompt=2.0, completion=8.0))
    call = speech.Call(Figure(1000, "measured"), Figure(500, "guess"))
    assert speech.money(service, Figure(10), call) == Figure(0.06, "guess")
    assert speech.money(ServiceConfig(), Figure(10), call) == Figure(0.0)


@pytest.mark.parametrize("settings", [{}, {"epochs": 0.3}, {"max_steps": 7}, {"rows_per_step": 5}, {"epochs": 0}])
def test_optimizer_steps_are_those_of_the_schedule(settings: dict[str, Any]) -> None:
    cfg = TrainConfig.model_validate(settings)
    given = effort.optimizer_steps(64, cfg.epochs, cfg.max_steps, cfg.rows_per_step)
    assert given == len(schedule(cfg, 64).steps)


def test_operations_by_hand() -> None:
    assert TINY.forward(100, 20) == 2 * 1_000 * 100 + 4 * 2 * 10 * 100 * 20
    assert effort.training(TINY, "full", 100, 20) == 4 * TINY.forward(100, 20)
    passes, steps = effort.answering(TINY, answers=10, prompt_tokens=20, reply_tokens=5, batch=4)
    assert passes == TINY.forward(400, 20) + TINY.forward(50, 1)
    assert steps == 3 * effort.LONGEST * 5


def test_seconds_are_corrected_by_what_like_work_has_taken() -> None:
    work = Work("train", operations=1e9)
    assert work.seconds(1e9) == effort.FIXED_S["train"] + 1
    half = Work("train", operations=5e8)
    found = effort.corrected(work, [(half, 2 * half.seconds(1e9))], 1e9)
    assert found.origin == "measured" and math.isclose(found.value, 2 * work.seconds(1e9))
    assert effort.corrected(work, [], 1e9, probed=5e8) == Figure(work.seconds(5e8), "measured")
    assert effort.corrected(work, [], 1e9).origin == "guess"


def test_a_limit_a_minute_sets_the_time_where_it_is_the_slower_one() -> None:
    free = effort.calling(ServiceConfig(concurrency=4), 120, 100, 50)
    slow = effort.calling(ServiceConfig(concurrency=4, requests_per_minute=60), 120, 100, 50)
    tokens = effort.calling(ServiceConfig(concurrency=4, tokens_per_minute=1_000), 120, 100, 50)
    assert free < 2 and slow == 120 and tokens == 60 * 120 * 150 / 1_000


def test_memory_by_hand() -> None:
    assert (
        memory.answering(TINY, 2, 100) == (4 * (1_000 + (4 + memory.READING) * 10 * 200) + memory.MASK * 20_000) / 1e6
    )
    assert memory.peak("train", 50, 0, []).value == memory.TORCH_MB + 50
    assert memory.peak("gate", 0, 900, []).value == 900, "a process gives little back"
    assert memory.peak("train", 50, 900, [700.0]) == Figure(700, "measured")


def test_the_peak_of_memory_is_this_process_and_can_be_forgotten() -> None:
    size = 200_000_000
    before = peak_memory_mb()
    block = bytearray(size)
    del block
    assert peak_memory_mb() >= before + 150
    if Path("/proc/self/clear_refs").exists():
        forget_peak()
        assert peak_memory_mb() < before + 100


def test_every_line_fits_80_columns_whatever_the_figures() -> None:
    many, large = Figure(9.87e8, "guess"), Figure(9.87e8, "guess")
    need = Need(many, many, many, many, Figure(123_456.7, "guess"), Figure(9e6, "guess"), large, large)
    steps = [Predicted("answer-held-candidate", "answer_held", "held", False, need)]
    steps += [Predicted("collect-a-site-of-a-long-name-2026-11-21", "collect_web", "data", False, need)]
    for each in (True, False):
        printed = list(lines(Forecast(steps), steps=each))
        assert max(map(len, printed)) <= 80, printed
        assert printed[-1] == "2 steps, 0 done, 2 to run"


def test_off_is_a_share_of_what_was_used() -> None:
    assert row("calls", 110, 100).off == pytest.approx(0.1)
    assert row("calls", 5, 0).off is None and row("calls", 5, 0).texts()[2] == "-"


def test_a_broken_forecast_is_no_table(tmp_path: Path) -> None:
    assert compare(tmp_path, []) == []
    (tmp_path / "forecast.json").write_text('{"steps": [{"na')
    assert compare(tmp_path, []) == []


PRICED = """
teacher: {provider: simulated, model: simulated-1, price: {prompt: 2, completion: 8}}
judge: {provider: simulated, model: simulated-1, price: {prompt: 1, completion: 4}}
synthesize: {rows: 120}
"""


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The course advisor with prices, nothing run yet."""
    return make_project(tmp_path_factory.mktemp("forecast") / "advisor", PRICED)


def up_to(project: Project, stage: str) -> tuple[Plan, Path]:
    """Run a new run's steps until the first of a stage is done; its plan and its folder."""
    run, plan, _ = project.open_run(new=True, control=None)
    runner = Runner(project.root, project.store, run.journal, Quiet())
    for step in plan.steps:
        runner.run_step(step)
        if step.stage == stage:
            return plan, run.path
    raise AssertionError(stage)


def foretold(run: Path, name: str) -> dict[str, float]:
    steps = json.loads((run / "forecast.json").read_text("utf-8"))["steps"]
    found = next(s for s in steps if s["name"] == name)
    return {key: value["value"] for key, value in found.items() if isinstance(value, dict)}


def megabytes(project: Project, plan: Plan, name: str) -> float:
    step = next(s for s in plan.steps if s.name == name)
    folder = project.store.address(step.name, step.fingerprint)
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6


def test_a_round_of_synthesis_costs_what_was_foretold(priced: Path) -> None:
    project = Project(priced)
    plan, run = up_to(project, "pack")
    for step in ("synthesize-1", "pack-1"):
        assert foretold(run, step)["disk_mb"] == pytest.approx(megabytes(project, plan, step), rel=0.25), step
    told, spent = foretold(run, "synthesize-1"), spending(run / "spending.jsonl")["teacher"]
    for key, used in (("calls", "requests"), ("prompt_tokens",) * 2, ("completion_tokens",) * 2, ("money", "cost")):
        assert told[key] == pytest.approx(spent[used], rel=0.25), (key, "from guesses")
    # What that round has shown makes the next forecast, of other seeds and requests, a better one.
    config = priced / "understudy.yaml"
    config.write_text(config.read_text("utf-8").replace("split: {", "split: {seed: 3, "), "utf-8")
    again = Project(priced)
    plan, second = up_to(again, "pack")
    for step in ("synthesize-1", "pack-1"):
        assert foretold(second, step)["disk_mb"] == pytest.approx(megabytes(again, plan, step), rel=0.05), step
    told, spent = foretold(second, "synthesize-1"), spending(second / "spending.jsonl")["teacher"]
    for key, used in (("calls", "requests"), ("prompt_tokens",) * 2, ("completion_tokens",) * 2, ("money", "cost")):
        assert told[key] == pytest.approx(spent[used], rel=0.15), (key, "from the first round")
    origins = json.loads((second / "forecast.json").read_text())["steps"]
    mine = next(s for s in origins if s["name"] == "synthesize-1")
    assert mine["prompt_tokens"]["origin"] == "measured" and mine["seconds"]["origin"] == "measured"


def test_what_is_done_needs_nothing_and_lessons_come_from_finished_steps(priced: Path) -> None:
    project = Project(priced)
    plan, _ = up_to(project, "split")
    found = {s.name: s for s in project.forecast(plan).steps}
    assert found["split"].done and found["split"].need == Need()
    assert not found["train-1"].done and found["train-1"].need.seconds.value > 1
    assert Lessons.of(project.store, [r.path for r in project.runs()]).seen
    rows = found["answer-held-base"].need.rows
    assert rows.value == pytest.approx(120, abs=8) and rows.origin == "guess"


def test_the_command_foretells_by_group_by_step_and_as_json(tmp_path: Path) -> None:
    project = make_tiny(tmp_path)
    shown = understudy("plan", "-C", str(project)).stdout.splitlines()
    assert shown[0].split() == ["rows", "calls", "tokens", "in", "out", "money", "time", "memory", "disk"]
    assert [line.split()[0] for line in shown[1:4]] == ["data", "round", "held"], shown
    steps = understudy("plan", "--steps", "-C", str(project)).stdout.splitlines()
    listed = understudy("plan", "--list", "-C", str(project)).stdout.splitlines()
    assert len(steps) > len(shown) and listed[-1] == steps[-1] == shown[-1]
    value = json.loads(understudy("plan", "--json", "-C", str(project)).stdout)
    assert value["total"]["calls"] == {"value": 0.0, "origin": "counted"}
    assert {s["name"] for s in value["steps"]} == {line.split()[1] for line in listed[:-1]}


def test_a_finished_run_shows_what_was_foretold_beside_what_it_used(tmp_path: Path) -> None:
    project = make_tiny(tmp_path)
    assert understudy("run", "--quiet", "-C", str(project)).returncode in (0, 7)
    shown = understudy("show", "-C", str(project)).stdout
    assert "needed" in shown and "peak memory" in shown and all(len(line) <= 80 for line in shown.splitlines()[:-1])
    rows = {r["what"]: r for r in json.loads(understudy("show", "--json", "-C", str(project)).stdout)["forecast"]}
    assert rows.keys() == {"time", "peak memory", "disk"} and rows["time"]["actual"] > 0
    page = (project / "runs" / "run-0001" / "report.html").read_text("utf-8")
    assert "peak memory" in page and "Off by" in page
