"""Several verdicts an answer, kept once; judging that stops early; decisions made again without a call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_judge_score import EXAMPLES, example, row, written
from test_service import Reply, _close, chat, client, serving  # noqa: F401  `_close` is a fixture

from understudy.config import GateConfig, ScoreConfig
from understudy.core.records import read_jsonl
from understudy.errors import DataError
from understudy.evals.coverage import item_values
from understudy.evals.judge import NEEDED, PROMPT, Worded
from understudy.evals.looks import plan
from understudy.evals.regate import regate, thresholds
from understudy.evals.score import load_summary, score
from understudy.models.template import Template

Sent = list[dict[str, Any]]


def swaying(request: dict[str, Any], before: int) -> Reply:
    """Grades that depend on the seed: 60, 70, 80, 90; twenty less for an answer that says so."""
    answer = request["messages"][-1]["content"].split("ANSWER (JSON):\n")[1].split("\n")[0]
    grade = 60 + 10 * request["seed"] - (20 if "bad" in answer else 0)
    return chat(json.dumps({"similarity": grade, "precision": 95, "reason": f"seed {request['seed']}"}))


def answers(folder: Path, texts: list[str], samples: int = 1) -> Path:
    rows = [row(e, text, sample=k) for e, text in zip(EXAMPLES, texts, strict=True) for k in range(samples)]
    return written(folder, rows)


def judged(tmp_path: Path, cfg: ScoreConfig, texts: list[str], samples: int = 1) -> tuple[Path, Sent]:
    with serving(swaying) as (server, url):
        model = client(url, temperature=0.7, cache=tmp_path / "cache")
        score(cfg, answers(tmp_path / "answers", texts, samples), EXAMPLES, tmp_path / "scores", judge_model=model)
    return tmp_path / "scores", server.requests


TEXTS = [f"fine {i}" if i < 5 else f"bad {i}" for i in range(8)]


def test_each_verdict_is_asked_for_once_and_the_means_decide(tmp_path: Path) -> None:
    scores, sent = judged(tmp_path, ScoreConfig(scorers=["exact"], verdicts=4), TEXTS, samples=2)
    # Two equal answers of an item are one request a verdict: the judge would say the same of both.
    assert len(sent) == 8 * 4 and {r["seed"] for r in sent} == {0, 1, 2, 3}
    kept = list(read_jsonl(scores / "verdicts.jsonl"))
    assert len(kept) == 8 * 2 * 4 and {(r["sample"], r["verdict"]) for r in kept} == {
        (k, m) for k in range(2) for m in range(4)
    }
    assert {r["similarity"] for r in kept if r["id"] == "e0"} == {60, 70, 80, 90}
    rows = list(read_jsonl(scores / "scores.jsonl"))
    assert rows[0]["values"] | {"exact": 0} == {
        "exact": 0, "coverage": 1, "judge_similarity": 75, "judge_precision": 95,
    }  # fmt: skip
    assert rows[-1]["values"]["coverage"] == 0 and rows[-1]["values"]["judge_similarity"] == 55
    found = load_summary(scores)["greedy"]["coverage"]
    assert (found["value"], found["n"]) == (0.625, 8)


def test_the_reply_is_held_to_a_schema(tmp_path: Path) -> None:
    with serving(lambda r, b: chat('{"similarity": 80, "precision": 80, "reason": ""}')) as (server, url):
        score(ScoreConfig(), answers(tmp_path / "answers", TEXTS), EXAMPLES, tmp_path, judge_model=client(url))
    form = server.requests[0]["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["strict"] is True
    assert form["json_schema"]["schema"]["required"] == ["similarity", "precision", "reason"]


MANY = [example(i) for i in range(60)]


@pytest.mark.parametrize(
    ("good", "outcome", "judged"), [(60, "clears", 20), (0, "cannot", 20), (33, None, 60)], ids=["all", "none", "half"]
)
def test_judging_on_dev_stops_when_the_bar_is_cleared_or_out_of_reach(
    tmp_path: Path, good: int, outcome: str | None, judged: int
) -> None:
    rows = [row(e, f"fine {i}" if i < good else f"bad {i}") for i, e in enumerate(MANY)]

    def grade(request: dict[str, Any], before: int) -> Reply:
        answer = request["messages"][-1]["content"].split("ANSWER (JSON):\n")[1].split("\n")[0]
        value = 20 if "bad" in answer else 90
        return chat(json.dumps({"similarity": value, "precision": value, "reason": "r"}))

    with serving(grade) as (server, url):
        ledger = score(
            ScoreConfig(scorers=["exact"]), written(tmp_path / "answers", rows), MANY, tmp_path / "scores",
            judge_model=Worded(client(url), Template(PROMPT.read_text(), PROMPT.name, NEEDED), stop_at=0.6),
        )  # fmt: skip
    assert plan(60) == [20, 40, 60] and server.hits == judged
    found = load_summary(tmp_path / "scores")["greedy"]["coverage"]
    assert found["n"] == judged == len(list(read_jsonl(tmp_path / "scores/verdicts.jsonl")))
    scored = [r for r in read_jsonl(tmp_path / "scores/scores.jsonl") if "coverage" in r["values"]]
    assert len(scored) == judged and ledger.rows_out == 60
    if outcome:
        assert ledger.notes == {f"judging_stopped:{outcome}": 1, "not_judged": 40}
        assert (found["low"] >= 0.6) == (outcome == "clears") and (found["high"] < 0.6) == (outcome == "cannot")
    else:
        assert not ledger.notes
    # The interval is that of its look, wider than one that was planned alone.
    whole = json.loads((tmp_path / "scores/judging.json").read_text())["confidence"]
    assert whole > 0.95


def held(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    cfg = ScoreConfig(scorers=["exact"], verdicts=4)
    return {
        who: (judged(tmp_path / who, cfg, texts)[0], "greedy")
        for who, texts in (("candidate", TEXTS), ("base", [f"bad {i}" for i in range(8)]))
    }


def test_other_thresholds_decide_anew_and_change_nothing(tmp_path: Path) -> None:
    given = held(tmp_path)
    before = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file() and "scores" in f.parts}
    rules = GateConfig(bar=0.5, must_beat=["base"])
    found = {}
    for similarity in (55, 70, 76):
        out = tmp_path / f"at-{similarity}"
        out.mkdir()
        found[similarity] = regate(rules, given, similarity, 70, out, champion=False, blocks={})["held"]
    assert thresholds(given["candidate"][0]) == (70, 70)
    rates = {k: (v["candidate"]["coverage"]["value"], v["base"]["coverage"]["value"]) for k, v in found.items()}
    assert rates == {55: (1.0, 1.0), 70: (0.625, 0.0), 76: (0.0, 0.0)}
    kept = list(read_jsonl(given["candidate"][0] / "verdicts.jsonl"))
    assert sum(item_values(kept, 70, 70).values()) == 5
    assert {f: f.read_bytes() for f in before} == before


def test_scores_without_verdicts_cannot_be_decided_again(tmp_path: Path) -> None:
    score(ScoreConfig(scorers=["exact"]), answers(tmp_path / "answers", TEXTS), EXAMPLES, tmp_path / "scores")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="NO_VERDICTS"):
        regate(GateConfig(), {"candidate": (tmp_path / "scores", "greedy")}, 70, 70, tmp_path / "out",
               champion=False, blocks={})  # fmt: skip
