"""Cleaning, deduplication and the division of rows: nothing is lost, nothing leaks, nothing depends on chance."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.config import CleanConfig, DedupeConfig, SplitConfig
from understudy.core.records import Document, Example, Ledger, Record, digest, read_jsonl, read_records, write_jsonl
from understudy.data import shards
from understudy.data.clean import clean, clean_text
from understudy.data.duplicates.dedupe import dedupe
from understudy.data.splits.assign import assign
from understudy.data.splits.outline import group_of, outline
from understudy.data.splits.split import hold, split
from understudy.errors import DataError

NAMES = ("train", "validation", "documents", "seed", "dev")


def example(own: str, prompt: str = "", answer: str = "yes", **meta: Any) -> Example:
    content = [{"role": "user", "content": prompt or f"q {own}"}, {"role": "assistant", "content": answer}]
    return Example(own, content, meta)


def cleaned(tmp_path: Path, *records: Record, **options: Any) -> tuple[Ledger, list[Record], list[dict[str, Any]]]:
    write_jsonl(tmp_path / "in.jsonl", records)
    ledger = clean(CleanConfig(**options), tmp_path / "in.jsonl", tmp_path)
    assert ledger.balanced
    return ledger, read_records(tmp_path / "rows.jsonl"), list(read_jsonl(tmp_path / "rejects.jsonl"))


def test_no_text_keeps_a_file_from_being_written(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "x.jsonl", [Document("a", "\ud83d! \U0001f600"), {"\udc00": ["\ud83d\n"]}])
    first, second = read_jsonl(tmp_path / "x.jsonl")
    assert first["text"] == "\ufffd! \U0001f600" and second == {"\ufffd": ["\ufffd\n"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cafe\u0301", "caf\u00e9"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\u0000b\u0007", "ab"),
        ("  a\u00a0\u2003 b  \n\n\n\nc  ", "a b\n\nc"),
        ("def f():\n    return 1", "def f():\n    return 1"),
        ("<p>One</p><p>Two <b class='x'>bold</b></p>", "One\n\nTwo bold"),
        ("<script>x()</script>AT&amp;T &lt;b&gt; &#1071;<!-- no -->", "AT&T <b> Я"),
        ("a<b and c>d, <<48/2=24>>24, x < y > z, &copy=1", "a<b and c>d, <<48/2=24>>24, x < y > z, &copy=1"),
        ("```html\n<p>&amp;</p>\n``` <p>x", "```html\n<p>&amp;</p>\n```\nx"),
    ],
)
def test_text_is_normalised(text: str, expected: str) -> None:
    assert clean_text(text, True, {}) == expected


def test_markup_stays_when_asked() -> None:
    assert clean_text("<b>x</b> &amp;", False, {}) == "<b>x</b> &amp;"


def test_every_turn_and_the_facts_are_cleaned_alike(tmp_path: Path) -> None:
    context, question = " The <b>cafe\u0301</b>  is open. \n\n\n", "\n When?  "
    meta = {"context": context, "question": question, "facts": ["cafe\u0301  x", "  "], "answers": ["&lt;1"]}
    e = example("1", f"{context}\n\nQuestion: {question}", "the cafe\u0301  x\u0000", **meta)
    ledger, [got], _ = cleaned(tmp_path, e)
    assert isinstance(got, Example) and got.answer == "the café x"
    assert got.meta == {"context": "The café is open.", "question": "When?", "facts": ["café x"], "answers": ["<1"]}
    assert got.messages[0]["content"] == "The café is open.\n\nQuestion: When?"
    assert ledger.notes["changed"] == 1


def test_rows_outside_the_limits_are_dropped_with_a_reason(tmp_path: Path) -> None:
    rows = [Document("a", "<p> </p>"), Document("b", "xy"), Document("c", "x" * 50), Document("d", "fine")]
    ledger, kept, rejects = cleaned(tmp_path, *rows, example("e", "<br>"), min_chars=3, max_chars=40)
    assert [r.id for r in kept] == ["d"]
    assert ledger.rejected == {"TEXT_BLANK": 2, "TEXT_SHORT": 1, "TEXT_LONG": 1}
    assert [(r["where"], r["reason"]) for r in rejects] == [
        ("a", "TEXT_BLANK"), ("b", "TEXT_SHORT"), ("c", "TEXT_LONG"), ("e", "TEXT_BLANK"),
    ]  # fmt: skip


@given(text=st.text())
@settings(max_examples=100, deadline=None)
def test_cleaning_without_markup_twice_changes_nothing_more(text: str) -> None:
    once = clean_text(text.encode("utf-8", "replace").decode(), False, {})
    assert clean_text(once, False, {}) == once


def deduped(tmp_path: Path, *records: Record, **options: Any) -> tuple[Ledger, list[str], list[dict[str, Any]]]:
    write_jsonl(tmp_path / "in.jsonl", records)
    ledger = dedupe(DedupeConfig(**options), tmp_path / "in.jsonl", tmp_path)
    assert ledger.balanced
    return ledger, [r.id for r in read_records(tmp_path / "rows.jsonl")], list(read_jsonl(tmp_path / "rejects.jsonl"))


def test_answers_keep_letters_and_punctuation_only_and_prompts_stay(tmp_path: Path) -> None:
    row = example("a", "Гороскоп на 21.11.2026 \U0001f52e", "День №1 — удача: 100 % \U0001f31f!\n  Ёлка, cafe\u0301…")
    ledger, (kept, plain), _ = cleaned(tmp_path, row, Document("d", "5 слов, 3 = лишние"), characters="letters")
    assert isinstance(kept, Example) and isinstance(plain, Document)
    assert kept.messages[0]["content"] == "Гороскоп на 21.11.2026 \U0001f52e"
    assert kept.answer == "День — удача: % !\n  Ёлка, caf\u00e9…" and plain.text == "слов, лишние"
    assert ledger.notes["characters_removed"] == 2


def test_long_answers_are_dropped_by_their_own_length(tmp_path: Path) -> None:
    rows = [
        example("short", "q" * 600, "a" * 299),
        example("fits", "q" * 600, "b" * 500),
        example("long", "q", "c" * 501),
    ]
    _, kept, rejects = cleaned(tmp_path, *rows, min_chars=300, max_answer_chars=500)
    assert [r.id for r in kept] == ["fits"]
    assert [r["reason"] for r in rejects] == ["TEXT_SHORT", "TEXT_LONG"]


def test_the_first_of_equals_stays_and_the_reject_names_it(tmp_path: Path) -> None:
    rows = [Document("a", "One  TWO"), Document("b", "one two\n"), Document("c", "CAFE\u0301"), Document("d", "café")]
    ledger, kept, rejects = deduped(tmp_path, *rows)
    assert kept == ["a", "c"] and ledger.rejected == {"DUPLICATE": 2}
    assert [(r["where"], r["detail"]) for r in rejects] == [("b", "same content as a"), ("d", "same content as c")]
    assert deduped(tmp_path, *rows, normalise=False, near=False)[1] == ["a", "b", "c", "d"]


def test_one_prompt_with_two_answers_is_no_duplicate(tmp_path: Path) -> None:
    rows: list[Record] = [example("a", "q", "x"), example("b", "Q", "y"), example("c", "q ", "X"), Document("d", "q")]
    assert deduped(tmp_path, *rows)[1] == ["a", "b", "d"]


Divided = tuple[dict[str, list[Record]], Ledger]


def divided(tmp_path: Path, corpus: list[Record], coverage: list[Record] | None, **options: Any) -> Divided:
    """Every file of `split` and `hold`, both ledgers checked."""
    write_jsonl(tmp_path / "corpus.jsonl", corpus)
    cover = tmp_path / "coverage.jsonl" if coverage is not None else None
    if cover:
        write_jsonl(cover, coverage or [])
    cfg = SplitConfig(**options)
    ledger = split(cfg, tmp_path / "corpus.jsonl", cover, tmp_path / "data")
    held = hold(cfg, tmp_path / "corpus.jsonl", cover, tmp_path / "held")
    assert ledger.balanced and held.balanced
    assert ledger.rows_in == held.rows_in == len(corpus) + len(coverage or [])
    files = {name: read_records(tmp_path / "data" / f"{name}.jsonl") for name in NAMES}
    files["held"] = read_records(tmp_path / "held" / "held.jsonl")
    assert held.rows_out == len(files["held"]) == ledger.rejected.get("held", 0) + ledger.rejected.get("test", 0)
    return files, ledger


def pairs(groups: int, size: int = 4, categories: int = 4) -> list[Record]:
    return [
        example(f"p{g}-{i}", group=f"prof {g}", category=f"c{i % categories}", context=f"page {g}")
        for g in range(groups)
        for i in range(size)
    ]


def groups_in(records: list[Record]) -> set[str]:
    return {group_of(r) for r in records}


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_60_groups_of_4_give_exactly_60_60_120(tmp_path: Path, seed: int) -> None:
    corpus: list[Record] = [Document(f"d{i}", f"text {i}", {"group": f"prof {i}"}) for i in range(80)]
    files, ledger = divided(tmp_path, corpus, pairs(60), seed=seed)
    assert [len(files[n]) for n in ("seed", "dev", "held")] == [60, 60, 120]
    parts = [groups_in(files[n]) for n in ("seed", "dev", "held")]
    assert sum(map(len, parts)) == 60 == len(set.union(*parts))
    # Documents of the 45 dev and held groups are out, those of seed groups and of nobody stay.
    assert ledger.rejected == {"group_in_coverage": 45, "held": 120}
    assert not groups_in(files["documents"]) & (parts[1] | parts[2])
    assert len(files["documents"]) == 35


def test_each_category_is_in_seed_dev_and_held_in_proportion(tmp_path: Path) -> None:
    cover: list[Record] = [example(f"x{i}", category="rare" if i < 3 else "ab"[i % 2]) for i in range(100)]
    files, _ = divided(tmp_path, [Document("d", "t")], cover, seed_pairs=20, dev_pairs=20)
    counts = {n: Counter(r.meta["category"] for r in files[n]) for n in ("seed", "dev", "held")}
    assert all(c["rare"] == 1 for c in counts.values())
    assert [sum(c.values()) for c in counts.values()] == [20, 20, 60]
    assert all(8 <= counts[n][k] <= 12 for n in ("seed", "dev") for k in "ab")


@given(sizes=st.lists(st.integers(1, 6), min_size=12, max_size=30), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_uneven_groups_never_straddle_and_come_near_the_target(sizes: list[int], seed: int) -> None:
    cover: list[Record] = [
        example(f"{g}-{i}", group=str(g), category=f"c{(g + i) % 3}") for g, n in enumerate(sizes) for i in range(n)
    ]
    outlines = list(map(outline, cover))
    placed = assign(SplitConfig(seed_pairs=5, dev_pairs=4, seed=seed), [outline(Document("d", "t"))], outlines)
    files = {n: [p.row for p in placed if p.split == n] for n in ("seed", "dev", "held")}
    parts = [{row.group for row in rows} for rows in files.values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(sizes)
    assert abs(len(files["seed"]) - 5) <= 3 and abs(len(files["dev"]) - 4) <= 3


def test_what_dev_and_held_hold_is_taken_out_of_training(tmp_path: Path) -> None:
    cover = pairs(4, 1, 1)
    corpus: list[Record] = [
        *(Document(f"page-{g}", f"  PAGE  {g} ") for g in range(4)),
        *(example(f"prompt-{g}", f"Q p{g}-0") for g in range(4)),
        *(example(f"group-{g}", group=f"PROF  {g}") for g in range(4)),
        *(Document(f"free-{i}", f"free {i}") for i in range(3)),
    ]
    files, ledger = divided(tmp_path, corpus, cover, seed_pairs=1, dev_pairs=1, validation=0.0)
    [seed_group] = groups_in(files["seed"])
    number = seed_group.split()[-1]
    kept = {r.id for n in ("train", "validation", "documents") for r in files[n]}
    assert kept == {f"page-{number}", f"prompt-{number}", f"group-{number}", "free-0", "free-1", "free-2"}
    out = {"group_in_coverage": 3, "text_in_coverage": 3, "prompt_in_coverage": 3, "held": 2}
    assert ledger.rejected == out
    rejects = list(read_jsonl(tmp_path / "data" / "rejects.jsonl"))
    assert len(rejects) == 9 and not any("p0-0" in str(r) for r in rejects)


def test_a_prompt_that_two_splits_share_stays_in_the_better_protected_one(tmp_path: Path) -> None:
    cover: list[Record] = [example(f"x{i}", "same prompt" if i < 6 else f"other {i}") for i in range(30)]
    files, ledger = divided(tmp_path, [Document("d", "t")], cover, seed_pairs=8, dev_pairs=8)
    where = {
        n
        for n in ("seed", "dev", "held")
        for r in files[n]
        if isinstance(r, Example) and r.messages[0]["content"] == "same prompt"
    }
    assert where == {"held"} and ledger.rejected["prompt_in_coverage"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("covered", [True, False])
def test_the_files_are_the_same_for_every_number_of_workers_and_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, covered: bool
) -> None:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    texts = [" ".join(f"{word}{i // 2 if i < 20 else i}" for word in words) for i in range(400)]
    corpus: list[Record] = [Document(f"d{i}", text, {"group": f"g{i}"}) for i, text in enumerate(texts[:300])]
    corpus += [example(f"e{i}", text, text.upper(), group=f"e{i // 3}") for i, text in enumerate(texts[300:])]
    cover: list[Record] | None = [example(f"c{i}", texts[i] + " ?", "x", group=f"c{i}") for i in range(60)]
    seen = set()
    monkeypatch.setattr(shards, "ALONE_BYTES", 0)
    for workers, size in ((1, 50 << 20), (2, 5_001)):
        monkeypatch.setattr(shards, "SHARD_BYTES", size)
        out = tmp_path / str(workers)
        out.mkdir()
        options = {"seed_pairs": 10, "dev_pairs": 10} if covered else {}
        _, ledger = divided(out, corpus, cover if covered else None, workers=workers, **options)
        if covered:
            assert ledger.rejected["LEAK_NGRAM"] >= 40
        seen.add(digest([(p.name, p.read_text()) for n in ("data", "held") for p in sorted((out / n).iterdir())]))
    assert len(seen) == 1


def test_held_does_not_read_the_corpus_when_there_is_a_coverage_set(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text("not JSON\n" * 3)
    write_jsonl(tmp_path / "coverage.jsonl", pairs(30))
    cfg = SplitConfig(seed_pairs=20, dev_pairs=20)
    ledger = hold(cfg, tmp_path / "corpus.jsonl", tmp_path / "coverage.jsonl", tmp_path / "held")
    assert ledger.balanced and ledger.rejected["corpus"] == 3 and ledger.rows_out == 80
    assert not (tmp_path / "held" / "passes").exists()


def test_without_coverage_the_test_split_is_held(tmp_path: Path) -> None:
    corpus: list[Record] = [example(f"e{i}", group=f"g{i // 2}") for i in range(100)]
    corpus += [Document(f"d{i}", f"t {i}", {"group": f"g{i}"}) for i in range(60)]
    files, ledger = divided(tmp_path, corpus, None)
    assert [len(files[n]) for n in ("train", "validation", "held", "seed", "dev")] == [80, 10, 10, 0, 0]
    assert ledger.rejected == {"test": 10, "group_in_test": 5, "group_in_validation": 5}
    assert len(files["documents"]) == 50
    parts = [groups_in(files[n]) for n in ("train", "validation", "held")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 50


def test_questions_of_one_passage_stay_together_without_a_group(tmp_path: Path) -> None:
    corpus: list[Record] = [example(f"e{i}", context=f"passage {i // 5}") for i in range(100)]
    files, ledger = divided(tmp_path, corpus, None)
    assert [len(files[n]) for n in ("train", "validation", "held")] == [80, 10, 10]
    assert ledger.rejected == {"test": 10}


@pytest.mark.parametrize(
    ("corpus", "coverage", "options", "code"),
    [
        ([example("a")], None, {}, "SPLIT_TOO_SMALL"),
        ([example("a"), example("b")], None, {}, "SPLIT_TOO_SMALL"),
        ([example(str(i), group="one") for i in range(50)], None, {}, "SPLIT_TOO_SMALL"),
        ([Document("a", "t")], pairs(30), {}, "SPLIT_TOO_SMALL"),
        ([Document("a", "t")], pairs(2, 100), {}, "SPLIT_TOO_SMALL"),
        ([example(str(i)) for i in range(50)], None, {"test": 0.0}, "SPLIT_EMPTY"),
        ([Document("a", "page 1")], pairs(3, 1), {"seed_pairs": 0, "dev_pairs": 1}, "SPLIT_EMPTY"),
        ([example(str(i), "one prompt", group=str(i)) for i in range(50)], None, {}, "SPLIT_EMPTY"),
    ],
)
def test_too_few_rows_stop_the_run(
    tmp_path: Path, corpus: list[Record], coverage: list[Record] | None, options: dict[str, Any], code: str
) -> None:
    with pytest.raises(DataError) as e:
        divided(tmp_path, corpus, coverage, **options)
    assert e.value.code == code and e.value.exit_code == 3
    assert code == "SPLIT_EMPTY" or any(c.isdigit() for c in e.value.what)


def test_the_division_is_equal_in_every_process(tmp_path: Path) -> None:
    corpus: list[Record] = [example(f"e{i}", category=f"c{i % 7}") for i in range(60)]
    write_jsonl(tmp_path / "corpus.jsonl", corpus)
    write_jsonl(tmp_path / "coverage.jsonl", pairs(30, 4, 3))
    program = (
        "import sys; from pathlib import Path; from understudy.config import SplitConfig\n"
        "from understudy.data.splits.split import split\n"
        "a, b, out = map(Path, sys.argv[1:])\n"
        "split(SplitConfig(seed_pairs=30, dev_pairs=30), a, b, out)\n"
    )
    seen = set()
    for seed in ("0", "1"):
        out = tmp_path / seed
        arguments = [str(tmp_path / "corpus.jsonl"), str(tmp_path / "coverage.jsonl"), str(out)]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[1])}
        subprocess.run([sys.executable, "-c", program, *arguments], check=True, env=environment)
        seen.add(digest([(p.name, p.read_text()) for p in sorted(out.iterdir())]))
    assert len(seen) == 1
