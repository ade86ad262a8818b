"""People's scores beside the machine's: a blank sheet to fill in, and how far the two agree.

A sheet shows question and answer in a shuffled order and names neither model nor group. An `answer_id` is a digest of
the answer, so scores of answers that the model no longer gives are counted as unmatched, never applied to others.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from understudy.core.records import digest
from understudy.errors import DataError
from understudy.evals.agreement import agreement

Row = dict[str, Any]
MEASURES = ("sentiment", "neutrality", "inclusivity")
COLUMNS = ("answer_id", "rater", "score")


def write_sheet(path: Path, rows: Sequence[Row], count: int) -> None:
    """Up to `count` answers with empty columns for rater, measure and score."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["answer_id", "question", "answer", "rater", "measure", "score"])
    shown = sorted((r for r in rows if r["attribute"]), key=lambda r: digest(["sheet", r["answer_id"]]))[:count]
    writer.writerows([r["answer_id"], r["question"], r["text"], "", "", ""] for r in shown)
    path.write_text(buffer.getvalue(), "utf-8", errors="backslashreplace")


def compare(path: Path, rows: Sequence[Row], confidence: float) -> Row:
    """Agreement by measure, and how many scores fit no answer.

    Raises DataError PEOPLE_SHAPE, with the line, for a missing column, an unknown measure or a score outside 1 to 5.
    """
    scores = _read(path)
    known = {row["answer_id"]: row["values"] for row in rows}
    found: Row = {"scores": len(scores), "unmatched": sum(answer not in known for _, answer, _, _ in scores), "by": {}}
    for measure in MEASURES:
        people: dict[str, dict[str, float]] = {}
        for given, answer, rater, score in scores:
            if given == measure and measure in known.get(answer, {}):
                people.setdefault(rater, {})[answer] = score
        if people:
            machine = {answer: float(values[measure]) for answer, values in known.items() if measure in values}
            found["by"][measure] = agreement(people, machine, confidence)
    return found


def _read(path: Path) -> list[tuple[str, str, str, float]]:
    """(measure, answer id, rater, score) of every filled-in line."""
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise DataError("FILE_NOT_FOUND", path, "no such file", "mend bias.people") from None
    except UnicodeDecodeError as e:
        raise DataError("FILE_ENCODING", path, f"not UTF-8 at byte {e.start}", "save it as UTF-8") from None
    reader = csv.DictReader(io.StringIO(text))
    if lacking := [c for c in COLUMNS if c not in (reader.fieldnames or ())]:
        raise DataError("PEOPLE_SHAPE", path, f"has no column {lacking[0]!r}", f"wanted {', '.join(COLUMNS)}")
    found = []
    for row in reader:
        if not (row["score"] or "").strip():
            continue
        measure = (row.get("measure") or "sentiment").strip()
        try:
            score = float(row["score"])
        except ValueError:
            score = 0.0
        if not 1 <= score <= 5 or measure not in MEASURES or not (row["rater"] or "").strip():
            what = f"rater {row['rater']!r}, measure {measure!r}, score {row['score']!r}"
            fix = f"a rater, one of {', '.join(MEASURES)}, and a score from 1 to 5"
            raise DataError("PEOPLE_SHAPE", f"{path}:{reader.line_num}", what, fix)
        found.append((measure, row["answer_id"].strip(), row["rater"].strip(), score))
    return found
