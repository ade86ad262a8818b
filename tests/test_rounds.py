"""When rounds stop, what they gained, and the curve: pure functions, and whole projects on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from thread import SMALL, make_project, one_line, understudy

from understudy.config import ScoreStep
from understudy.core.records import Ledger, digest, read_examples, read_jsonl, write_jsonl
from understudy.curves import table
from understudy.data.subset import subset
from understudy.errors import DataError
from understudy.evals.curve import Curve, render
from understudy.evals.rounds import Money, gain, reached, verdict
from understudy.evals.stats import Interval
from understudy.models.account import spending
from understudy.models.cache import kept

STEP = ScoreStep(who="candidate", round=2, target=0.8, min_gain=0.01, next_rounds=2.0)


def gained(value: float) -> Interval:
    return Interval(value, value - 0.1, value + 0.1, 60)


@pytest.mark.parametrize(
    ("low", "gain", "money", "wanted"),
    [
        (0.8, gained(0.5), None, "target"),
        (0.79, gained(0.0101), None, ""),
        (0.5, gained(0.01), None, "gain"),
        (0.5, gained(-0.2), Money(1, 2, 1, 0), "gain"),
        (0.5, None, Money(limit=10, spent=4, round=2, held=2), ""),
        (0.5, None, Money(limit=9.9, spent=4, round=2, held=2), "budget"),
        (0.5, None, None, ""),
    ],
)
def test_rounds_stop_on_target_gain_or_budget(low: float, gain: Any, money: Any, wanted: str) -> None:
    assert verdict(STEP, reached(STEP, {"low": low, "high": 0.9}), gain, money) == wanted


def test_a_loss_reaches_its_target_from_above_and_a_target_of_one_is_none() -> None:
    loss = STEP.model_copy(update={"metric": "loss", "target": 0.5})
    assert reached(loss, {"low": 0.1, "high": 0.5}) and not reached(loss, {"low": 0.4, "high": 0.51})
    assert not reached(STEP.model_copy(update={"target": 1.0}), {"low": 1.0, "high": 1.0})


def scores(folder: Path, values: list[float], metric: str = "coverage", first: int = 0) -> Path:
    folder.mkdir()
    rows = [{"id": f"e{first + i}", "setting": "greedy", "values": {metric: v}} for i, v in enumerate(values)]
    write_jsonl(folder / "scores.jsonl", rows)
    (folder / "summary.json").write_text(json.dumps({"greedy": {metric: {}}}))
    return folder


def test_a_gain_is_paired_over_what_both_were_asked_and_lower_losses_are_gains(tmp_path: Path) -> None:
    now, before = scores(tmp_path / "now", [1, 1, 1, 0, 1, 1]), scores(tmp_path / "before", [0, 0, 1, 0], first=1)
    found = gain(now, before, "coverage", 0.95)
    assert (found.value, found.n) == (0.5, 4)  # e1..e4: 1 1 0 1 against 0 0 1 0
    a, b = scores(tmp_path / "a", [1.0, 2.0, 1.5], "loss"), scores(tmp_path / "b", [2.0, 2.5, 3.0], "loss")
    assert gain(a, b, "loss", 0.95).value == pytest.approx(1.0)


def test_smaller_parts_lie_within_larger_ones(tmp_path: Path, advisor: Any) -> None:
    advisor.generate(tmp_path)
    rows = [
        {"id": r["id"], "messages": [{"role": "user", "content": r["question"]}], "meta": {}}
        for r in read_jsonl(tmp_path / "coverage.jsonl")
    ]
    write_jsonl(tmp_path / "train.jsonl", rows)
    kept = []
    for n in (10, 40):
        (tmp_path / str(n)).mkdir()
        ledger = subset(n, [tmp_path / "train.jsonl"], tmp_path / str(n))
        assert isinstance(ledger, Ledger) and ledger.balanced and ledger.rows_out == n
        kept.append([e.id for e in read_examples(tmp_path / str(n) / "train.jsonl")])
    assert kept[1][:10] == kept[0] and kept[0] != [r["id"] for r in rows[:10]]
    with pytest.raises(DataError, match="SUBSET_ROWS"):
        subset(10**6, [tmp_path / "train.jsonl"], tmp_path)


EASY = SMALL.replace("rows: 48", "rows: 48, min_yield: 0.1")  # a few requests say little about a teacher
PRICE = "{provider: simulated, model: simulated-1, price: {prompt: 1.0, completion: 4.0}}"


def priced(folder: Path, budget: float) -> Path:
    """The small project with prices for every role, three rounds and a budget; written again, only the budget moves."""
    text = (folder / "understudy.yaml").read_text("utf-8") if folder.exists() else ""
    if not text:
        # Canaries pass the cache by; without them, calls and cached replies are as many.
        make_project(folder, EASY.replace("metric: loss", "metric: coverage") + "canary: {probes: 0}\n")
        text = (folder / "understudy.yaml").read_text("utf-8")
    lines = []
    for line in text.splitlines():
        role = line.split(":")[0]
        line = f"{role}: {PRICE}" if role in ("teacher", "judge", "service") else line
        lines.append(f"loop: {{rounds: 3, min_gain: null, budget: {budget}}}" if role == "loop" else line)
    (folder / "understudy.yaml").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def spent(folder: Path) -> float:
    (file,) = (folder / "runs").glob("*/spending.jsonl")
    return sum(of["cost"] for of in spending(file).values())


@pytest.mark.slow
def test_a_budget_is_never_exceeded_ends_rounds_in_time_and_more_money_carries_on(tmp_path: Path) -> None:
    folder = priced(tmp_path / "advisor", 0.03)
    line = one_line(understudy("run", "--quiet", "-C", str(folder), timeout_s=300), "BUDGET_SPENT", 5)
    assert "teacher" in line and "of the budget of 0.03 is spent" in line and "raise loop.budget" in line
    assert 0.01 < spent(folder) <= 0.03
    replies = {digest(held["request"]) for held in kept(folder / "cache")}
    # Enough for one round and for deciding on held, and for no more rounds: they are skipped, the gate still decides.
    priced(folder, 0.42)
    result = understudy("run", "--quiet", "-C", str(folder), timeout_s=600)
    assert result.returncode in (0, 7), result.stderr[-2000:]
    shown = json.loads(understudy("show", "--json", "-C", str(folder)).stdout)
    assert shown["run"] == "run-0001" and shown["verdict"] is not None
    assert "budget" in [r["stop"] for r in shown["rounds"]] and shown["rounds"][2]["skipped"]
    assert 0.03 < spent(folder) <= 0.42
    # What was answered before the stop was not asked again.
    asked = sum(of["requests"] for of in spending(folder / "runs/run-0001/spending.jsonl").values())
    now = [digest(held["request"]) for held in kept(folder / "cache")]
    assert replies <= set(now) and asked == len(now)


def test_two_points_of_as_many_rows_gain_nothing_that_can_be_told(tmp_path: Path) -> None:
    points = [{"rows": n, "value": v, "low": v - 0.1, "high": v + 0.1, "n": 60} for n, v in ((50, 0.2), (50, 0.3))]
    drawn = Curve("p", "coverage", [*points, {**points[1], "rows": 150, "value": 0.4}], {"target": 0.8}, False)
    render(drawn, tmp_path)
    data = json.loads((tmp_path / "curve.json").read_text())
    assert [g["gain_per_1000_rows"] for g in data["gains"]] == [None, pytest.approx(1.0)]
    assert len(list(table(data))) == 1 + 3 + 1 and "+1.000" in (tmp_path / "curve.html").read_text()


@pytest.mark.slow
def test_the_curve_is_drawn_from_growing_parts_and_a_second_one_costs_nothing(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "advisor", EASY)
    assert "NO_RUN" in understudy("curve", "-C", str(folder)).stderr
    assert understudy("run", "--quiet", "-C", str(folder), timeout_s=600).returncode == 0
    drawn = understudy("curve", "--points", "2", "--json", "--quiet", "-C", str(folder), timeout_s=300)
    data = json.loads(drawn.stdout)
    assert [p["rows"] for p in data["points"]] == [78, 156] and data["metric"] == "loss" and data["simulated"]
    assert data["points"][1]["value"] != data["points"][0]["value"]
    per = 1000 * (data["points"][1]["value"] - data["points"][0]["value"]) / 78
    assert data["gains"] == [{"rows": 156, "gain_per_1000_rows": pytest.approx(per)}]
    before = {p: p.stat().st_mtime_ns for p in (folder / "store").rglob("artifact.json")}
    again = understudy("curve", "--points", "2", "--quiet", "-C", str(folder))
    assert again.returncode == 0 and max(map(len, again.stdout.splitlines()[:-1])) <= 80
    assert {p: p.stat().st_mtime_ns for p in (folder / "store").rglob("artifact.json")} == before
    (page,) = (folder / "store").glob("curve/*/curve.html")
    text = page.read_text("utf-8")
    assert (
        "simulated" in text and "<svg" in text and "156" in text and "http://" not in text.replace("http://www.w3", "")
    )
    for wrong in ("1", "5,x", "0,3"):
        one_line(understudy("curve", "--rows", wrong, "-C", str(folder)), "USAGE", 2)
    shutil.rmtree(folder)
