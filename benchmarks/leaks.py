"""`make bench-leaks`: planted leaks that are missed and natural rows that are removed, by size of the n-gram.

Made-up data always; with `--data folder` the public files that lie there too. Writes `results/leaks.json` and the table
`leaks`; exit status 1 when the standard setting removes a natural row of made-up data or misses over 1 % of its leaks.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks import tables
from benchmarks.project import ROOT, machine, save
from understudy.config import CollectConfig, SourceConfig, SplitConfig
from understudy.core.records import Document, Example, Record, read_records
from understudy.data.clean import context_turn
from understudy.data.sources.collect import collect
from understudy.data.splits.assign import RANK, SCORED, assign
from understudy.data.splits.decontaminate import Candidate, find_leaks
from understudy.data.splits.guard import Protected, build
from understudy.data.splits.outline import group_of, outline

Rows = list[tuple[Record, str]]
"""Records and the splits they are in."""
SIZES = (3, 4, 5, 8, 13)
PLANTED = 30
"""Protected examples of each corpus that are shown once in every guise."""
PUBLIC = {
    "SQuAD form, English": SourceConfig(path="xquad-en.json", format="squad"),
    "SQuAD form, Russian": SourceConfig(path="xquad-ru.json", format="squad"),
    "GSM8K": SourceConfig.model_validate(
        {"path": "gsm8k-train.jsonl", "fields": {"prompt": "question", "response": "answer"}}
    ),
}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def pair(own: str, question: str, answer: str, context: str, group: str) -> Example:
    turns = [{"role": "user", "content": context_turn(context, question)}, {"role": "assistant", "content": answer}]
    return Example(own, turns, {"context": context, "question": question, "group": group})


def divided(settings: dict[str, int], corpus: list[Record], cover: list[Record] | None) -> Rows:
    """The rows that are in a split, each with its name, before any leak is looked for."""
    outlines = [list(map(outline, rows)) if rows is not None else None for rows in (corpus, cover)]
    placed = assign(SplitConfig.model_validate(settings), outlines[0] or [], outlines[1])
    return [(r, p.split) for r, p in zip([*corpus, *(cover or [])], placed, strict=True) if not p.reason]


def advisor() -> Rows:
    """The course advisor: 200 pages, six rows on each as a perfect teacher would write them, 240 coverage pairs."""
    made, rng = load(ROOT / "examples/course-advisor/generate.py"), random.Random(5)
    people, corpus = made.professors(7), list[Record]()
    for i, p in enumerate(people[:200]):
        text = " ".join(p.sentences)
        corpus.append(Document(f"page-{i}", text, {"group": p.name}))
        for category in made.CATEGORIES:
            slots = p.slots(rng.randrange(2), intro_order=category == "courses")
            asked = rng.choice(made.QUESTIONS[category]).format(**slots)
            corpus.append(pair(f"row-{i}-{category}", asked, made.ANSWERS[category].format(**slots), text, p.name))
    rows = made.coverage(random.Random(9), people[200:])
    cover: list[Record] = [pair(r["id"], r["question"], r["answer"], r["context"], r["group"]) for r in rows]
    return divided({}, corpus, cover)


def templated(share: float, documents: int = 400) -> Rows:
    """Texts of 96 words of which `share` stand in all of them, in six stretches; 48 of them have a coverage pair."""
    rng = random.Random(4)
    stock = ["".join(rng.choice("bcdfghklmnprst") + rng.choice("aeiou") for _ in range(3)) for _ in range(5000)]
    frame, own = rng.sample(stock, 96), round(96 * (1 - share) / 6)
    starts, texts = [16 * i + rng.randrange(17 - own) for i in range(6)], list[str]()
    for _ in range(documents + 48):
        words = list(frame)
        for start in starts:
            words[start : start + own] = rng.sample(stock, own)
        texts.append(" ".join(words))
    corpus: list[Record] = [Document(f"d{i}", text) for i, text in enumerate(texts[:documents])]
    cover: list[Record] = [
        pair(f"p{i}", f"What is said {i}th in it?", " ".join(t.split()[:5]), t, f"g{i}")
        for i, t in enumerate(texts[documents:])
    ]
    return divided({"seed_pairs": 8, "dev_pairs": 8}, corpus, cover)


def public(source: SourceConfig, data: Path, scratch: Path) -> Rows:
    collect(CollectConfig(sources=[source]), data, scratch)
    rows = read_records(scratch / "rows.jsonl")[:1000]
    return divided({}, rows, None)


def corpora(data: Path | None, scratch: Path) -> Iterator[tuple[str, Rows]]:
    yield "course advisor", advisor()
    for share in (0.6, 0.85):
        yield f"{share:.0%} boilerplate", templated(share)
    for name, source in PUBLIC.items():
        if data and (data / str(source.path)).is_file():
            yield name, public(source, data, scratch / name.replace(" ", "-"))


def measure(rows: Rows, guises: ModuleType, size: int, share: float) -> dict[str, int]:
    """Rows and how many of them are taken for leaks; planted leaks and how many are missed."""
    scored = [r for r, split in rows if split in SCORED[1:] and isinstance(r, Example)]
    for e in scored:
        e.meta["url"] = f"example.org/{e.id}"
    guarded = [
        Protected(r, split, RANK[split], group_of(r)) for r, split in rows if split in SCORED and isinstance(r, Example)
    ]
    guard = build(guarded, size, share)
    own = [Candidate(r, RANK[split], group_of(r)) for r, split in rows if split not in SCORED[1:]]
    chosen = random.Random(1).sample(scored, min(PLANTED, len(scored)))
    missed = 0
    for kind in guises.KINDS:
        shown = [guises.plant(kind, e, i) for i, e in enumerate(chosen)]
        found = find_leaks(guard, [*own, *(Candidate(r, 0, group_of(r)) for r in shown)])
        missed += sum(i not in found for i in range(len(own), len(own) + len(shown)))
    planted = len(chosen) * len(guises.KINDS)
    return {"rows": len(own), "removed": len(find_leaks(guard, own)), "planted": planted, "missed": missed}


def render(results: dict[str, dict[str, dict[str, int]]]) -> str:
    header = ["natural rows removed / planted leaks missed", *(f"{size}-grams" for size in SIZES)]
    rows = []
    for name, by_size in results.items():
        first = next(iter(by_size.values()))
        cells = [f"{r['removed']} / {r['missed']}" for r in by_size.values()]
        rows.append([f"{name}: {first['rows']:,} rows, {first['planted']} planted", *cells])
    return tables.table(header, rows)


def main() -> int:
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    guises, share = load(ROOT / "tests/leaks.py"), SplitConfig().decontaminate.share
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, placed in corpora(args.data, Path(scratch)):
            results[name] = {str(size): measure(placed, guises, size, share) for size in SIZES}
            print(name, results[name], flush=True)
    save("leaks", {"machine": machine(), "share": share, "corpora": results})
    tables.update("leaks", render(results))
    standard = str(SplitConfig().decontaminate.ngram_words)
    made_up = [by_size[standard] for name, by_size in results.items() if name not in PUBLIC]
    return int(any(r["removed"] or r["missed"] > 0.01 * r["planted"] for r in made_up))


if __name__ == "__main__":
    sys.exit(main())
