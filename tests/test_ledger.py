"""The ledger ties every row of a run to where it came to rest; blame tells a row's way and an answer's neighbours."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_core import Silent
from thread import SMALL, make_project, one_line, understudy

from understudy.blame import answer_of, history, nearest, similarities, training_rows
from understudy.core.artifact import Answers, Artifact, Corpus, Dataset
from understudy.core.records import Document, Example, Ledger, read_jsonl, write_jsonl
from understudy.core.runner import Runner
from understudy.data.merge import merge
from understudy.errors import ConfigError
from understudy.ledger import accounts, rejected, table
from understudy.project import Project

UNTIL = "pack-1"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The course advisor up to its first packed rows: real stages, the simulated teacher, nothing trained."""
    root = make_project(tmp_path_factory.mktemp("ledger") / "advisor", SMALL)
    project = Project(root)
    run, plan, _ = project.open_run(new=False, control=None)
    runner = Runner(root, project.store, run.journal, Silent())
    names = [s.name for s in plan.steps]
    for step in plan.steps[: names.index(UNTIL) + 1]:
        runner.run_step(step)
    runner.run_step(plan.step("hold"))
    return root


@pytest.fixture(scope="module")
def artifacts(project: Path) -> list[Artifact]:
    own = Project(project)
    return own.artifacts(own.last_run())


@pytest.mark.slow
def test_every_row_that_was_read_or_written_has_come_to_rest_somewhere(artifacts: list[Artifact]) -> None:
    books = accounts("run-0001", artifacts)
    assert books.balanced and len(books.links) == 6
    flow = dict(books.flow)
    came = flow.pop("read") + flow.pop("written by the teacher")
    assert came == sum(flow.values())
    assert (flow["held"], flow["dev"], flow["documents"]) == (120, 60, 200)
    packed = next(s for s in books.steps if s.step == UNTIL)
    assert flow["training"] == packed.rows_in == 60 + 48


def test_a_row_that_vanishes_between_two_steps_is_told(artifacts: list[Artifact]) -> None:
    cleaned = next(a for a in artifacts if a.name == "clean")
    assert cleaned.ledger
    before, cleaned.ledger = cleaned.ledger, Ledger(cleaned.ledger.rows_in - 1, cleaned.ledger.rows_out - 1)
    try:
        books = accounts("run-0001", artifacts)
    finally:
        cleaned.ledger = before
    assert not books.balanced
    assert [link.text for link in books.links if not link.holds] == ["collect > clean", "clean > dedupe"]
    assert any("206 given, 205 TAKEN" in line for line in table(books))


def test_the_table_fits_eighty_columns_and_its_json_says_the_same(project: Path) -> None:
    shown = understudy("ledger", "-C", str(project))
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert max(map(len, lines)) <= 80 and "DUPLICATE 6" in shown.stdout
    books = json.loads(understudy("ledger", "--json", "-C", str(project)).stdout)
    assert books["balanced"] and {s["step"] for s in books["steps"]} <= {line.split(" ")[0] for line in lines if line}


@pytest.mark.slow
def test_rejected_rows_are_listed_by_step_and_reason(project: Path, artifacts: list[Artifact]) -> None:
    rows = rejected(artifacts, reason="DUPLICATE")
    assert len(rows) == 6 and {r.step for r in rows} == {"dedupe"} and rows == rejected(artifacts, "dedupe")
    assert all(r.detail.startswith("same content as") for r in rows)
    listed = understudy("ledger", "--reason", "DUPLICATE", "-C", str(project)).stdout
    assert all(r.where in listed for r in rows) and "6 rows" in listed
    assert len(json.loads(understudy("ledger", "dedupe", "--json", "-C", str(project)).stdout)) == 6
    unknown = one_line(understudy("ledger", "--reason", "NOPE", "-C", str(project)), "REASON_UNKNOWN", 2)
    assert "DUPLICATE" in unknown
    one_line(understudy("ledger", "nowhere", "-C", str(project)), "STEP_UNKNOWN", 2)


def events(artifacts: list[Artifact], row: str) -> list[tuple[str, str]]:
    return [(e.step, e.what.split(" of ")[0]) for e in history(artifacts, row).events]


def test_a_document_is_followed_from_its_line_to_its_children(artifacts: list[Artifact]) -> None:
    synthesized = next(a for a in artifacts if a.name == "synthesize-1")
    child = next(iter(read_jsonl(synthesized.path / "train.jsonl")))
    parent = child["meta"]["parents"][-1]
    way = [("collect", "read"), ("collect", "kept"), ("clean", "kept"), ("dedupe", "kept"), ("split", "documents")]
    assert events(artifacts, parent) == [*way, ("synthesize-1", "parent")]
    assert events(artifacts, child["id"]) == [("synthesize-1", "train"), (UNTIL, "packed")]
    made = history(artifacts, child["id"]).events[0].detail
    assert parent in made and child["meta"]["prompt_hash"][:12] in made and "round 1" in made


def test_a_row_is_found_by_its_place_in_the_source_too(project: Path, artifacts: list[Artifact]) -> None:
    line = (project / "data" / "documents.jsonl").read_text("utf-8").splitlines()[16]
    found = history(artifacts, "data/documents.jsonl:17")
    assert found.events[0].detail == "data/documents.jsonl:17" and len(found.events) > 4 and found.record
    assert found == history(artifacts, json.loads(line)["id"])


def test_a_duplicate_a_seed_and_a_held_pair_each_tell_their_own_story(artifacts: list[Artifact]) -> None:
    twin = rejected(artifacts, "dedupe")[0]
    assert history(artifacts, twin.where).events[-1].what == "rejected"
    assert history(artifacts, twin.where).events[-1].detail == f"DUPLICATE: {twin.detail}"
    ids = {a.name: a for a in artifacts}
    seed = next(iter(read_jsonl(ids["split"].path / "seed.jsonl")))["id"]
    assert {("split", "seed"), (UNTIL, "packed")} <= set(events(artifacts, seed))
    held = next(iter(read_jsonl(ids["hold"].path / "held.jsonl")))["id"]
    assert events(artifacts, held)[-1] == ("hold", "held") and (UNTIL, "packed") not in events(artifacts, held)


def test_an_id_that_nobody_has_gets_one_line_and_the_nearest(project: Path) -> None:
    near = one_line(understudy("blame", "brochure-04", "-C", str(project)), "ROW_UNKNOWN", 2)
    assert "brochure-04" in near.split("did you mean")[1]
    one_line(understudy("blame", "zzz", "--answer", "x", "-C", str(project)), "USAGE", 2)
    one_line(understudy("blame", "-C", str(project)), "USAGE", 2)


def test_blame_is_readable_and_machine_readable(project: Path, artifacts: list[Artifact]) -> None:
    child = training_rows(artifacts)[-1][1]
    told = understudy("blame", child.id, "-C", str(project))
    assert told.returncode == 0 and max(map(len, told.stdout.splitlines())) <= 80
    assert str(child.answer) in " ".join(told.stdout.split())
    value = json.loads(understudy("blame", child.id, "--json", "-C", str(project)).stdout)
    assert value["record"]["id"] == child.id and value["events"][-1]["what"] == "packed"
    answer = json.loads(understudy("blame", "--answer", str(child.answer), "--json", "-C", str(project)).stdout)
    assert answer["nearest"][0]["answer"] == 1.0 and answer["nearest"][0]["row"]["id"] == child.id


def test_the_neighbours_of_an_item_are_chosen_by_prompt_and_answer(artifacts: list[Artifact], tmp_path: Path) -> None:
    held = next(a for a in artifacts if a.name == "hold")
    item = next(iter(read_jsonl(held.path / "held.jsonl")))
    write_jsonl(tmp_path / "answers.jsonl", [{"id": item["id"], "sample": 0, "text": "Please go to room B12."}])
    given = Answers(tmp_path)
    given.manifest = {"name": "answer-held-candidate", "stage": "answer_held"}
    step, prompt, text = answer_of([*artifacts, given], item["id"], "candidate")
    assert (step, prompt, text) == ("answer-held-candidate", item["meta"]["question"], "Please go to room B12.")
    first = nearest(training_rows(artifacts), text, prompt)[0]
    assert first.prompt is not None and 0 < (first.answer + first.prompt) / 2 <= 1
    with pytest.raises(ConfigError) as e:
        answer_of([*artifacts, given], item["id"] + "x", "candidate")
    assert e.value.code == "ITEM_UNKNOWN" and item["id"] in e.value.fix


def test_an_answer_is_the_one_of_who_was_asked(artifacts: list[Artifact], tmp_path: Path) -> None:
    given = []
    for name in ("base", "targeted-1"):
        write_jsonl(tmp_path / name / "answers.jsonl", [{"id": "d1", "text": name}])
        given.append(Answers(tmp_path / name))
        given[-1].manifest = {"name": f"answer-dev-{name}", "stage": "answer"}
    assert answer_of(given, "d1", "base")[::2] == ("answer-dev-base", "base")
    assert answer_of(given, "d1", "candidate")[::2] == ("answer-dev-targeted-1", "targeted-1")
    with pytest.raises(ConfigError, match="ITEM_UNKNOWN"):
        answer_of(given, "d1", "few_shot")


def test_the_days_of_a_web_source_and_their_duplicates_are_accounted_for(tmp_path: Path) -> None:
    def made(name: str, stage: str, inputs: list[str], ledger: Ledger) -> Corpus:
        found = Corpus(tmp_path / name, ledger=ledger)
        found.manifest = {"name": name, "stage": stage, "inputs": inputs}
        return found

    days = [f"web-{i}" for i in range(2)]
    found = [made(f"collect-{day}", "collect_web", [], Ledger(3, 3)) for day in days]
    found += [made(f"clean-{day}", "clean", [f"collect-{day}"], Ledger(3, 3)) for day in days]
    cleaned = [f"clean-{day}" for day in days]
    found.append(made("merge", "merge", cleaned, Ledger(6, 5, {"ID_DUPLICATE": 1})))
    found.append(made("split", "split", ["merge"], Ledger(5, 5, notes={"train_rows": 5})))
    books = accounts("run", found)
    assert (books.flow["read"], books.flow["training"], books.flow["rejected"]) == (6, 5, 1) and books.balanced
    found[-2] = made("merge", "merge", cleaned, Ledger(5, 5))
    assert not accounts("run", found).balanced


def made(folder: Path, name: str, stage: str, inputs: list[str], ledger: Ledger, alias: str = "") -> Artifact:
    found = (Corpus if stage in ("collect", "merge") else Dataset)(folder / name, ledger=ledger)
    found.manifest = {"name": name, "stage": stage, "inputs": inputs} | ({"alias_of": alias} if alias else {})
    return found


def test_the_twins_of_a_mitigated_run_are_in_its_sum(tmp_path: Path) -> None:
    notes = {"train_rows": 6, "seed_rows": 2}
    found = [
        made(tmp_path, "collect", "collect", [], Ledger(8, 8)),
        made(tmp_path, "split", "split", ["collect"], Ledger(8, 8, notes=notes)),
        made(tmp_path, "synthesize-1", "synthesize", ["split"], Ledger(4, 4)),
        made(tmp_path, "synthesize-2", "synthesize", ["split"], Ledger(4, 4), alias="synthesize-1"),
    ]
    parents = [a.name for a in found[1:]]
    # 12 rows, of which five are about people: five twins wanted, three made.
    found.append(made(tmp_path, "augment", "augment", parents, Ledger(17, 15, {"ambiguous_form": 2}, {"twins": 3})))
    found.append(made(tmp_path, "pack-mitigated", "pack", ["augment"], Ledger(15, 15)))
    books = accounts("run", found)
    assert books.balanced and {link.text: link.given for link in books.links} == {
        "collect > split": 8,
        "split and synthesize-1 > augment": 12,
        "augment > pack-mitigated": 15,
    }
    flow = dict(books.flow)
    assert (flow["written as twins"], flow["training"], flow["rejected"]) == (5, 15, 2)
    assert flow.pop("read") + flow.pop("written by the teacher") + flow.pop("written as twins") == sum(flow.values())
    assert "8 read + 4 written by the teacher + 5 written as twins = 15 training + 2 rejected" in " ".join(table(books))
    found[-2] = made(tmp_path, "augment", "augment", parents, Ledger(21, 19, {"ambiguous_form": 2}, {"twins": 3}))
    assert not accounts("run", found).balanced


def test_blame_tells_what_merge_rejected(tmp_path: Path) -> None:
    def day(name: str, text: str) -> Path:
        write_jsonl(tmp_path / f"{name}.jsonl", [Document("d1", text, {"collected_at": name, "site": "s"})])
        return tmp_path / f"{name}.jsonl"

    days = [day("2026-11-19", "old"), day("2026-11-20", "new"), day("2026-11-21", "new")]
    joined = made(tmp_path, "merge", "merge", [], Ledger())
    joined.path.mkdir()
    merge(days, joined.path)
    told = [(e.what, e.detail) for e in history([joined], "d1").events]
    assert [what for what, _ in told] == ["kept", "rejected", "rejected"]
    assert "2026-11-19" in told[1][1] and told[1][1].startswith("REPLACED")
    assert "2026-11-21" in told[2][1] and told[2][1].startswith("ID_DUPLICATE")


def test_similarity_is_the_cosine_of_tf_idf() -> None:
    """By hand: three texts and the query make N = 4; idf(t) = ln(5 / (1 + df)) + 1 over words and word pairs."""
    from math import log, sqrt

    def idf(df: int) -> float:
        return log(5 / (1 + df)) + 1

    got = similarities(["red ball", "red box", "blue sky"], "red ball")
    query = [idf(3), idf(2), idf(2)]  # red, ball, red ball
    other = [idf(3), idf(1), idf(1)]  # red, box, red box
    cosine = idf(3) ** 2 / (sqrt(sum(x * x for x in query)) * sqrt(sum(x * x for x in other)))
    assert got == pytest.approx([1.0, cosine, 0.0], abs=1e-6)


@given(texts=st.lists(st.text(alphabet="ab cé", max_size=12), max_size=8), query=st.text(alphabet="ab cé", max_size=9))
def test_similarities_stay_between_nothing_and_equal(texts: list[str], query: str) -> None:
    assert all(0.0 <= s <= 1.0 for s in similarities(texts, query))


def test_ten_thousand_rows_are_searched_in_two_seconds() -> None:
    words = ["room", "course", "credits", "teacher", "monday", "evening", "please", "bring", "logic", "botany"]
    rows: list[tuple[str, Any]] = []
    for i in range(10_000):
        own = " ".join(words[(i // 10**k) % 10] for k in range(4)) + f" number {i}"
        rows.append(
            ("split", Example(f"r{i}", [{"role": "user", "content": own}, {"role": "assistant", "content": own}]))
        )
    begin = time.process_time()
    found = nearest(rows, rows[4321][1].answer, rows[4321][1].answer)
    assert found[0].row.id == "r4321" and time.process_time() - begin < 2.0
