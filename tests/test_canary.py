"""Canaries: probes asked past the cache, what counts as moved, and a gate that freezes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_judge_score import EXAMPLES
from test_service import Opened, Reply, chat, serving

from understudy.config import ServiceConfig
from understudy.core.records import Example
from understudy.evals.canary import answered, drifted, facts, judged, moved, probes, read, write
from understudy.models.service import ServiceModel


def canary(round_number: int, covered: str, version: str = "v1", answers: str = "abcd") -> dict[str, Any]:
    verdicts = {f"p{i}": {"covered": c == "1", "similarity": 1, "precision": 1} for i, c in enumerate(covered)}
    teacher = {"versions": ["t1"], "answers": {f"p{i}": a for i, a in enumerate(answers)}}
    return {"round": round_number, "judge": {"versions": [version], "verdicts": verdicts}, "teacher": teacher}


def test_the_probes_are_the_same_for_the_same_seeds_and_half_of_them_are_wrong() -> None:
    asked = probes(EXAMPLES, 6)
    assert asked == probes(list(reversed(EXAMPLES)), 6) and len(asked) == 6
    assert [p.answer == p.example.answer for p in asked] == [True, False] * 3
    assert len(probes(EXAMPLES, 100)) == len(EXAMPLES) and probes([], 4) == []
    assert probes([Example("x", [{"role": "user", "content": "?"}], {})], 4) == []


def test_a_version_or_flipped_verdicts_are_named_and_what_stays_is_silent() -> None:
    first = canary(0, "1010101010")
    assert moved([first, canary(1, "1010101010")], 0.0) == []
    assert moved([first, canary(1, "1110101010")], 0.1) == []  # one of ten, and a tenth may
    (line,) = moved([first, canary(1, "1010101010"), canary(2, "1100101010")], 0.1)
    assert line == "the judge decided otherwise on 2 of 10 probes in round 2: p1, p2"
    (line,) = moved([first, canary(1, "1010101010", version="v2")], 0.1)
    assert line == "the judge's version moved from v1 to v2 in round 1"
    assert moved([], 0.0) == [] and facts([], 0.0) is None
    assert drifted([first, canary(1, "1", answers="abXd")]) == {"1": 0.25}
    told = facts([first, canary(1, "0010101010")], 0.0)
    assert told and (told["rounds"], told["probes"], len(told["moved"])) == (2, 10, 1)


def test_probes_are_asked_again_and_again_past_any_cache(tmp_path: Path, opened: Opened) -> None:
    def script(request: dict[str, Any], before: int) -> Reply:
        text = request["messages"][-1]["content"]
        if "ANSWER (JSON):" not in text:
            return chat(f"answer {before}", system_fingerprint=f"t{before}")
        right = "It is" not in text and before == 0
        grade = 90 if right else 10
        verdict = {"similarity": grade, "precision": grade, "reason": "r"}
        return chat(json.dumps(verdict), system_fingerprint="j1")

    found = []
    with serving(script) as (server, url):
        for number in range(2):
            cfg = ServiceConfig(provider="openai", model="m")
            judge, teacher = (opened(ServiceModel(cfg, base_url=url, role=r)) for r in ("judge", "teacher"))
            asked = probes(EXAMPLES, 4)
            roles = {
                "judge": {"verdicts": judged(judge, asked, 70, 70), "versions": judge.provenance()["versions"]},
                "teacher": {"answers": answered(teacher, asked, 64), "versions": teacher.provenance()["versions"]},
            }
            (tmp_path / str(number)).mkdir()
            write(tmp_path / str(number), number, roles)
            found.append(read(tmp_path / str(number)))
    assert server.hits == 2 * 2 * 4
    assert moved(found, 0.0) == [
        "the teacher's version moved from t0 to t1 in round 1",
        "the judge decided otherwise on 4 of 4 probes in round 1: "
        + ", ".join(sorted(found[0]["judge"]["verdicts"])[:3]) + ", ...",
    ]  # fmt: skip
    assert drifted(found) == {"1": 1.0}


@pytest.mark.parametrize("moved_to", [[], ["the judge's version moved from v1 to v2 in round 2"]])
def test_the_gate_is_frozen_by_what_moved_and_says_it(tmp_path: Path, moved_to: list[str]) -> None:
    from test_verdicts import held

    from understudy.config import GateConfig
    from understudy.evals.gate import decide

    told = {"rounds": 3, "probes": 8, "moved": moved_to, "teacher_changed": {}}
    cfg = GateConfig(bar=None, must_beat=[])
    verdict = decide(cfg, held(tmp_path), tmp_path, champion=False, control=None, canaries=told)
    rule = next(r for r in verdict["rules"] if r["name"] == "canaries")
    assert rule["passed"] is not bool(moved_to)
    assert ("moved from v1 to v2 in round 2" in rule["text"]) is bool(moved_to)
    assert verdict["canaries"] == told


@pytest.mark.slow
def test_a_provider_that_moves_while_a_run_goes_on_freezes_its_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service reports another fingerprint from the first held answer on; the command line is another process."""
    from thread import SMALL, make_project, understudy

    from understudy.models.simulated import SimulatedService, protocol

    with SimulatedService() as service:
        folder = make_project(tmp_path / "advisor", SMALL + "loop: {rounds: 1}\nservice: null\ncanary: {probes: 4}\n")
        lines = []
        for line in (folder / "understudy.yaml").read_text("utf-8").splitlines():
            role = line.split(":")[0]
            if role in ("teacher", "judge"):
                line = f"{role}: {{provider: simulated, model: simulated-1, base_url: '{service.base_url}'}}"
            if line not in ("loop: {rounds: 2}",) and not (role == "service" and "null" not in line):
                lines.append(line)
        (folder / "understudy.yaml").write_text("\n".join(lines) + "\n", "utf-8")
        complete = service.complete

        def moving(request: Any, fault: str | None) -> Any:
            if service.ledger.roles["judge"] > 70:  # canaries, one round of dev, canaries: then held
                monkeypatch.setattr(protocol, "FINGERPRINT", "moved-1")
            return complete(request, fault)

        monkeypatch.setattr(service, "complete", moving)
        result = understudy("run", "--quiet", "-C", str(folder), timeout_s=300)
    assert result.returncode == 7, result.stderr[-2000:]
    assert "FAIL  canaries: the" in result.stdout and "version moved from simulated-" in result.stdout
    assert "to moved-1 in round 2" in " ".join(result.stdout.split())
    assert "nothing registered" in result.stdout


def test_a_fleet_whose_versions_overlap_has_not_moved() -> None:
    def fleet(round_number: int, *versions: str) -> dict[str, Any]:
        made = canary(round_number, "1010")
        return {**made, "judge": {**made["judge"], "versions": list(versions)}}

    assert moved([fleet(0, "a", "b"), fleet(1, "b", "a"), fleet(2, "b", "c")], 0.0) == []
    assert moved([fleet(0, "a", "b"), fleet(1, "c")], 0.0) == ["the judge's version moved from a, b to c in round 1"]
