"""What would surely fail after hours of work is refused before it."""

from __future__ import annotations

from pathlib import Path

import pytest
from thread import make_tiny, one_line, understudy

COVERAGE = "coverage: {path: data/pairs.jsonl, fields: {prompt: q, response: a}}\n"
JUDGE = "judge: {provider: simulated}\n"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("gate: {metric: coverage}\n", "set `judge`"),
        ("gate: {metric: vibes}\n", "nothing measures 'vibes'"),
        ("gate: {metric: exact_facts}\n" + COVERAGE, "map `facts`"),
        ("gate: {metric: judge_similarity}\n" + JUDGE, "set it to null"),
        ("gate: {metric: judge_similarity, bar: null}\nloop: {target: 0.5}\n" + JUDGE, "leave it out"),
        ("score: {scorers: [sentiment]}\ngate: {metric: sentiment, bar: 0.5}\n", "set it to null"),
        ("gate: {metric: loss, bar: null, must_beat: [few_shot]}\n", "needs a coverage set"),
    ],
)
def test_a_gate_that_nothing_can_pass_or_fail_is_refused(tmp_path: Path, settings: str, words: str) -> None:
    project = make_tiny(tmp_path)
    (project / "data" / "pairs.jsonl").write_text((project / "data" / "rows.jsonl").read_text())
    config = project / "understudy.yaml"
    kept = [line for line in config.read_text().splitlines() if not line.startswith("gate:")]
    config.write_text("\n".join(kept) + "\n" + settings)
    assert words in one_line(understudy("check", "-C", str(project)), "GATE_METRIC", 2)


@pytest.mark.parametrize("role", ["judge", "service"])
def test_a_service_that_will_ask_for_a_key_is_refused_before_the_run(tmp_path: Path, role: str) -> None:
    project = make_tiny(tmp_path)
    with open(project / "understudy.yaml", "a") as f:
        f.write(f"{role}: {{provider: openai, model: gpt-x}}\n")
    assert f"{role}.api_key" in one_line(understudy("check", "-C", str(project)), "KEY_MISSING", 2)


def test_a_budget_that_reaches_no_role_is_said(tmp_path: Path) -> None:
    project = make_tiny(tmp_path)
    text = (project / "understudy.yaml").read_text()
    (project / "understudy.yaml").write_text(text + JUDGE + "loop: {budget: 1.0}\n")
    result = understudy("check", "-C", str(project))
    assert result.returncode == 0 and "judge has no price" in result.stdout + result.stderr
    (project / "understudy.yaml").write_text(
        text + "judge: {provider: simulated, price: {prompt: 0, completion: 0}}\nloop: {budget: 1.0}\n"
    )
    result = understudy("check", "-C", str(project))
    assert result.returncode == 0 and "has no price" not in result.stdout + result.stderr


def test_a_mistyped_scorer_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    project = make_tiny(tmp_path)
    with open(project / "understudy.yaml", "a") as f:
        f.write("score: {scorers: [exct, loss]}\n")
    assert "exact" in one_line(understudy("check", "-C", str(project)), "SCORER_UNKNOWN", 2)
