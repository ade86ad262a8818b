"""How many rows of each cell a round asks for: by seeds, then by failures drawn towards those of the category."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.config import SynthesizeConfig
from understudy.core.records import Document, Example
from understudy.data.synthesis.cells import Cell, Lengths
from understudy.data.synthesis.quota import Dev, Item, measured, quota
from understudy.errors import DataError

BY_CATEGORY = ["category"]


def pair(i: int, category: str = "a", question: str = "Who?") -> Example:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "Ada."}]
    return Example(f"{category}-{i}", turns, {"category": category, "group": f"g{i}"})


def seeds(**counts: int) -> list[Example]:
    return [pair(i, category) for category, count in counts.items() for i in range(count)]


def dev(**failures: list[float]) -> Dev:
    """Items by the name of their cell: `a`, `a__short`, `a__short__g1`."""
    items = []
    for name, values in failures.items():
        category, length, group = [*name.split("__"), "", ""][:3]
        items += [Item(Cell(category, group, length), value) for value in values]
    return Dev(items)


def wanted(rows: int, given_seeds: dict[str, int], known: Dev | None, cells: list[str] | None = None) -> dict[Any, int]:
    cfg = SynthesizeConfig(rows=rows, cells=cells or ["category", "group", "length"])  # type: ignore[arg-type]
    return dict(quota(cfg, seeds(**given_seeds), [Document("d", "text", {"group": "g1"})], known).rows)


def test_the_first_quota_follows_the_seeds_and_sums_exactly() -> None:
    assert wanted(100, {"a": 30, "b": 20, "c": 10}, None) == {("a", "", ""): 50, ("b", "", ""): 33, ("c", "", ""): 17}


def test_by_category_alone_it_follows_the_failures_as_they_are_and_forgets_no_category() -> None:
    aimed = wanted(200, {"a": 5, "b": 5}, dev(a=[0, 0, 0, 0], b=[1, 0, 1, 0]), BY_CATEGORY)
    assert aimed == {("a", "", ""): 5, ("b", "", ""): 195}
    thirds = wanted(200, {"a": 1, "b": 9}, dev(a=[1, 0], b=[0.25, 0.25]), BY_CATEGORY)
    assert 126 <= thirds[("a", "", "")] <= 134
    assert wanted(200, {"a": 3, "b": 1}, dev(a=[0], b=[0]), BY_CATEGORY) == {("a", "", ""): 150, ("b", "", ""): 50}
    unseen = wanted(200, {"a": 1, "new": 1}, dev(a=[1.0, 0.0]), BY_CATEGORY)
    assert unseen == {("a", "", ""): 100, ("new", "", ""): 100}


def test_a_cell_is_drawn_towards_its_category_and_that_towards_all() -> None:
    """The worked example of docs/synthesis.md, done by hand."""
    known = dev(a__short=[0, 0, 0, 0, 0, 0], a__long=[1, 1, 1, 0], b__short=[0, 0], b__long=[0, 0, 0, 1])
    cfg = SynthesizeConfig(rows=100)
    made = quota(cfg, seeds(a=5, b=5), [], known)
    # overall 4/16 = 0.25; a (3 + 4 * .25) / 14 = 0.2857; b (1 + 4 * .25) / 10 = 0.2
    rates = {(row["cell"]["category"], row["cell"]["length"]): row["rate"] for row in made.table}
    assert rates == {
        ("a", "short"): pytest.approx((0 + 4 * 4 / 14) / 10, abs=1e-4),
        ("a", "long"): pytest.approx((3 + 4 * 4 / 14) / 8, abs=1e-4),
        ("b", "short"): pytest.approx((0 + 4 * 0.2) / 6, abs=1e-4),
        ("b", "long"): pytest.approx((1 + 4 * 0.2) / 8, abs=1e-4),
    }
    # Weights: part of the category's items times rate: .0686, .2071, .0444, .15; shares: 95 % by weight, 5 % by items.
    assert made.rows == {("a", "", "long"): 43, ("a", "", "short"): 15, ("b", "", "long"): 32, ("b", "", "short"): 10}


def test_many_cells_give_a_category_no_more_rows_than_few() -> None:
    known = dev(a__short=[1, 0], a__middle=[1, 0], a__long=[1, 0], b__short=[1, 0, 1, 0, 1, 0])
    made = wanted(120, {"a": 1, "b": 1}, known)
    assert sum(rows for cell, rows in made.items() if cell[0] == "a") == 60


def test_a_group_without_documents_counts_for_any_document_and_one_with_keeps_its_rows() -> None:
    known = dev(a__short__g1=[1, 1], a__short__g2=[1, 1], a__short__g3=[1, 1])
    cfg = SynthesizeConfig(rows=30)
    made = quota(cfg, seeds(a=1), [Document("d", "text", {"group": "g1"})], known)
    assert made.rows == {("a", "", "short"): 20, ("a", "g1", "short"): 10}
    assert made.notes == {"moved_no_document": 20}


def test_a_category_without_seeds_gives_its_rows_to_cells_of_the_same_length() -> None:
    known = dev(a__short=[1, 1], a__long=[1, 1], gone__short=[1, 1, 1, 1])
    made = quota(SynthesizeConfig(rows=100), seeds(a=1), [], known)
    assert sum(made.rows.values()) == 100 and made.notes["moved_no_seed"] == pytest.approx(47, abs=1)
    assert made.rows[Cell("a", "", "short")] > 2 * made.rows[Cell("a", "", "long")]
    assert {cell.category for cell in made.rows} == {"a"}


def test_dev_rows_without_a_category_count_for_the_one_that_has_none() -> None:
    rows = [{"id": str(i), "category": c, "values": {"m": v}} for i, (c, v) in enumerate(((None, 0.0), ("a", 1.0)))]
    known = measured([], rows, "m", BY_CATEGORY)
    seeded = [Example("s", [{"role": "user", "content": "Q"}], {}), pair(1)]
    made = quota(SynthesizeConfig(rows=200, cells=["category"]), seeded, [], known)
    assert made.rows == {("", "", ""): 195, ("a", "", ""): 5}


def scores(values: dict[str, list[float]], metric: str = "m") -> list[dict[str, Any]]:
    return [{"id": i, "category": "a", "group": None, "values": {metric: v}} for i, vs in values.items() for v in vs]


def test_samples_of_an_item_count_as_one_and_lengths_are_terciles_of_dev() -> None:
    questions = ["?" * n for n in (5, 9, 10, 20, 21, 30, 40, 41, 80)]
    examples = [pair(i, question=q) for i, q in enumerate(questions)]
    known = measured(examples, scores({f"a-{i}": [0.0, 1.0, 1.0] for i in range(9)}), "m", ["category", "length"])
    assert known.lengths == Lengths(5, 10, 30, 80)
    assert [item.cell.length for item in known.items] == ["short"] * 3 + ["middle"] * 3 + ["long"] * 3
    assert all(item.failure == pytest.approx(1 / 3) for item in known.items)
    assert [known.lengths.bounds(n) for n in ("short", "middle", "long")] == [(5, 10), (11, 30), (31, 80)]


def test_questions_of_one_length_are_told_apart_by_nothing() -> None:
    examples = [pair(i, question="Who teaches?") for i in range(9)]
    known = measured(examples, scores({f"a-{i}": [1.0] for i in range(9)}), "m", ["category", "length"])
    assert known.lengths is None and {item.cell for item in known.items} == {Cell("a")}


@pytest.mark.parametrize(
    ("metric", "values", "lower", "failures"),
    [
        ("coverage", [0, 1], False, [1, 0]),
        ("judge_similarity", [30, 90], False, [0.7, 0.1]),
        ("loss", [2.5, 0.5], True, [2.5, 0.5]),
        ("refusal", [0, 1], True, [0, 1]),
        ("sentiment", [2, 5, 3.5], False, [1, 0, 0.5]),
        ("length", [7, 7], False, [1, 1]),
    ],
)
def test_failure_is_far_from_good_in_the_metrics_own_unit(
    metric: str, values: list[float], lower: bool, failures: list[float]
) -> None:
    rows = scores({str(i): [v] for i, v in enumerate(values)}, metric)
    items = measured([], rows, metric, BY_CATEGORY, lower=lower).items
    assert [item.failure for item in items] == pytest.approx(failures)


def test_scores_without_the_metric_and_no_seeds_are_refused() -> None:
    with pytest.raises(DataError, match=r"SYNTH_NO_METRIC.*'coverage'"):
        measured([], scores({"a": [1.0]}), "coverage", BY_CATEGORY)
    with pytest.raises(DataError, match="SYNTH_NO_SEEDS"):
        quota(SynthesizeConfig(), [], [])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from([["category"], ["category", "length"], ["category", "group", "length"]]))
def test_any_quota_sums_exactly_and_asks_only_for_what_can_be_written(seed: int, cells: list[str]) -> None:
    draw = random.Random(seed)
    names = [f"c{i}" for i in range(draw.randint(1, 8))]
    seeded = {name: draw.randint(1, 5) for name in names if draw.random() < 0.8} or {"c0": 1}
    documents = [Document(f"d{i}", "text", {"group": f"g{i}"}) for i in range(3)]
    items = []
    for name in names:
        for _ in range(draw.randint(0, 6)):
            group = f"g{draw.randint(0, 6)}" if "group" in cells else ""
            length = draw.choice(["short", "middle", "long"]) if "length" in cells else ""
            items.append(Item(Cell(name, group, length), draw.choice([0.0, 1.0, draw.random()])))
    cfg = SynthesizeConfig(rows=draw.randint(1, 500), cells=cells)  # type: ignore[arg-type]
    made = quota(cfg, seeds(**seeded), documents, Dev(items))
    assert sum(made.rows.values()) == cfg.rows and min(made.rows.values()) >= 0
    assert {cell.category for cell in made.rows} == set(seeded)
    assert {cell.group for cell in made.rows} <= {"", "g0", "g1", "g2"}
