"""The firewall between training and measuring: what shows a dev or held pair in any guise does not train."""

from __future__ import annotations

import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leaks import KINDS, edited, plant
from test_core import Silent
from thread import TINY

from understudy.config import SplitConfig
from understudy.core.records import Document, Example, Record, read_jsonl, read_records, write_jsonl
from understudy.core.runner import Runner
from understudy.data.clean import context_turn
from understudy.data.merge import merge
from understudy.data.splits.decontaminate import Candidate, find_leaks
from understudy.data.splits.guard import Protected, build, load, page_of, save
from understudy.data.splits.outline import group_of, shows_answer
from understudy.data.splits.split import hold, split
from understudy.preflight import warnings
from understudy.project import Project

Rejects = dict[str, tuple[str, str]]


def pair(own: str, question: str, answer: str, **meta: Any) -> Example:
    prompt = context_turn(meta["context"], question) if "context" in meta else question
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return Example(own, turns, meta | ({"question": question} if "context" in meta else {}))


def divided(folder: Path, corpus: list[Record], coverage: list[Record], **options: Any) -> tuple[Rejects, list[Record]]:
    """(reason and detail of each rejected row, held rows); both ledgers balance and every row is in one place."""
    write_jsonl(folder / "corpus.jsonl", corpus)
    write_jsonl(folder / "coverage.jsonl", coverage)
    cfg = SplitConfig(**options)
    paths = (folder / "corpus.jsonl", folder / "coverage.jsonl")
    ledger = split(cfg, *paths, folder / "data")
    held_ledger = hold(cfg, *paths, folder / "held")
    assert ledger.balanced and held_ledger.balanced and ledger.rows_in == len(corpus) + len(coverage)
    rejects = {r["where"]: (r["reason"], r["detail"]) for r in read_jsonl(folder / "data" / "rejects.jsonl")}
    held = read_records(folder / "held" / "held.jsonl")
    kept = [r.id for f in (folder / "data").glob("*.jsonl") if f.stem != "rejects" for r in read_records(f)]
    places = [*kept, *rejects, *(r.id for r in held)]
    assert sorted(places) == sorted(r.id for r in [*corpus, *coverage])
    return rejects, held


@pytest.fixture(scope="module")
def advisory(advisor: ModuleType) -> tuple[list[Record], list[Record]]:
    """The course advisor: 206 pages and what a perfect teacher would write about each, 240 coverage pairs."""
    rng, people = random.Random(5), advisor.professors(7)
    corpus: list[Record] = []
    for i, p in enumerate(people[:200]):
        text = " ".join(p.sentences)
        corpus.append(Document(f"page-{i}", text, {"group": p.name}))
        for category in advisor.CATEGORIES:
            slots = p.slots(rng.randrange(2), intro_order=category == "courses")
            question = rng.choice(advisor.QUESTIONS[category]).format(**slots)
            answer = advisor.ANSWERS[category].format(**slots)
            corpus.append(pair(f"row-{i}-{category}", question, answer, context=text, group=p.name))
    rows = advisor.coverage(random.Random(9), people[200:])
    coverage: list[Record] = [
        pair(r["id"], r["question"], r["answer"], context=r["context"], group=r["group"], url=f"example.org/{r['id']}")
        for r in rows
    ]
    return corpus, coverage


def leaks_of(rejects: Rejects) -> dict[str, str]:
    return {own: reason for own, (reason, _) in rejects.items() if reason.startswith("LEAK")}


def test_fifty_planted_leaks_are_caught_and_no_row_of_the_same_template(
    tmp_path: Path, advisory: tuple[list[Record], list[Record]]
) -> None:
    corpus, coverage = advisory
    natural, held = divided(tmp_path / "a", corpus, coverage)
    assert leaks_of(natural) == {} and len(held) == 120
    chosen = random.Random(2).sample([h for h in held if isinstance(h, Example)], 50)
    planted = [plant(KINDS[i % len(KINDS)], e, i) for i, e in enumerate(chosen)]
    assert len(KINDS) == 10
    rejects, again = divided(tmp_path / "b", [*corpus, *planted], coverage)
    caught = {own for own, (reason, _) in rejects.items() if own.startswith("planted")}
    assert caught == {p.id for p in planted}
    reasons = {rejects[p.id][0] for p in planted}
    assert reasons <= {"LEAK_NGRAM", "LEAK_SOURCE", "text_in_coverage"}
    assert set(rejects) - caught == set(natural) and [h.id for h in again] == [h.id for h in held]


def test_a_leak_names_the_protected_row_and_shows_nothing_of_it(
    tmp_path: Path, advisory: tuple[list[Record], list[Record]]
) -> None:
    corpus, coverage = advisory
    _, held = divided(tmp_path / "a", corpus, coverage)
    victim = next(h for h in held if isinstance(h, Example))
    rejects, _ = divided(tmp_path / "b", [*corpus, plant("near copy", victim, 0)], coverage)
    # Pairs about one page share it as one unit, named by the first of them.
    named = rejects["planted-000"][1].split()[-1]
    assert {str(h.meta["group"]) for h in held if h.id == named} == {victim.meta["group"]}
    written = "".join(f.read_text("utf-8") for f in (tmp_path / "b" / "data").iterdir())
    for h in held:
        assert isinstance(h, Example) and h.answer
        assert h.answer not in written and h.meta["question"] not in written and h.meta["context"] not in written


def test_without_decontamination_a_leak_stays(tmp_path: Path, advisory: tuple[list[Record], list[Record]]) -> None:
    corpus, coverage = advisory
    _, held = divided(tmp_path / "a", corpus, coverage)
    leak = plant("near copy", held[0], 0)  # type: ignore[arg-type]
    assert "planted-000" in divided(tmp_path / "b", [*corpus, leak], coverage)[0]
    off = {"decontaminate": {"enabled": False}}
    assert "planted-000" not in divided(tmp_path / "c", [*corpus, leak], coverage, **off)[0]


def templated(share: float, count: int, seed: int) -> list[str]:
    """Texts of 96 words of which `share` stand in all of them, in six stretches."""
    rng = random.Random(seed)
    stock = ["".join(rng.choice("бвгдклмнпрст") + rng.choice("аеиоу") for _ in range(3)) for _ in range(4000)]
    frame, own = rng.sample(stock, 96), round(96 * (1 - share) / 6)
    starts = [16 * i + rng.randrange(17 - own) for i in range(6)]
    texts = []
    for _ in range(count):
        words = list(frame)
        for start in starts:
            words[start : start + own] = rng.sample(stock, own)
        texts.append(" ".join(words))
    return texts


@pytest.mark.parametrize("share", [0.0, 0.6, 0.85])
def test_boilerplate_is_no_leak_but_a_near_copy_within_it_is(tmp_path: Path, share: float) -> None:
    texts = templated(share, 424, seed=4)
    corpus: list[Record] = [Document(f"d{i}", text) for i, text in enumerate(texts[:400])]
    cover: list[Record] = [pair(f"p{i}", f"Что в {i}?", "да", context=t) for i, t in enumerate(texts[400:])]
    rejects, held = divided(tmp_path / "a", corpus, cover, seed_pairs=4, dev_pairs=4)
    assert leaks_of(rejects) == {} and len(held) == 16
    copies = [Document(f"copy-{h.id}", edited(h, random.Random(h.id))) for h in held if isinstance(h, Example)]
    rejects, _ = divided(tmp_path / "b", [*corpus, *copies], cover, seed_pairs=4, dev_pairs=4)
    assert leaks_of(rejects) == {copy.id: "LEAK_NGRAM" for copy in copies}


def found(protected: Example, *rows: Record, more: tuple[Example, ...] = ()) -> list[str]:
    """Ids of the rows that show a held example, by the standard settings."""
    cfg = SplitConfig().decontaminate
    guarded = [Protected(e, "held", 5, e.id) for e in (protected, *more)]
    leaks = find_leaks(build(guarded, cfg.ngram_words, cfg.share), [Candidate(r, 1, r.id) for r in rows])
    return [rows[i].id for i in leaks]


PASSAGE = (
    "Marten Holloway moved the harbour office to Quayside in March. He keeps two ledgers, one for grain and one for "
    "timber, and signs both on Fridays before the noon bell. Visitors ask for the blue door behind the chandlery."
)


def test_ten_people_who_copy_one_passage_each_in_their_own_way_hide_nothing() -> None:
    held = pair("h", "When are the ledgers signed?", "On Fridays before the noon bell.", context=PASSAGE)
    copies = [Document(f"c{i}", edited(held, random.Random(i), 0.08)) for i in range(10)]
    assert found(held, *copies, Document("other", " ".join(reversed(PASSAGE.split())))) == [c.id for c in copies]


def test_short_rows_leak_only_as_the_same_question_with_the_same_answer() -> None:
    held = pair("h", "What is 7 plus 8?", "15")
    rows = [
        pair("same", "what is 7 PLUS 8", "15."),
        pair("page", "Read aloud.", "We practise sums: what is 7 plus 8? 15, of course, said the teacher."),
        pair("other sum", "What is 7 plus 9?", "16"),
        pair("same answer", "What is 9 plus 6?", "15"),
        pair("other answer", "What is 7 plus 8?", "fifteen"),
        Document("number", "15"),
    ]
    assert found(held, *rows) == ["same", "page"]
    shorter = pair("h", "Capital of Peru?", "Lima")
    page = Document("page", "Of all I saw, the capital of Peru, Lima, I liked best.")
    assert found(shorter, pair("same", "capital of PERU", "Lima!"), page) == ["same"]


def test_a_long_answer_alone_is_a_leak_and_a_long_question_too() -> None:
    first, second = PASSAGE[: len(PASSAGE) // 2], PASSAGE[len(PASSAGE) // 2 :]
    held = pair("h", f"{first} Why is that so, and what followed from it in the end?", f"{second} That is all of it.")
    rows = [Document("answer", f"{second} That is all of it."), Document("question", first + " Why is that so, and")]
    assert found(held, *rows, Document("part", " ".join(PASSAGE.split()[:9]))) == ["answer", "question"]


def test_a_dev_pair_that_shows_a_held_one_is_no_dev_pair(tmp_path: Path) -> None:
    texts = templated(0.0, 30, seed=8)
    cover = [pair(f"p{i}", f"{t} why", "so", group=f"g{i}") for i, t in enumerate(texts)]
    options = {"seed_pairs": 8, "dev_pairs": 8}
    rejects, held = divided(tmp_path / "a", [Document("d", "t")], [*cover], **options)
    assert not leaks_of(rejects)
    dev = read_records(tmp_path / "a" / "data" / "dev.jsonl")[0]
    at = next(i for i, c in enumerate(cover) if c.id == dev.id)
    shown = next(c for c in cover if c.id == held[0].id)
    cover[at] = pair(dev.id, edited(shown, random.Random(0)), "so", group=f"g{at}")
    rejects, again = divided(tmp_path / "b", [Document("d", "t")], [*cover], **options)
    assert leaks_of(rejects) == {dev.id: "LEAK_NGRAM"} and [h.id for h in again] == [h.id for h in held]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://www.a.org/x/", "http://A.org/x?utm_source=mail#top", True),
        ("https://a.org/x?b=2&a=1", "https://a.org/x?a=1&b=2", True),
        ("https://a.org/x?a=1", "https://a.org/x?a=2", False),
        ("https://a.org/x", "https://b.org/x", False),
    ],
)
def test_a_page_is_its_address_without_what_changes_nothing(one: str, other: str, same: bool) -> None:
    pages = [page_of(Document("d", "t", {"url": url})) for url in (one, other)]
    assert (pages[0] == pages[1]) == same and 0 not in pages
    assert page_of(Document("d", "t", {"url": "http://[broken"})) == page_of(Document("d", "t")) == 0


def test_a_page_is_a_leak_and_a_group_and_a_listing_is_neither(tmp_path: Path) -> None:
    """Web rows as a site gives them: an article, twelve signs on one page, and a page that is new every day."""

    def web(own: str, page: str, day: str = "2026-11-20", **meta: Any) -> Document:
        about = {"site": "s", "collected_at": day, "url": f"https://a.org/{page}"}
        return Document(own, f"what {own} says about {own}", about | meta)

    days = [f"2026-11-{n}" for n in range(11, 21)]
    given = [web("article", "article", group="editors"), web("again", "article?utm_source=x", days[0], group="editors")]
    given[1] = Document("article", given[0].text, given[1].meta)
    given += [web(f"sign-{i}", "signs") for i in range(12)] + [web(f"day-{day}", "today", day) for day in days]
    own_file = [Document(f"chunk-{i}", f"part {i} of a long page", {"url": "https://a.org/long"}) for i in range(3)]
    for day in days:
        write_jsonl(tmp_path / day, [r for r in given if r.meta["collected_at"] == day])
    write_jsonl(tmp_path / "file", own_file)
    merge([tmp_path / "file", *(tmp_path / day for day in days)], tmp_path / "merged")
    corpus = read_records(tmp_path / "merged" / "rows.jsonl")
    assert [r.id for r in corpus if "url" in r.meta] == ["chunk-0", "chunk-1", "chunk-2", "article"]
    assert len({group_of(r) for r in corpus}) == 1 + 1 + 12 + 10
    pages = ["article", "signs", "today", "long"]
    asked = [pair(f"q-{i}-{p}", f"{i}: what of {p}?", f"{p} {i}", url=f"a.org/{p}") for p in pages for i in range(3)]
    rejects, held = divided(tmp_path / "s", corpus, asked, seed_pairs=0, dev_pairs=0, validation=0.0)
    assert len(held) == 12
    assert {own: reason for own, (reason, _) in rejects.items()} == {
        "article": "LEAK_SOURCE", **{f"chunk-{i}": "group_in_coverage" for i in range(3)},
    }  # fmt: skip


def test_a_saved_guard_judges_alike_and_holds_no_word(
    tmp_path: Path, advisory: tuple[list[Record], list[Record]]
) -> None:
    corpus, coverage = advisory
    protected = [Protected(r, "held", 5, str(r.meta["group"])) for r in coverage]
    guard = build(protected, 4, 0.5)
    save(guard, tmp_path)
    rows = [Candidate(plant(k, e, i), 1, f"x{i}") for i, k in enumerate(KINDS) if isinstance(e := coverage[i], Example)]
    assert find_leaks(load(tmp_path), rows) == find_leaks(guard, rows) and len(find_leaks(guard, rows)) == len(rows)
    written = b"".join(f.read_bytes() for f in sorted(tmp_path.iterdir()))
    assert not [r.id for r in coverage if isinstance(r, Example) and str(r.answer).split()[-1].encode() in written]
    save(build(reversed(protected), 4, 0.5), tmp_path / "again")
    assert (tmp_path / "again" / "grams.npy").read_bytes() == (tmp_path / "grams.npy").read_bytes()


def test_a_prompt_that_gives_its_answer_away_is_counted_and_told(tmp_path: Path) -> None:
    answer = "Room B12, on Monday at nine."
    rows = [pair(f"r{i}", f"Where is course {i}?", f"Course {i} is in room {i}.") for i in range(20)]
    rows += [pair(f"shown{i}", f"{i}: the answer is ROOM  B12, on Monday at nine. Where?", answer) for i in range(3)]
    rows += [
        pair("passage", "Where?", answer, context=f"We meet in {answer}"),
        pair("choice", "Yes or no, for 1?", "no"),
    ]
    (tmp_path / "data").mkdir()
    lines = [{"q": r.messages[0]["content"], "a": r.answer} for r in rows if "context" not in r.meta]
    write_jsonl(tmp_path / "data" / "rows.jsonl", lines)
    (tmp_path / "understudy.yaml").write_text(TINY)
    project = Project(tmp_path)
    run, plan, _ = project.open_run(new=False, control=None)
    runner = Runner(tmp_path, project.store, run.journal, Silent())
    steps = plan.steps[: [s.name for s in plan.steps].index("split") + 1]
    ledgers = [runner.run_step(s).artifact.ledger for s in [*steps, plan.step("hold")]]
    noted = sum(ledger.notes.get("label_leak", 0) for ledger in ledgers if ledger)
    assert noted == 3 and not shows_answer(rows[-2]) and not shows_answer(rows[-1])
    told = [line for line in warnings(project) if "LABEL_LEAK" in line]
    assert sum(int(line.split()[1]) for line in told) == 3


@given(
    leaked=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 29)), max_size=8, unique=True),
    seed=st.integers(0, 50),
)
@settings(max_examples=15, deadline=None)
def test_whatever_leaks_no_row_is_lost_twice_or_unexplained(
    tmp_path_factory: pytest.TempPathFactory, leaked: list[tuple[str, int]], seed: int
) -> None:
    texts = templated(0.3, 60, seed)
    cover: list[Record] = [
        pair(f"p{i}", f"Что в {i}?", f"ответ {t}", context=t, url=f"example.org/{i}") for i, t in enumerate(texts[:30])
    ]
    corpus: list[Record] = [Document(f"d{i}", text) for i, text in enumerate(texts[30:])]
    planted = [plant(kind, cover[at], n) for n, (kind, at) in enumerate(leaked)]  # type: ignore[arg-type]
    folder = tmp_path_factory.mktemp("leaks")
    rejects, held = divided(folder, [*corpus, *planted], cover, seed_pairs=8, dev_pairs=8, seed=seed)
    scored = {r.id for r in [*held, *read_records(folder / "data" / "dev.jsonl")]}
    shown = {p.id for p, (_, at) in zip(planted, leaked, strict=True) if f"p{at}" in scored}
    assert {own for own in rejects if own.startswith("planted")} == shown
    assert all(reason for reason, _ in rejects.values())
