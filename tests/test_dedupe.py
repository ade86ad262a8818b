"""Near duplicates: found among copies that were edited, not among templated rows; the same whatever works on them."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.duplicates import SHARES, Label, Language, generate, quality
from understudy.config import DedupeConfig
from understudy.core.records import Document, Example, Ledger, Record, read_jsonl, read_records, write_jsonl
from understudy.data import shards
from understudy.data.duplicates.dedupe import dedupe
from understudy.data.duplicates.minhash import band_count, clusters, distinct, jaccard
from understudy.errors import ResourceError

ROOT = Path(__file__).parents[1]
ENGLISH, RUSSIAN = Language("en", 7), Language("ru", 7)
Outcome = tuple[Ledger, list[str], dict[str, str]]


def deduped(tmp_path: Path, *records: Record, **options: Any) -> Outcome:
    """Ledger, kept ids, and for each reject `reason: detail`."""
    write_jsonl(tmp_path / "in.jsonl", records)
    out = tmp_path / "out"
    ledger = dedupe(DedupeConfig(**options), tmp_path / "in.jsonl", out)
    assert ledger.balanced and sorted(p.name for p in out.iterdir()) == ["rejects.jsonl", "rows.jsonl"]
    kept = read_records(out / "rows.jsonl")
    given = {r.id: r for r in records}
    assert all(given[r.id] == r for r in kept), "a row that stays is as it was given"
    rejects = {r["where"]: f"{r['reason']}: {r['detail']}" for r in read_jsonl(out / "rejects.jsonl")}
    assert ledger.rows_in == len(records) and ledger.rows_out == len(kept)
    return ledger, [r.id for r in kept], rejects


def text(seed: int, words: int = 60, language: Language = ENGLISH) -> str:
    rng = random.Random(seed)
    return " ".join(language.written(rng, language.words(rng, words)))


def changed(text: str, *places: int) -> str:
    words = text.split(" ")
    for place in places:
        words[place] = f"zq{chr(97 + place // 26)}{chr(97 + place % 26)}"
    return " ".join(words)


def chat(own: str, prompt: str, answer: str) -> Example:
    return Example(own, [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}])


@pytest.fixture(scope="module")
def corpus() -> list[tuple[Document, Label]]:
    return list(generate(5000, seed=3))


def test_edited_copies_go_and_templated_rows_stay(tmp_path: Path, corpus: list[tuple[Document, Label]]) -> None:
    ledger, kept, rejects = deduped(tmp_path, *(document for document, _ in corpus))
    found = quality(corpus, set(kept))
    assert len(corpus) == 5000 and {label.kind for _, label in corpus} == set(SHARES)
    assert found.precision >= 0.98 and found.recall >= 0.95 and found.templated_removed <= 0.01
    assert found.exact_recall == 1.0
    assert 0 < ledger.rejected["NEAR_DUPLICATE"] < 600 and ledger.rejected["DUPLICATE"] > 0
    place = {document.id: i for i, (document, _) in enumerate(corpus)}
    for where, why in rejects.items():
        kept_for = why.split()[-1]
        assert place[kept_for] < place[where] and (kept_for in kept or why.startswith("DUPLICATE"))


def test_the_output_is_the_same_for_every_number_of_workers_cut_and_hash_seed(
    tmp_path: Path, corpus: list[tuple[Document, Label]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "in.jsonl"
    write_jsonl(rows, (document for document, _ in corpus))
    monkeypatch.setattr(shards, "ALONE_BYTES", 0)
    seen = set()
    for workers, size, seed in ((1, 50 << 20, "0"), (2, 300_001, "1")):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        monkeypatch.setattr(shards, "SHARD_BYTES", size)
        out = tmp_path / str(workers)
        ledger = dedupe(DedupeConfig(workers=workers), rows, out)
        seen.add((str(ledger), *((p.name, p.read_bytes()) for p in sorted(out.iterdir()))))
    assert len(seen) == 1


@pytest.mark.parametrize(
    "twin",
    [
        lambda t: t.replace("й", "и\u0306").replace("ё", "е\u0308"),
        lambda t: t.replace("о", "\u200bо"),
        lambda t: t.replace("а", "а\u00ad"),
        lambda t: t.replace("о", "o").replace("с", "c").replace("е", "e"),
        lambda t: t.replace(" ", "  ").upper(),
        lambda t: "\u202a" + t.replace(",", " -").replace(".", "!"),
    ],
)
@pytest.mark.parametrize("length", [6, 60])
def test_twins_that_look_alike_are_found_and_the_first_is_kept_as_given(tmp_path: Path, twin: Any, length: int) -> None:
    original = "Ещё один йод, совсем о другом. " + text(1, length, RUSSIAN)
    other = twin(original)
    assert other != original
    for first, second in ((original, other), (other, original)):
        kept = deduped(tmp_path, Document("a", first), Document("b", second))[1]
        punctuation = length == 6 and "!" in other
        assert kept == (["a", "b"] if punctuation else ["a"])


def test_the_reject_names_the_similarity_and_the_row_that_stays(tmp_path: Path) -> None:
    a, b = text(1), text(2)
    rows = [Document("a", a), Document("b", b), Document("a2", changed(a, 30)), Document("b2", changed(b, 10, 40))]
    _, kept, rejects = deduped(tmp_path, *rows)
    assert kept == ["a", "b"]
    # 59 pairs of words; each changed word breaks two and makes two: 57 of 61, 55 of 63, unless a pair stands twice.
    assert rejects["a2"].startswith("NEAR_DUPLICATE: similarity 0.9") and rejects["a2"].endswith(" to a")
    assert rejects["b2"].startswith("NEAR_DUPLICATE: similarity 0.8") and rejects["b2"].endswith(" to b")
    assert deduped(tmp_path, *rows, near=False)[1] == ["a", "b", "a2", "b2"]
    assert deduped(tmp_path, *rows, similarity=0.91)[1] == ["a", "b", "b2"]


def test_short_texts_must_read_the_same(tmp_path: Path) -> None:
    rows = ["We met 5 people in the old town.", "We met 7 people in the old town.", "x = -5", "x = 5", "сор", "cop"]
    assert len(deduped(tmp_path, *(Document(str(i), t) for i, t in enumerate(rows)))[1]) == len(rows)
    long = text(5, 20)
    assert deduped(tmp_path, Document("a", long), Document("b", changed(long, 9)))[1] == ["a"]
    short = text(5, 19)
    assert deduped(tmp_path, Document("a", short), Document("b", changed(short, 9)))[1] == ["a", "b"]


def test_boilerplate_does_not_make_rows_alike_and_hides_no_copies(tmp_path: Path) -> None:
    letter = text(11, 120)
    rows = [Document(f"r{i}", f"{letter} {text(100 + i, 25)} Yours.") for i in range(40)]
    rows += [Document(f"copy{i}", changed(rows[i].text, 130)) for i in range(5)]
    _, kept, rejects = deduped(tmp_path, *rows)
    assert kept == [f"r{i}" for i in range(40)]
    assert all(rejects[f"copy{i}"].endswith(f" to r{i}") for i in range(5))
    assert len(deduped(tmp_path, *rows, boilerplate_rows=1000)[1]) == 1


def test_a_long_chain_of_small_changes_does_not_remove_its_far_end(tmp_path: Path) -> None:
    rows, words = list[Document](), text(21, 100).split(" ")
    for step in range(12):
        rows.append(Document(f"v{step}", " ".join(words)))
        for place in range(step * 8, step * 8 + 8):
            words[place] = f"new{place}"
    _, kept, rejects = deduped(tmp_path, *rows)
    assert kept[0] == "v0" and 2 <= len(kept) <= 6
    assert all(float(why.split()[2]) >= 0.45 for why in rejects.values())


def test_examples_are_duplicates_only_when_prompt_and_answer_are(tmp_path: Path) -> None:
    prompt, answer = text(31), text(32)
    rows: list[Record] = [
        chat("a", prompt, answer),
        chat("near-both", changed(prompt, 20), changed(answer, 20)),
        chat("same-prompt", prompt, changed(answer, 25)),
        chat("other-answer", changed(prompt, 21), text(33)),
        chat("short-a", changed(prompt, 22), "Yes."),
        chat("short-b", changed(prompt, 23), "No."),
        chat("short-c", changed(prompt, 24), "yes."),
        chat("number-a", f"{prompt} Add 5 to it.", answer),
        chat("number-b", f"{prompt} Add 6 to it.", answer),
        Document("document", f"{prompt}\n{answer}"),
    ]
    _, kept, rejects = deduped(tmp_path, *rows)
    assert set(rejects) == {"near-both", "short-c"}
    assert rejects["near-both"].endswith(" to a") and rejects["short-c"].endswith(" to short-a")


def test_questions_about_one_passage_are_not_duplicates(tmp_path: Path) -> None:
    passage = text(41, 150)
    questions = ["Who founded it?", "Where was it founded?", "When did they leave the town for good, and why so late?"]
    rows = [chat(str(i), f"{passage}\n\nQuestion: {q}", "The mayor.") for i, q in enumerate(questions)]
    rows.append(chat("again", f"{changed(passage, 50)}\n\nQuestion: {questions[0]}", "the  mayor."))
    _, kept, rejects = deduped(tmp_path, *rows)
    assert kept == ["0", "1", "2"] and rejects["again"].endswith(" to 0")


def test_rows_of_two_languages_or_kinds_are_never_duplicates(tmp_path: Path) -> None:
    english, russian = text(51), text(51, 60, RUSSIAN)
    rows: list[Record] = [
        Document("e", english),
        Document("r", russian),
        chat("c", english, ""),
        chat("d", russian, ""),
    ]
    assert len(deduped(tmp_path, *rows)[1]) == 4


def test_an_empty_corpus_and_blank_rows_pass(tmp_path: Path) -> None:
    assert deduped(tmp_path)[1] == []
    assert deduped(tmp_path, Document("a", "..."), Document("b", "!!!"), Document("c", "\U0001f600"))[1] == [
        "a",
        "b",
        "c",
    ]


def test_bands_find_nearly_all_pairs_at_the_limit() -> None:
    for similarity in (0.3, 0.6, 0.9):
        count = band_count(similarity)
        assert (1 - similarity**4) ** count <= 0.02 < (1 - similarity**4) ** (count - 1)


def test_clusters_are_the_connected_rows() -> None:
    assert list(clusters([(4, 9), (1, 4), (2, 3), (7, 9)])) == [[1, 4, 7, 9], [2, 3]]


def die(task: dict[str, Any]) -> None:
    os.kill(os.getpid(), 9)


def noisy(task: dict[str, Any]) -> int:
    print("this must not reach the answers")
    return int(task["n"]) ** 2


def fail(task: dict[str, Any]) -> None:
    raise ResourceError("FULL", "disk", "no room", "make room")


@given(st.lists(st.lists(st.integers(0, 9), max_size=40), max_size=30))
def test_sets_are_those_of_each_text(texts: list[list[int]]) -> None:
    keys = np.array([key for text in texts for key in text], np.uint32)
    sets = distinct(keys, np.array([len(text) for text in texts], np.int64))
    found = [sets.shingles[a:b].tolist() for a, b in itertools.pairwise(sets.bounds.tolist())]
    assert found == [sorted(set(text)) for text in texts]
    some = [i for i, text in enumerate(texts) if text]
    pairs = np.array([(i, j) for i in some for j in some], np.int64).reshape(-1, 2)
    wanted = [len(set(texts[i]) & set(texts[j])) / len(set(texts[i]) | set(texts[j])) for i, j in pairs.tolist()]
    assert jaccard(sets, pairs[:, 0], pairs[:, 1]).tolist() == wanted


def numbered(count: int) -> Iterator[dict[str, int]]:
    yield from ({"n": i} for i in range(count))


def test_workers_answer_in_order_and_their_errors_come_back() -> None:
    with shards.Workers(3) as workers:
        assert list(workers.map(noisy, numbered(50))) == [i * i for i in range(50)]
        with pytest.raises(ResourceError, match=r"error\[FULL\] disk: no room; make room"):
            list(workers.map(fail, numbered(5)))
        assert list(workers.map(noisy, numbered(2))) == [0, 1]
        with pytest.raises(ResourceError) as e:
            list(workers.map(die, numbered(5)))
    assert e.value.code == "WORKER_LOST" and "signal 9" in e.value.what
    assert not any(worker.usable() for worker in workers.started)  # each was killed by its task


@pytest.mark.slow
def test_workers_wait_for_the_next_stage_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "IDLE_S", 0.5)

    def block(number: int) -> list[int]:
        with shards.Workers(2) as workers:
            assert list(workers.map(noisy, numbered(4))) == [0, 1, 4, 9]
            return [worker.process.pid for worker in workers.started]

    first = block(1)
    assert sorted(block(2)) == sorted(first)
    monkeypatch.setenv("LC_ALL", "C")  # a worker that was started under other settings is not taken again
    assert not set(block(3)) & set(first)
    with pytest.raises(RuntimeError, match="mine"), shards.Workers(2) as workers:
        list(workers.map(noisy, numbered(4)))
        raise RuntimeError("mine")
    assert all(worker.process.poll() is not None for worker in workers.started)
    deadline = time.monotonic() + 20
    while shards._idle.workers and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not shards._idle.workers and not any(Path(f"/proc/{pid}").exists() for pid in first)


def test_a_script_without_a_main_guard_can_call_the_stage(tmp_path: Path) -> None:
    """A worker does not run the caller's main module again, as multiprocessing's spawn would."""
    write_jsonl(tmp_path / "in.jsonl", (Document(str(i), text(i)) for i in range(100)))
    (tmp_path / "script.py").write_text(
        "from pathlib import Path\n"
        "from understudy.config import DedupeConfig\n"
        "from understudy.data import shards\n"
        "from understudy.data.duplicates import dedupe\n"
        "print('once')\n"
        "shards.ALONE_BYTES, shards.SHARD_BYTES = 0, 10_000\n"
        "print(dedupe.dedupe(DedupeConfig(workers=2), Path('in.jsonl'), Path('out')).rows_out)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["once", "100"]
