"""A run's judge against people's labels: a sheet to fill in, and what the labels say of judge and rate."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.core.records import Example, digest, read_jsonl
from understudy.errors import DataError
from understudy.evals import calibration, coverage
from understudy.evals.labels import Answers, Label, answer_digest, match
from understudy.evals.verdicts import FILE

COLUMNS = (
    "id", "sample", "answer_digest", "question", "reference", "answer",
    "covered", "similarity", "precision", "labeller",
)  # fmt: skip
Grades = dict[tuple[str, int], list[tuple[float, float]]]


def answers_of(folder: Path, setting: str) -> dict[tuple[str, int], str]:
    """(item, sample) -> text, of one setting of a folder of answers."""
    rows = read_jsonl(folder / "answers.jsonl")
    return {(r["id"], r.get("sample", 0)): r["text"] for r in rows if r["setting"] == setting}


def grades_of(scores: Path, setting: str) -> Grades:
    """(item, sample) -> the judge's grades."""
    return coverage.judged_answers(r for r in read_jsonl(scores / FILE) if r["setting"] == setting)


def sheet(
    examples: Sequence[Example], answers: Answers, grades: Grades, limits: tuple[float, float], count: int
) -> str:
    """A CSV text of `count` items for people to label, one answer each, drawn at random, half of either verdict.

    The judge's verdict is not on it, and the order tells nothing of it.
    """
    by_id = {e.id: e for e in examples}
    first = sorted({item: min(k for k in answers if k[0] == item) for item, _ in answers}.values())
    drawn = sorted((k for k in first if grades.get(k)), key=lambda k: digest(["label", *k]))
    covered = [k for k in drawn if coverage.answer_covered(grades[k], *limits)]
    others = [k for k in drawn if k not in set(covered)]
    half = count // 2
    picked = covered[: max(half, count - len(others))] + others[: max(count - half, count - len(covered))]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for item, sample in sorted(picked[:count], key=lambda k: digest(["order", *k])):
        example, answer = by_id[item], answers[item, sample]
        question = "\n".join(m["content"] for m in example.prompt if m["role"] != "system")
        row = [item, sample, answer_digest(answer), question, example.answer or "", answer, "", "", "", ""]
        writer.writerow([_plain(str(cell)) for cell in row])
    return text.getvalue()


def _plain(cell: str) -> str:
    """A spreadsheet takes text after = + - @ for a formula; a space before it makes it text."""
    return f" {cell}" if cell.startswith(("=", "+", "-", "@")) else cell


def calibrate(
    labels: Sequence[Label],
    answers: Answers,
    grades: Grades,
    limits: tuple[float, float],
    bar: float | None,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """What the labels say: the judge's agreement with people, the corrected rate, and whether the bar is still met.

    The labelled answers are taken to be a random part of the judged ones, as `sheet` draws them. Raises DataError
    LABELS_EMPTY and those of `calibration.corrected`.
    """
    found = match(labels, answers, grades, limits)
    if not found.pairs:
        what = f"none of {len(labels)} labels fits an answer of this run that the judge has graded"
        raise DataError(
            "LABELS_EMPTY", "calibrate", what, "label the sheet of this run: understudy calibrate --sheet 60"
        )
    values = coverage.shares(grades, *limits)
    samples = 1 + max(sample for _, sample in answers)
    judged = coverage.rate(values, confidence, samples)
    right = calibration.corrected(values, found.pairs, "same", confidence, samples)
    told = {
        "labels": len(labels), "unmatched": found.unmatched, "unjudged": found.unjudged, "split": found.split,
        "judged": judged.to_json(), "corrected": right.to_json(), **calibration.report(found.pairs, confidence),
    }  # fmt: skip
    if bar is not None:
        told |= {"bar": bar, "clears": judged.low >= bar, "clears_corrected": right.low >= bar}
    return told


def compare(
    first: Grades, second: Grades, limits: tuple[float, float], bar: float, confidence: float = 0.95
) -> dict[str, Any]:
    """Two judges of the same answers; see `calibration.compare`."""

    def covered(grades: Grades) -> Mapping[tuple[str, int], bool]:
        return {k: coverage.answer_covered(of, *limits) for k, of in grades.items()}

    shared = first.keys() & second.keys()
    one, other = ({k: v for k, v in covered(g).items() if k in shared} for g in (first, second))
    return calibration.compare(one, other, bar, confidence, samples=1 + max((k[1] for k in shared), default=0))
