"""A task without reference answers: requests from a template, decoding chosen on dev, floors, a mirror in MLflow."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from test_chat_pack import tiny_model
from thread import one_line, understudy

from understudy.config import PromptsConfig, PromptsStep
from understudy.core.records import read_examples, read_jsonl
from understudy.data.prompts import days, prompts, requests
from understudy.errors import DataError
from understudy.registry import Registry

SIGNS = ["Овен", "Телец", "Рак"]
PROJECT = """
version: 1
name: forecasts
sources:
  - {path: data/rows.jsonl, fields: {prompt: q, response: a, category: sign}, licence: CC0-1.0}
base: {path: base}
split: {test: 0.0, validation: 0.1}
prompts:
  template: "Прогноз для знака {sign} на {date}."
  values: {sign: [Овен, Телец, Рак]}
  category: sign
  date_format: "%d.%m.%Y"
  dev_days: 2
  held_days: 8
train: {max_steps: 4}
answer: {max_new_tokens: 12, samples: 2, grid: [{temperature: 0.7, top_p: 0.9}, {temperature: 0}]}
score: {scorers: [sentiment]}
gate: {metric: sentiment, bar: null, floors: {sentiment: 1.0}, must_beat: []}
"""


def step(**values: Any) -> PromptsStep:
    settings = {"template": "For {sign} on {date}", "values": {"sign": SIGNS}, "as_of": "2026-02-27", **values}
    return PromptsStep(**settings)


def test_dev_and_held_ask_about_different_days_on_both_sides_of_the_run(tmp_path: Path) -> None:
    cfg = step(category="sign", dev_days=3, held_days=2, date_format="%d.%m.%Y", max_answer_chars=500)
    assert [d.isoformat() for d in days(cfg, "dev")] == ["2026-02-25", "2026-02-26", "2026-02-27"]
    assert [d.isoformat() for d in days(cfg, "held")] == ["2026-02-28", "2026-03-01"]
    for split, count in (("dev", 9), ("held", 6)):
        ledger = prompts(cfg, split, tmp_path)  # type: ignore[arg-type]
        rows = read_examples(tmp_path / f"{split}.jsonl")
        assert ledger.rows_out == len(rows) == count and ledger.balanced
        assert Counter(r.meta["category"] for r in rows) == dict.fromkeys(SIGNS, count // 3)
        assert all(r.answer is None and len(r.messages) == 1 for r in rows)
    assert rows[0].messages[0]["content"] == "For Овен on 28.02.2026" and rows[0].meta["answer_chars"] == [0, 500]


def test_requests_without_a_day_are_divided_and_never_shared() -> None:
    cfg = step(template="Forecast for {sign}, {mood}", values={"sign": SIGNS, "mood": ["short", "long"]})
    dev, held = ({r.id for r in requests(cfg, split)} for split in ("dev", "held"))
    assert len(dev) == len(held) == 3 and not dev & held


def test_one_request_cannot_be_divided(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="SPLIT_EMPTY"):
        prompts(step(template="Only {sign}", values={"sign": ["Овен"]}), "dev", tmp_path)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"template": "no placeholder", "values": {}}, "has no placeholder"),
        ({"template": "For {sgin}"}, "names {sgin}, which `values` lacks"),
        ({"template": "On {date}"}, "does not use {sign}"),
        ({"template": "For {sign"}, "the template is broken"),
        ({"values": {"sign": SIGNS, "date": ["x"]}}, "`date` is the day itself"),
        ({"category": "mood"}, "`category` is no placeholder"),
    ],
)
def test_a_template_and_its_values_must_fit(values: dict[str, Any], why: str) -> None:
    given = {"template": "For {sign} on {date}", "values": {"sign": SIGNS}, **values}
    with pytest.raises(ValidationError, match=why):
        PromptsConfig(**given)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose base is a random tiny model: what it says does not matter here."""
    folder = tmp_path_factory.mktemp("forecasts")
    tiny_model(folder / "base" / "model", tied=True, seed=1)
    (folder / "data").mkdir()
    rows = [
        {"q": f"Прогноз для знака {sign} на {day:02}.02.2026.", "a": f"День {sign} хорош, {day} раз.", "sign": sign}
        for sign in SIGNS
        for day in range(1, 21)
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "data" / "rows.jsonl").write_text(text, "utf-8")
    (folder / "understudy.yaml").write_text(PROJECT.replace("path: base", "path: base/model"), "utf-8")
    done = understudy("run", "-C", str(folder), "--quiet")
    assert done.returncode == 0, done.stderr
    return folder


def shown(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(understudy("show", "-C", str(folder), "--json").stdout)
    return value


@pytest.mark.slow
def test_the_best_decoding_on_dev_answers_held_and_travels_with_the_release(project: Path) -> None:
    summary = shown(project)
    assert {r["setting"] for r in summary["decoding"]} == {"t=0.7,p=0.9", "greedy"}
    chosen = next(r for r in summary["decoding"] if r["chosen"])
    best = max(r["dev"]["sentiment"]["value"] for r in summary["decoding"])
    assert chosen["dev"]["sentiment"]["value"] == best and chosen["seconds_per_answer"] > 0
    assert set(chosen["by_category"]) == set(SIGNS)
    answers = next((project / "store" / "answer-held-candidate").glob("*/answers.jsonl"))
    rows = list(read_jsonl(answers))
    assert {r["setting"] for r in rows} == {chosen["setting"]} and len({r["id"] for r in rows}) == 24
    release = json.loads(next((project / "store" / "register").glob("*/release.json")).read_text("utf-8"))
    wanted = {"greedy": (0.0, 1.0), "t=0.7,p=0.9": (0.7, 0.9)}[chosen["setting"]]
    assert (release["decoding"]["temperature"], release["decoding"]["top_p"]) == wanted
    assert [r["name"] for r in summary["verdict"]["rules"]] == ["floor sentiment"]


@pytest.mark.slow
def test_the_report_shows_every_setting_and_all_texts(project: Path) -> None:
    page = next((project / "store" / "report").glob("*/report.html")).read_text("utf-8")
    assert 'id="decoding"' in page and "t=0.7,p=0.9" in page and "6 requests under 2 settings" in page
    assert "<dt>Reference</dt>" not in page and "Sentiment reaches its floor" in page


@pytest.mark.slow
def test_averages_and_texts_are_in_mlflow_once_however_often_they_are_written(project: Path) -> None:
    again = understudy("track", "-C", str(project))
    assert again.returncode == 0, again.stderr
    registry = Registry(project, "understudy")
    client = registry.client()
    experiment = registry.experiment(client)
    found = client.search_runs([experiment], "tags.`understudy.run` = 'run-0001'")
    by_setting = {r.data.tags["understudy.setting"]: r for r in found}
    assert len(found) == 3 and set(by_setting) == {"", "greedy", "t=0.7,p=0.9"}
    summary = shown(project)
    assert by_setting[""].data.metrics["held_sentiment"] == pytest.approx(
        summary["held"]["candidate"]["sentiment"]["value"]
    )
    assert by_setting[""].data.params["train.max_steps"] == "4"
    for setting in ("greedy", "t=0.7,p=0.9"):
        texts = Path(client.download_artifacts(by_setting[setting].info.run_id, "texts.jsonl")).read_text("utf-8")
        rows = [json.loads(line) for line in texts.splitlines()]
        assert len(rows) == 6 and all(set(r) == {"question", "category", "text", "values"} for r in rows)


@pytest.mark.slow
def test_without_a_judge_there_is_no_sheet_for_people(project: Path) -> None:
    one_line(understudy("calibrate", "--sheet", "10", "-C", str(project)), "NO_VERDICTS", 3)


@pytest.mark.slow
def test_what_changed_within_a_run_does_not_keep_it_out_of_mlflow(project: Path) -> None:
    """MLflow refuses another value of a parameter; a run that goes on with more money has one."""
    config = project / "understudy.yaml"
    before = config.read_text("utf-8")
    assert "max_steps: 4" in before
    config.write_text(before.replace("max_steps: 4", "max_steps: 5"), "utf-8")
    try:
        again = understudy("track", "-C", str(project))
    finally:
        config.write_text(before, "utf-8")
    assert again.returncode == 0, again.stderr
    registry = Registry(project, "understudy")
    client = registry.client()
    (run,) = client.search_runs([registry.experiment(client)], "tags.`understudy.setting` = ''")
    assert run.data.params["train.max_steps"] == "4" and run.data.tags["now.train.max_steps"] == "5"
