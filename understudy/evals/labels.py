"""People's labels of answers, read from a CSV file, and their place beside the judge's verdicts.

A label names its answer by the item's id and the sample's number, or by the digest of the answer's text; one that fits
no answer is counted, never applied to another. Answers on which as many labellers say yes as no decide nothing.
"""

from __future__ import annotations

import csv
import io
import math
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from understudy.core.records import digest
from understudy.errors import DataError
from understudy.evals.calibration import Pair
from understudy.evals.coverage import Grades, answer_covered

COLUMNS = ("id", "answer_digest", "sample", "covered", "similarity", "precision", "labeller")
YES, NO = ("yes", "y", "1", "true"), ("no", "n", "0", "false")
MAX_BYTES = 64 * 2**20
_DIGEST = re.compile("[0-9a-f]{12,64}")

Answers = Mapping[tuple[str, int], str]
"""(item, sample) -> text of the answer."""


@dataclass(frozen=True, slots=True)
class Label:
    """What one person says of one answer. `sample` or `digest` is given; grades are 1-100 or None."""

    id: str
    sample: int | None
    digest: str | None
    covered: bool
    similarity: float | None = None
    precision: float | None = None
    labeller: str = ""


@dataclass(frozen=True, slots=True)
class Matched:
    """Labels beside verdicts: one pair for each labelled answer, and what became of the other labels."""

    pairs: list[Pair]
    unmatched: int
    """Labels that fit no answer."""
    unjudged: int
    """Labelled answers that the judge could not grade."""
    split: int
    """Answers on which the labellers are evenly divided."""


def answer_digest(text: str) -> str:
    """How a label names an answer by its text: 12 hex digits."""
    return digest(text, 12)


def read_labels(path: Path) -> list[Label]:
    """The labels of a CSV file; a line without an entry in `covered` is one that nobody has filled in yet.

    Raises DataError FILE_NOT_FOUND, FILE_DENIED, FILE_SPECIAL, FILE_ENCODING, and LABELS_SHAPE, LABELS_TWICE or
    LABELS_EMPTY with the line.
    """
    text = _text(path)
    header = text.split("\n", 1)[0]
    # A spreadsheet writes the separator of its country.
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        _check_header([name.strip() for name in reader.fieldnames or ()], path)
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        found: list[Label] = []
        lines: dict[tuple[object, ...], int] = {}
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                raise _shape(where, "has another number of columns than the header", "mend the line")
            label = _label({name: (value or "").strip() for name, value in row.items()}, where)
            if label is None:
                continue
            key = (label.id, label.sample, label.digest, label.labeller)
            if key in lines:
                what = f"item {label.id!r} was labelled by {label.labeller or 'the same person'!r} on line {lines[key]}"
                raise DataError("LABELS_TWICE", where, what, "keep one of the lines, or name the labellers")
            lines[key] = reader.line_num
            found.append(label)
    except csv.Error as e:
        # The reader's own count; DictReader's lags behind a line that cannot be read.
        raise _shape(f"{path}:{reader.reader.line_num}", str(e), "save it as CSV again") from None
    if not found:
        raise DataError("LABELS_EMPTY", path, "no line has an entry in covered", "fill in yes or no")
    return found


def match(
    labels: Sequence[Label], answers: Answers, grades: Mapping[tuple[str, int], Grades], thresholds: tuple[float, float]
) -> Matched:
    """Labels beside the verdicts on the same answers; `grades` holds the judge's, by (item, sample)."""
    by_digest: dict[tuple[str, str], tuple[str, int]] = {}
    for (item, sample), text in sorted(answers.items()):
        by_digest.setdefault((item, digest(text)), (item, sample))
    given: dict[tuple[str, int], list[Label]] = {}
    unmatched = 0
    for label in labels:
        place = _place(label, answers, by_digest)
        if place is None:
            unmatched += 1
        else:
            given.setdefault(place, []).append(label)
    pairs, unjudged, split = [], 0, 0
    for place, of in sorted(given.items()):
        yes = sum(label.covered for label in of)
        if 2 * yes == len(of):
            split += 1
        elif not grades.get(place):
            unjudged += 1
        else:
            pairs.append(_pair(place[0], of, grades[place], thresholds))
    return Matched(pairs, unmatched, unjudged, split)


def _place(
    label: Label, answers: Answers, by_digest: Mapping[tuple[str, str], tuple[str, int]]
) -> tuple[str, int] | None:
    """Both names must fit where both are given: a sample's number outlives the answer that was labelled."""
    if label.digest is None:
        place = (label.id, label.sample or 0)
        return place if place in answers else None
    found = [p for (item, full), p in by_digest.items() if item == label.id and full.startswith(label.digest)]
    if label.sample is None:
        return found[0] if found else None
    place = (label.id, label.sample)
    return place if place in answers and digest(answers[place]).startswith(label.digest) else None


def _pair(item: str, of: Sequence[Label], grades: Grades, thresholds: tuple[float, float]) -> Pair:
    covered = answer_covered(grades, *thresholds)
    means = (_mean(g[0] for g in grades), _mean(g[1] for g in grades))
    said = (_mean(label.similarity for label in of), _mean(label.precision for label in of))
    return Pair(item, float(covered), 2 * sum(label.covered for label in of) > len(of), means, said)


def _mean(values: Iterable[float | None]) -> float | None:
    given = [v for v in values if v is not None]
    return math.fsum(given) / len(given) if given else None


def _text(path: Path) -> str:
    fix = "give a CSV file of labels"
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise DataError("FILE_SPECIAL", path, "is not a regular file", fix)
        if about.st_size > MAX_BYTES:
            raise _shape(str(path), f"{about.st_size} bytes; the most is {MAX_BYTES}", fix)
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataError("FILE_NOT_FOUND", path, "no such file", fix) from None
    except PermissionError:
        raise DataError("FILE_DENIED", path, "may not be read", "mend its permissions") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise DataError("FILE_ENCODING", path, f"not UTF-8 at byte {e.start}", "save it as UTF-8") from None
    if (at := text.find("\0")) >= 0:
        line = text.count("\n", 0, at) + 1
        raise _shape(f"{path}:{line}", "holds a NUL character", "save it as CSV again")
    return text


def _check_header(names: Sequence[str], path: Path) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _shape(f"{path}:1", f"column {twice[0]!r} is there twice", "rename one")
    for name in ("id", "covered"):
        if name not in names:
            raise _shape(f"{path}:1", f"has no column {name!r}", f"wanted {', '.join(COLUMNS)}")
    if "sample" not in names and "answer_digest" not in names:
        raise _shape(f"{path}:1", "has neither 'sample' nor 'answer_digest'", "say which answer of the item is meant")


def _label(row: Mapping[str, str], where: str) -> Label | None:
    said = row["covered"].lower()
    if not said:
        return None
    if said not in YES + NO:
        raise _shape(where, f"covered is {row['covered'][:40]!r}", "write yes or no")
    if not row["id"]:
        raise _shape(where, "id is empty", "name the item")
    own = row.get("answer_digest", "").lower() or None
    if own and not _DIGEST.fullmatch(own):
        raise _shape(where, f"answer_digest is {own[:40]!r}", "keep the 12 hex digits of the sheet")
    number = row.get("sample", "")
    if number and not re.fullmatch("[0-9]{1,6}", number, re.ASCII):
        raise _shape(where, f"sample is {number[:40]!r}", "write a number from 0")
    if not own and not number:
        raise _shape(where, "neither sample nor answer_digest is given", "say which answer of the item is meant")
    similar, precise = (_grade(row.get(name, ""), name, where) for name in ("similarity", "precision"))
    sample = int(number) if number else None
    return Label(row["id"], sample, own, said in YES, similar, precise, row.get("labeller", ""))


def _grade(text: str, name: str, where: str) -> float | None:
    if not text:
        return None
    try:
        grade = float(text.replace(",", "."))
    except ValueError:
        grade = math.nan
    if not 1 <= grade <= 100:
        raise _shape(where, f"{name} is {text[:40]!r}", "write a grade from 1 to 100, or leave it empty")
    return grade


def _shape(where: str, what: str, fix: str) -> DataError:
    return DataError("LABELS_SHAPE", where, what, fix)
