"""The judge held against people's labels and against a second judge, from the folders of a run."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from test_judge_score import example
from thread import one_line, understudy

from understudy.core.records import write_jsonl
from understudy.errors import DataError
from understudy.evals.calibrating import answers_of, calibrate, compare, grades_of, sheet
from understudy.evals.labels import read_labels

ITEMS = [example(i) for i in range(40)]
LIMITS = (70, 70)


def run(folder: Path, good: set[int], setting: str = "greedy") -> Path:
    """Answers and verdicts as a run stores them; the judge covers the items of `good`."""
    folder.mkdir(exist_ok=True)
    rows = [{"id": e.id, "setting": setting, "sample": 0, "text": f"=answer {i}"} for i, e in enumerate(ITEMS)]
    write_jsonl(folder / "answers.jsonl", rows)
    verdicts = [
        {"id": e.id, "setting": setting, "sample": 0, "verdict": 0, "reason": "",
         "similarity": 90 if i in good else 20, "precision": 90 if i in good else 30}
        for i, e in enumerate(ITEMS)
    ]  # fmt: skip
    write_jsonl(folder / "verdicts.jsonl", verdicts)
    return folder


def filled(text: str, path: Path, yes: set[int]) -> Path:
    rows = list(csv.DictReader(io.StringIO(text)))
    with open(path, "w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, "covered": "yes" if int(row["id"][1:]) in yes else "no"})
    return path


def test_a_sheet_shows_answers_of_either_verdict_and_no_verdict(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", set(range(30)))
    answers, grades = answers_of(folder, "greedy"), grades_of(folder, "greedy")
    text = sheet(ITEMS, answers, grades, LIMITS, 12)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 12 == len({r["id"] for r in rows})
    assert sum(int(r["id"][1:]) < 30 for r in rows) == 6
    assert {r["covered"] for r in rows} == {""} and "90" not in "".join(r["similarity"] for r in rows)
    assert all(r["answer"].startswith(" =answer") for r in rows)  # no formula for a spreadsheet
    assert sheet(ITEMS, answers, grades, LIMITS, 12) == text
    # Where one verdict is rare, the other fills up; nobody is asked for more than there are.
    assert len(list(csv.DictReader(io.StringIO(sheet(ITEMS, answers, grades, LIMITS, 30))))) == 30
    assert len(list(csv.DictReader(io.StringIO(sheet(ITEMS, answers, grades, LIMITS, 99))))) == 40


def test_a_lenient_judge_is_found_out_and_the_rate_corrected(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", set(range(32)))  # people would cover 24 of these only
    answers, grades = answers_of(folder, "greedy"), grades_of(folder, "greedy")
    labels = filled(sheet(ITEMS, answers, grades, LIMITS, 40), tmp_path / "labels.csv", set(range(24)))
    found = calibrate(read_labels(labels), answers, grades, LIMITS, 0.6)
    assert (found["answers"], found["unmatched"]) == (40, 0)
    assert found["judged"]["value"] == 0.8 and found["corrected"]["value"] == pytest.approx(0.6)
    assert found["sensitivity"]["value"] == 1.0 and found["specificity"]["value"] == 0.5
    assert found["clears"] and not found["clears_corrected"]
    assert found["corrected"]["low"] < 0.6 < found["corrected"]["high"]


def test_labels_of_other_answers_are_told_apart(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", set(range(20)))
    answers, grades = answers_of(folder, "greedy"), grades_of(folder, "greedy")
    labels = read_labels(filled(sheet(ITEMS, answers, grades, LIMITS, 20), tmp_path / "l.csv", set(range(20))))
    moved = {k: text + "!" for k, text in answers.items()}
    with pytest.raises(DataError, match=r"LABELS_EMPTY\] calibrate: none of 20 labels fits"):
        calibrate(labels, moved, grades, LIMITS, None)


def test_two_judges_are_compared_and_a_flip_is_seen(tmp_path: Path) -> None:
    strict, lenient = (grades_of(run(tmp_path / n, set(range(k))), "greedy") for n, k in (("a", 20), ("b", 36)))
    found = compare(strict, lenient, LIMITS, 0.6)
    assert found["flips"] and found["clears"] == [False, True] and found["answers"] == 40
    assert found["difference"]["value"] == pytest.approx(-0.4)
    assert not compare(strict, strict, LIMITS, 0.6)["flips"]


def test_without_a_run_or_labels_one_line_says_so(tmp_path: Path) -> None:
    from thread import make_tiny

    folder = make_tiny(tmp_path / "tiny")
    one_line(understudy("calibrate", "-C", str(folder)), "NO_RUN", 2)
