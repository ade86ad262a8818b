"""The notebooks run from top to bottom in a fresh kernel, and what they print is true."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import nbformat
import pytest
from kernel import FOLDER, execute, printed

LEDGER = re.compile(r"in +(\d+) +out +(\d+) +rejected (\{.*\}|none)")
INTERVAL = re.compile(r"(\w+): tuned minus base [+-][\d.]+ \[([+-][\d.]+), ([+-][\d.]+)\]")


pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(name: str, work: Path) -> nbformat.NotebookNode:
    """The notebook with fresh outputs, which are of the same kind as the stored ones, small, and no warnings."""
    book, path = execute(FOLDER / name, work), FOLDER / name
    if os.environ.get("UPDATE_DOCS"):
        nbformat.write(book, path)
    assert outputs(nbformat.read(path, as_version=4)) == outputs(book), "stale: UPDATE_DOCS=1 pytest " + __file__
    assert {kind for kinds in outputs(book) for kind in kinds} <= {"stdout", "execute_result"}
    assert path.stat().st_size < 60_000
    return book


def outputs(book: nbformat.NotebookNode) -> list[list[str]]:
    """What each code cell gave, as `stdout`, `stderr` or the kind of output."""
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    return [[output.get("name", output.output_type) for output in cell.outputs] for cell in code]


def ledgers(text: str) -> list[tuple[int, int, int]]:
    """Every printed ledger as rows in, rows out and rows rejected."""
    found = [(int(m[1]), int(m[2]), {} if m[3] == "none" else ast.literal_eval(m[3])) for m in LEDGER.finditer(text)]
    return [(rows_in, rows_out, sum(rejected.values())) for rows_in, rows_out, rejected in found]


def everything(book: nbformat.NotebookNode) -> str:
    return "".join(o.get("text", "") for cell in book.cells if cell.cell_type == "code" for o in cell.outputs)


def test_the_first_keeps_groups_and_leaks_out_and_loses_no_row(tmp_path: Path) -> None:
    book = run("1-coverage-set.ipynb", tmp_path)
    assert everything(book) == everything(nbformat.read(FOLDER / "1-coverage-set.ipynb", as_version=4)), "stale outputs"
    found = ledgers(everything(book))
    assert len(found) == 8
    assert all(rows_in == rows_out + rejected for rows_in, rows_out, rejected in found)
    shared = printed(book, "shared = {").split("professors in common:")[1]
    assert ast.literal_eval(shared.strip()) == {"seed and dev": 0, "seed and held": 0, "dev and held": 0}
    [leak] = ast.literal_eval(printed(book, "copied-page").splitlines()[-1])
    assert (leak["reason"], leak["where"]) == ("LEAK_NGRAM", "copied-page")


def test_the_second_filters_what_leaks_and_aims_at_what_fails(tmp_path: Path) -> None:
    book = run("2-synthesis.ipynb", tmp_path)
    found = ledgers(everything(book))
    assert [rows_out for _, rows_out, _ in found] == [60, 36, 60]
    assert all(rows_in == rows_out + rejected for rows_in, rows_out, rejected in found)
    assert "LEAK_NGRAM" in printed(book, "copied-page")
    again = printed(book, "round-1-again").split()
    assert (again[1], again[-1]) == ("0", "True"), "a rerun sends no request and gives the same bytes"
    rows = [line.split() for line in printed(book, "aimed = quota").splitlines()[1:]]
    aimed = [sum(map(int, row[3:])) for row in rows]
    assert sum(aimed) == 60
    assert aimed[0] == max(aimed) and int(rows[0][2]) < aimed[0], "most rows go to what fails most"


def test_the_third_passes_the_service_and_refuses_the_base_against_itself(tmp_path: Path) -> None:
    book = run("3-evaluator.ipynb", tmp_path)
    lines = printed(book, "verdict = decide").splitlines()
    assert [line for line in lines if "as candidate" in line] == [
        "service as candidate: passed",
        "base as candidate: refused",
    ]
    [picture] = [o.data["text/html"] for c in book.cells for o in c.get("outputs", []) if "data" in o]
    assert picture.count('class="dot"') == 2


def test_the_fourth_trains_a_model_that_beats_its_base(tmp_path: Path) -> None:
    book = run("4-fine-tune-by-hand.ipynb", tmp_path)
    ends = {m[1]: (float(m[2]), float(m[3])) for m in INTERVAL.finditer(printed(book, 'measure("tuned"'))}
    assert ends["exact_facts"][0] > 0
    assert ends["loss"][1] < 0


def test_no_notebook_is_left_out() -> None:
    source = Path(__file__).read_text("utf-8")
    assert [path.name for path in FOLDER.glob("*.ipynb") if f'run("{path.name}"' not in source] == []
