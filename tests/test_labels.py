"""People's labels are read line by line, and meet the answers that they were given for."""

from __future__ import annotations

from pathlib import Path

import pytest

from understudy.errors import DataError
from understudy.evals.calibration import Pair
from understudy.evals.labels import Label, answer_digest, match, read_labels


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_sheet_is_read_as_spreadsheets_save_it(tmp_path: Path) -> None:
    comma = "id,sample,covered,similarity,precision,labeller\nq1,0,yes,90,80.5,ann\nq1,1,,,,\n\nq2,3,0,,,bob\n"
    expected = [Label("q1", 0, None, True, 90.0, 80.5, "ann"), Label("q2", 3, None, False, None, None, "bob")]
    assert read_labels(written(tmp_path, comma)) == expected
    country = comma.replace("80.5", "80*5").replace(",", ";").replace("*", ",").replace("\n", "\r\n")
    assert read_labels(written(tmp_path, b"\xef\xbb\xbf" + country.encode())) == expected
    assert read_labels(written(tmp_path, comma.replace(",", "\t"))) == expected


def test_an_answer_may_be_named_by_its_digest(tmp_path: Path) -> None:
    own = answer_digest("It is on Monday.")
    found = read_labels(written(tmp_path, f"id,answer_digest,covered\nq1,{own.upper()},NO\n"))
    assert found == [Label("q1", None, own, False)]


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("", "LABELS_SHAPE", 1),
        ("id,sample\nq1,0\n", "LABELS_SHAPE", 1),
        ("id,covered\nq1,yes\n", "LABELS_SHAPE", 1),
        ("id,id,sample,covered\n", "LABELS_SHAPE", 1),
        ("id,sample,covered\nq1,0,maybe\n", "LABELS_SHAPE", 2),
        ("id,sample,covered\nq1,0,yes\nq2,0\n", "LABELS_SHAPE", 3),
        ("id,sample,covered\nq1,0,yes\nq2,0,no,9\n", "LABELS_SHAPE", 3),
        ("id,sample,covered\n,0,yes\n", "LABELS_SHAPE", 2),
        ("id,sample,covered\nq1,,yes\n", "LABELS_SHAPE", 2),
        ("id,sample,covered\nq1,-1,yes\n", "LABELS_SHAPE", 2),
        ("id,sample,covered\nq1,1.5,yes\n", "LABELS_SHAPE", 2),
        ("id,sample,covered\nq1,\u0663,yes\n", "LABELS_SHAPE", 2),
        ("id,answer_digest,covered\nq1,=1+1,yes\n", "LABELS_SHAPE", 2),
        ("id,sample,covered,precision\nq1,0,yes,101\n", "LABELS_SHAPE", 2),
        ("id,sample,covered,precision\nq1,0,yes,nan\n", "LABELS_SHAPE", 2),
        ("id,sample,covered\nq1,0,yes\nq1,\x00,no\n", "LABELS_SHAPE", 3),
        ('id,sample,covered\nq1,0,yes\n"q2,0,no\n', "LABELS_SHAPE", 3),
        ('id,sample,covered\n"q1"x,0,yes\n', "LABELS_SHAPE", 2),
        ("id,sample,covered\nq1,0,yes\nq2,0,no\nq1,0,no\n", "LABELS_TWICE", 4),
        ("id,sample,covered,labeller\nq1,0,yes,ann\nq1,0,yes,ann\n", "LABELS_TWICE", 3),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, code: str, line: int) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read_labels(path)
    assert (caught.value.code, caught.value.where) == (code, f"{path}:{line}")
    assert caught.value.fix and "\n" not in caught.value.line()


def test_a_file_that_cannot_be_read_as_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="FILE_NOT_FOUND"):
        read_labels(tmp_path / "none.csv")
    with pytest.raises(DataError, match="FILE_SPECIAL"):
        read_labels(tmp_path)
    with pytest.raises(DataError, match="FILE_ENCODING.*byte 21"):
        read_labels(written(tmp_path, b"id,sample,covered\nq1,\xff0,yes\n"))
    with pytest.raises(DataError, match="LABELS_EMPTY"):
        read_labels(written(tmp_path, "id,sample,covered\nq1,0,\n"))


ANSWERS = {("q1", 0): "Monday", ("q1", 1): "Tuesday", ("q2", 0): "Friday", ("q3", 0): "Sunday"}
GRADES = {("q1", 0): [(90.0, 80.0), (80.0, 80.0)], ("q1", 1): [(90.0, 60.0)], ("q2", 0): [(10.0, 10.0)]}


def test_labels_meet_the_verdicts_on_the_same_answers() -> None:
    labels = [
        Label("q1", 0, None, True, 70.0, None, "ann"),
        Label("q1", 0, None, True, 90.0, None, "bob"),
        Label("q1", 0, None, False, None, None, "eve"),
        Label("q1", None, answer_digest("Tuesday"), True),
        Label("q2", 0, answer_digest("Friday"), False),
    ]
    found = match(labels, ANSWERS, GRADES, (70, 70))
    assert found.pairs == [
        Pair("q1", 1.0, True, (85.0, 80.0), (80.0, None)),
        Pair("q1", 0.0, True, (90.0, 60.0), (None, None)),
        Pair("q2", 0.0, False, (10.0, 10.0), (None, None)),
    ]
    assert (found.unmatched, found.unjudged, found.split) == (0, 0, 0)
    assert match(labels, ANSWERS, GRADES, (70, 50)).pairs[1].judge == 1.0


def test_labels_of_answers_that_are_no_longer_given_are_counted_and_not_used() -> None:
    labels = [
        Label("q1", 2, None, True),
        Label("q9", 0, None, True),
        Label("q1", None, answer_digest("Friday"), True),  # the text of another item's answer
        Label("q1", 0, answer_digest("Tuesday"), True),  # sample 0 says something else now
        Label("q3", 0, None, True),  # no verdict
        Label("q2", 0, None, True, labeller="ann"),
        Label("q2", 0, None, False, labeller="bob"),
    ]
    found = match(labels, ANSWERS, GRADES, (70, 70))
    assert (found.pairs, found.unmatched, found.unjudged, found.split) == ([], 4, 1, 1)
