"""Who answered goes from the replies through artifacts to the model card; stages run as they are, against real HTTP."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from test_judge_score import EXAMPLES, grades, right, row, written
from test_service import Reply, _close, chat, client, serving  # noqa: F401  `_close` is a fixture
from test_synthesize import DOCUMENTS, SEEDS

from understudy import config as c
from understudy import stages
from understudy.core.artifact import Answers, Base, Checkpoint, Dataset, Guard, HeldSet
from understudy.core.records import digest, read_examples, write_jsonl
from understudy.data.splits.guard import build, save
from understudy.evals.judge import PROMPT as JUDGE
from understudy.models.simulated import SimulatedService
from understudy.models.tiny import BASE_DIR
from understudy.provenance import merged, on_card

KEY = "sk-test-0123456789-not-to-be-seen"


def examples(path: Path, rows: list[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, [r.to_json() for r in rows])  # type: ignore[attr-defined]
    return path.parent


def synthesized(folder: Path) -> Dataset:
    with SimulatedService() as service:
        teacher = c.ServiceConfig(base_url=service.base_url)
        cfg = c.SynthesizeStep(rows=4, rows_per_call=2, seeds_per_call=3, teacher=teacher)
        data = examples(folder / "data" / "seed.jsonl", list(SEEDS))
        examples(data / "documents.jsonl", list(DOCUMENTS))
        (folder / "guard").mkdir()
        save(build([], 8, 0.5), folder / "guard")
        made = stages.synthesize(cfg, Dataset(data), Guard(folder / "guard"), [], None, folder / "written")
    assert isinstance(made, Dataset)
    return made


def moving(request: dict, before: int) -> Reply:
    """The judge of another test, whose version moves with the answer that it is shown."""
    reply = grades(request, before)
    first = "e0" in request["messages"][-1]["content"] or "C100" in request["messages"][-1]["content"]
    return Reply(reply.body | {"system_fingerprint": "j-1" if first else "j-2"})


def test_every_version_and_template_reaches_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    rounds = synthesized(tmp_path)
    held = HeldSet(examples(tmp_path / "held" / "held.jsonl", list(EXAMPLES)))
    answers = Answers(written(tmp_path / "answers", [row(e, right(e)) for e in EXAMPLES]))
    with serving(moving) as (_, url):
        judge = c.ServiceConfig(
            provider="openai", model="judge-x", base_url=url, api_key="${env:JUDGE_KEY}", temperature=0.5
        )
        scored = stages.score_held(c.ScoreStep(who="candidate", judge=judge), answers, held, tmp_path / "scores")
    assert scored.facts["judge"]["versions"] == ["j-1", "j-2"] and scored.ledger is not None
    assert scored.ledger.notes["service_versions"] == 2
    assert scored.facts["judge"]["template"] == digest(JUDGE.read_text("utf-8"))

    (tmp_path / "verdict").mkdir()
    verdict = stages.gate(c.GateStep(must_beat=[]), scored, [], None, None, [], tmp_path / "verdict")
    shutil.copytree(BASE_DIR, tmp_path / "checkpoint" / "model")
    settings = c.RegisterStep(teacher=c.ServiceConfig(provider="gemini", model="g"), judge=judge)
    checkpoint, base = Checkpoint(tmp_path / "checkpoint"), Base(tmp_path)
    release = stages.register(
        settings, verdict, checkpoint, base, [Dataset(tmp_path), rounds], None, tmp_path / "release"
    )
    card = (release.path / "MODEL_CARD.md").read_text("utf-8")
    assert "reported versions, for it moved during the run: j-1, j-2" in card and "temperature 0.5" in card
    (version,) = rounds.facts["teacher"]["versions"]
    (wording,) = {e.meta["template"] for e in read_examples(rounds.path / "train.jsonl")}
    assert version and f"reported version: {version}" in card and wording[:12] in card
    assert "https://ai.google.dev/gemini-api/terms; the service may not be used" in card
    assert "write" not in card.split("Judge:")[1].split("Service:")[0] and KEY not in card and "JUDGE_KEY" not in card


def test_several_steps_are_one_role() -> None:
    one = {"model": "m", "versions": ["a", "b"], "template": "t1", "sampling": {"top_p": 1.0}}
    other = {"model": "m", "versions": ["b", "c"], "template": "t2", "sampling": {"top_p": 1.0}}
    both = merged([None, one, other])
    assert both["versions"] == ["a", "b", "c"] and both["templates"] == ["t1", "t2"] and "template" not in both
    assert merged([both, one]) == both and merged([None, {}]) == {}
    assert on_card(None) is None
    assert "env:K" not in json.dumps(on_card(c.ServiceConfig(provider="mistral", api_key="${env:K}")))
