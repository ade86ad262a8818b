"""The shipped examples: their files are valid, and the course advisor's data holds what its README says."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ruamel.yaml import YAML

from understudy.config import Config

EXAMPLES = Path(__file__).parents[1] / "examples"
ADVISOR = EXAMPLES / "course-advisor"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written by the command itself, as a user would."""
    out = tmp_path_factory.mktemp("advisor") / "data"
    command = [sys.executable, str(ADVISOR / "generate.py"), "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return out


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def pages(data: Path) -> list[dict[str, Any]]:
    """What the yaml's SQL source would collect."""
    with sqlite3.connect(data / "catalogue.db") as db:
        db.row_factory = sqlite3.Row
        found = [dict(row) for row in db.execute((ADVISOR / "pages.sql").read_text("utf-8"))]
    db.close()
    return found


def config(name: str) -> Config:
    return Config.model_validate(
        YAML(typ="safe", pure=True).load((EXAMPLES / name / "understudy.yaml").read_text("utf-8"))
    )


@pytest.mark.parametrize("name", ["course-advisor", "context-qa", "instructions"])
def test_every_example_is_a_valid_configuration_with_a_readme(name: str) -> None:
    assert config(name).name == name
    assert (EXAMPLES / name / "README.md").read_text("utf-8").startswith("# ")


def test_the_advisor_states_its_thresholds_and_its_simulated_services() -> None:
    advisor = config("course-advisor")
    assert (advisor.score.similarity, advisor.score.precision, advisor.gate.bar) == (70, 70, 0.60)
    assert advisor.loop.rounds == 2
    assert [s.provider for s in (advisor.teacher, advisor.judge, advisor.service) if s] == ["simulated"] * 3


@pytest.mark.parametrize("name", ["context-qa", "instructions"])
def test_examples_without_a_teacher_gate_on_the_loss(name: str) -> None:
    example = config(name)
    assert (example.teacher, example.judge, example.coverage) == (None, None, None)
    assert (example.gate.metric, example.gate.bar, example.gate.must_beat) == ("loss", None, ["base"])


def test_coverage_splits_into_sixty_sixty_and_a_hundred_and_twenty_by_professor(data: Path) -> None:
    pairs = rows(data / "coverage.jsonl")
    groups = Counter(p["group"] for p in pairs)
    assert len(pairs) == 240 and set(groups.values()) == {4}
    assert len({p["id"] for p in pairs}) == 240
    assert set(Counter(p["category"] for p in pairs).values()) == {40}


def test_every_fact_is_a_literal_part_of_the_answer_and_of_the_context(data: Path) -> None:
    for pair in rows(data / "coverage.jsonl"):
        assert pair["facts"]
        assert all(f in pair["answer"] and f in pair["context"] for f in pair["facts"]), pair
        assert pair["licence"] and pair["source"] and pair["collected_at"]


def test_pairs_fit_a_chat_of_eight_shots(data: Path) -> None:
    pairs = rows(data / "coverage.jsonl")
    assert max(len(p["context"]) for p in pairs) <= 300
    assert max(len(p["context"] + p["question"] + p["answer"]) for p in pairs) <= 430


def test_no_professor_or_course_of_coverage_is_in_a_training_document(data: Path, advisor: ModuleType) -> None:
    texts = [" ".join(str(v) for v in page.values()) for page in pages(data)]
    texts += [row["text"] for row in rows(data / "documents.jsonl")]
    everything = "\n".join(texts)
    asked = advisor.professors(7)[-advisor.ASKED :]
    names = [p.name for p in asked] + [c.title for p in asked for c in p.courses]
    assert {p.name for p in asked} == {p["group"] for p in rows(data / "coverage.jsonl")}
    assert [name for name in names if name in everything] == []


def test_the_two_courses_of_a_page_differ_in_every_value(advisor: ModuleType) -> None:
    for professor in advisor.professors(7):
        first, second = (c.slots() for c in professor.courses)
        assert all(first[name] != second[name] for name in first)


def test_every_kind_of_sentence_has_several_wordings_in_the_catalogue(data: Path) -> None:
    template = config("course-advisor").sources[0].text_template
    found = pages(data)
    assert template and len(found) == 140
    texts = [template.format(**page) for page in found]
    assert len(set(texts)) == 140 and max(map(len, texts)) <= 300
    for wording in (" meets on ", " takes place every ", " is worth ", " is held in ", " runs in room "):
        assert 15 < sum(wording in p["first_course"] for p in found) < 45, wording


def test_the_same_seed_writes_the_same_rows_and_another_seed_others(
    data: Path, advisor: ModuleType, tmp_path: Path
) -> None:
    advisor.generate(tmp_path / "again", 7)
    advisor.generate(tmp_path / "other", 8)
    for name in ("coverage.jsonl", "documents.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (data / name).read_bytes()
        assert (tmp_path / "other" / name).read_bytes() != (data / name).read_bytes()
    assert pages(tmp_path / "again") == pages(data)
