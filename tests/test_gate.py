"""The gate passes what is shown to be better on the same items, and says how sure that is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from understudy.config import GateConfig
from understudy.core.records import write_jsonl
from understudy.errors import ConfigError, IntegrityError
from understudy.evals.gate import decide
from understudy.evals.release import write_release


def scores(folder: Path, covered: list[int], *, setting: str = "greedy", first: int = 0) -> tuple[Path, str]:
    """Scores of items whose coverage is given; loss falls as coverage rises."""
    rows = [
        {"id": f"i{first + i:03}", "setting": setting, "sample": 0, "values": {"coverage": c, "loss": 2.0 - c}}
        for i, c in enumerate(covered)
    ]
    # Another setting in the same file must not leak into the numbers.
    rows += [{**row, "setting": "k=9", "values": {"coverage": 0, "loss": 9.0}} for row in rows]
    write_jsonl(folder / "scores.jsonl", rows)
    return folder, setting


@pytest.fixture
def held(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    return {
        "candidate": scores(tmp_path / "c", [1] * 90 + [0] * 10),
        "base": scores(tmp_path / "b", [0] * 100),
        "few_shot": scores(tmp_path / "f", [1, 0] * 50, setting="k=4"),
    }


def verdict(held: dict[str, tuple[Path, str]], tmp_path: Path, control: str | None = None, **settings: object) -> dict:
    champion = "champion" in held
    return decide(GateConfig(**settings), held, tmp_path, champion=champion, control=control)


def failed(found: dict) -> list[str]:
    return [rule["name"] for rule in found["rules"] if not rule["passed"]]


def test_a_clearly_better_candidate_passes_and_the_text_says_how_sure(held, tmp_path) -> None:
    found = verdict(held, tmp_path)
    assert found["passed"] and failed(found) == []
    assert json.loads((tmp_path / "verdict.json").read_text()) == found
    bar, base, few_shot, champion = found["rules"]
    assert bar["bar"] == 0.6 and 0.82 < bar["low"] < 0.9 < bar["high"]
    assert "one-sided error rate 2.5 % per comparison" in base["text"]
    assert few_shot["value"] == pytest.approx(0.4) and few_shot["low"] > 0
    assert champion["text"] == "none yet" and champion["value"] is None
    assert found["differences"]["candidate-few_shot"]["loss"]["value"] == pytest.approx(-0.4)
    assert found["held"]["base"]["coverage"]["n"] == 100
    assert found["settings"]["few_shot"] == "k=4"


def test_the_lower_end_must_reach_the_bar_not_the_value(held, tmp_path) -> None:
    held["candidate"] = scores(tmp_path / "c", [1] * 65 + [0] * 35)
    found = verdict(held, tmp_path, must_beat=["base"])
    assert found["rules"][0]["value"] > 0.6 and failed(found) == ["bar"] and not found["passed"]
    assert verdict(held, tmp_path, must_beat=["base"], bar=None)["passed"]


def test_floors_are_bars_on_further_metrics_in_their_own_direction(held, tmp_path) -> None:
    found = verdict(held, tmp_path, floors={"loss": 1.2})
    floor = next(rule for rule in found["rules"] if rule["name"] == "floor loss")
    assert found["passed"] and floor["metric"] == "loss" and floor["high"] <= 1.2 and "its upper end" in floor["text"]
    assert failed(verdict(held, tmp_path, floors={"loss": 1.0})) == ["floor loss"]
    with pytest.raises(ConfigError, match="gate.floors: 'chrf' was not scored"):
        verdict(held, tmp_path, floors={"chrf": 0.1})


def test_a_difference_that_may_be_chance_is_no_win(held, tmp_path) -> None:
    held["champion"] = scores(tmp_path / "h", [1] * 88 + [0] * 12)
    found = verdict(held, tmp_path)
    assert failed(found) == ["beats champion"]
    assert "not above zero" in found["rules"][3]["text"]


def test_lower_loss_wins(held, tmp_path) -> None:
    assert verdict(held, tmp_path, metric="loss", bar=None)["passed"]
    held["candidate"], held["base"] = held["base"], held["candidate"]
    assert failed(verdict(held, tmp_path, metric="loss", bar=None)) == ["beats base", "beats few_shot"]


def test_other_items_are_refused(held, tmp_path) -> None:
    held["base"] = scores(tmp_path / "b", [0] * 100, first=1)
    with pytest.raises(IntegrityError, match="base and candidate differ in 2 items, e.g. 'i000'"):
        verdict(held, tmp_path)


def test_a_champion_cannot_be_left_out(held, tmp_path) -> None:
    with pytest.raises(IntegrityError, match="champion was not scored"):
        decide(GateConfig(), held, tmp_path, champion=True, control=None)


def test_an_unknown_metric_lists_the_known_ones(held, tmp_path) -> None:
    with pytest.raises(ConfigError, match="choose one of: coverage, loss"):
        verdict(held, tmp_path, metric="vibes")


def test_a_negative_control_is_labelled_and_its_release_is_not_passed(held, tmp_path) -> None:
    found = verdict(held, tmp_path, control="wrong answers")
    assert found["passed"] and found["control"] == "wrong answers"
    released = release(tmp_path, found)
    assert released["passed"] is False and released["control"] == "wrong answers"
    assert "Negative control" in (tmp_path / "release" / "MODEL_CARD.md").read_text()


def release(tmp_path: Path, found: dict) -> dict:
    model = tmp_path / "checkpoint" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    service = {
        "provider": "simulated",
        "model": "sim|1",
        "api_key": "sk-canary",
    }
    teacher = {
        **{"provider": "mistral", "model": "m-1", "api_key": "sk-canary", "versions": ["fp|1", "fp_2"]},
        "sampling": {"temperature": None, "max_tokens": 512, "top_p": 1.0},
        "templates": ["0123456789abcdef"],
        "terms": {"training": "unrestricted", "url": "https://x.example/terms", "says": "it may", "read": "2026-11-21"},
    }
    card = {
        "name": "advisor",
        "teacher": teacher,
        "judge": service | {"versions": ["v1"], "terms": {"training": "none"}},
        "service": service,
        "licences": ["CC-BY-4.0"],
        "decoding": {"max_new_tokens": 64, "temperature": 0.0, "top_p": 1.0, "shots": [1]},
        "base": {"digest": "abc"},
        "training": {"epochs": 4},
        "data": {"rows_in": 9, "rows_out": 8, "rejected": {"empty": 1}},
    }
    write_release(tmp_path / "release", checkpoint=tmp_path / "checkpoint", verdict=found, card=card)
    return json.loads((tmp_path / "release" / "release.json").read_text())


def test_a_release_carries_digests_card_and_numbers_and_no_secret(held, tmp_path) -> None:
    released = release(tmp_path, verdict(held, tmp_path))
    assert released["passed"] and set(released["files"]) == {"MODEL_CARD.md", "model/config.json"}
    assert released["decoding"] == {"max_new_tokens": 64, "temperature": 0.0, "top_p": 1.0}
    assert released["held"]["candidate"]["coverage"]["value"] == 0.9
    card = (tmp_path / "release" / "MODEL_CARD.md").read_text()
    assert "| candidate | coverage (simulated) | 0.9000 |" in card
    assert "Simulated: judge and service" in card
    for expected in ("CC-BY-4.0", "https://x.example/terms; it may (read 2026-11-21)", "digest: abc", "empty: 1"):
        assert expected in card
    assert "moved during the run: fp\\|1, fp_2" in card and "temperature the model's own, top_p 1.0" in card
    assert "prompt template (sha256): 0123456789ab\n" in card and "reported version: v1" in card
    assert not any("sk-canary" in p.read_text() for p in (tmp_path / "release").rglob("*") if p.is_file())


def test_a_handful_of_items_decides_nothing(held, tmp_path) -> None:
    few = {who: scores(tmp_path / f"few-{who}", [int(who == "candidate")] * 19) for who in ("candidate", "base")}
    found = verdict(few, tmp_path, must_beat=["base"])
    assert failed(found) == ["enough items"] and "19 held items" in found["rules"][0]["text"] and not found["passed"]
    enough = {who: scores(tmp_path / f"more-{who}", [int(who == "candidate")] * 20) for who in ("candidate", "base")}
    assert verdict(enough, tmp_path, must_beat=["base"])["passed"]


def test_a_baseline_that_must_be_beaten_cannot_be_left_out(held, tmp_path) -> None:
    del held["few_shot"]
    with pytest.raises(IntegrityError, match="few_shot was not scored"):
        verdict(held, tmp_path)


def test_the_judges_failures_never_help_the_candidate(tmp_path: Path) -> None:
    """Ten answers of the base that the judge could not grade count as covered in the comparison."""

    def graded(folder: Path, covered: int, failed: int) -> tuple[Path, str]:
        rows = []
        for i in range(100):
            values = {"coverage": int(i < covered), "judge_similarity": 90.0}
            if i >= 100 - failed:
                del values["judge_similarity"]
            rows.append({"id": f"i{i:03}", "setting": "greedy", "sample": 0, "values": values})
        write_jsonl(folder / "scores.jsonl", rows)
        return folder, "greedy"

    sides = {"candidate": graded(tmp_path / "c", 88, 0), "base": graded(tmp_path / "b", 80, 10)}
    found = verdict(sides, tmp_path, must_beat=["base"])
    assert found["differences"]["candidate-base"]["coverage"]["value"] == pytest.approx(-0.02)
    assert found["held"]["base"]["coverage"]["value"] == 0.8 and failed(found) == ["beats base"]
