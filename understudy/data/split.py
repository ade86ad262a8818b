"""Who sees what: one pure assignment of corpus and coverage rows, written by `split` and, for held, by `hold`.

Groups are drawn whole in a seeded hash order that runs evenly through the categories. What dev and held hold (a group,
a prompt, a passage, or most of one's n-grams) is taken out of everything less protected: train < validation < seed <
dev < held or test.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from understudy.config import SplitConfig
from understudy.core.records import Document, Example, Ledger, Record, digest, read_records, write_jsonl
from understudy.data.decontaminate import Candidate, find_leaks
from understudy.data.dedupe import fold
from understudy.data.guard import Protected, build, page_of, save
from understudy.errors import DataError

TRAIN, VALIDATION, DOCUMENTS, SEED, DEV = "train", "validation", "documents", "seed", "dev"
FILES = (TRAIN, VALIDATION, DOCUMENTS, SEED, DEV)
GUARDED = (VALIDATION, DEV, "held", "test")
SCORED = (DEV, "held", "test")
RANK = {name: i for i, name in enumerate((DOCUMENTS, TRAIN, VALIDATION, SEED, DEV, "held", "test"))}
"""What a better protected split holds is taken out of the others."""


LABEL_LEAK, LABEL_WORDS = "label_leak", 3
"""Note of examples whose prompt holds the answer; shorter answers stand in prompts as choices to pick from."""


@dataclass(slots=True)
class Placed:
    """A record and its split, or the reason why it is in none."""

    record: Record
    split: str
    reason: str = ""
    detail: str = ""


def split(cfg: SplitConfig, rows: Path, coverage: Path | None, out: Path) -> Ledger:
    """Write train, validation, documents, seed and dev; without coverage, seed and dev are empty.

    Rows set aside are rejected as `held` or `test`; rejects.jsonl names the others by id only.
    Raises DataError SPLIT_TOO_SMALL and SPLIT_EMPTY.
    """
    return _write(cfg, rows, coverage, out, FILES)


def hold(cfg: SplitConfig, rows: Path, coverage: Path | None, out: Path) -> Ledger:
    """Write held.jsonl: the coverage pairs that are neither seed nor dev, or without coverage the test examples."""
    return _write(cfg, rows, coverage, out, ("held",))


def _write(cfg: SplitConfig, rows: Path, coverage: Path | None, out: Path, files: Sequence[str]) -> Ledger:
    placed = assign(cfg, read_records(rows), read_records(coverage) if coverage else None)
    ledger, chosen = Ledger(rows_in=len(placed)), {name: list[Record]() for name in files}
    for p in placed:
        name = "held" if p.split == "test" and "held" in chosen else p.split
        if not p.reason and name in chosen:
            chosen[name].append(p.record)
        else:
            ledger.reject(p.reason or p.split)
    if "held" in chosen and not chosen["held"]:
        raise DataError("SPLIT_EMPTY", "split", "held would be empty", "raise split.test, or give a coverage set")
    if shown := sum(shows_answer(r) for records in chosen.values() for r in records):
        ledger.note(LABEL_LEAK, shown)
    for name, records in chosen.items():
        ledger.rows_out += write_jsonl(out / f"{name}.jsonl", records)
        ledger.note(f"{name}_rows", len(records))
    if TRAIN in chosen:
        refused = [p for p in placed if p.reason]
        lines = [{"where": p.record.id, "reason": p.reason, "detail": p.detail} for p in refused]
        write_jsonl(out / "rejects.jsonl", lines)
    return ledger


def assign(cfg: SplitConfig, corpus: list[Record], coverage: list[Record] | None) -> list[Placed]:
    """Each record's split or reason, corpus before coverage; a function of the rows and the config alone."""
    if coverage is None:
        placed = _by_shares(cfg, corpus)
        wanted = ["test"] if cfg.test else []
    else:
        placed = [*_training(cfg, corpus, pairs := _by_pairs(cfg, coverage)), *pairs]
        wanted = ["held", *([SEED] if cfg.seed_pairs else []), *([DEV] if cfg.dev_pairs else [])]
    _take_out_twins(placed)
    if cfg.decontaminate.enabled:
        _take_out_leaks(cfg, placed)
    left = Counter(p.split for p in placed if not p.reason)
    empty = [name for name in wanted if not left[name]]
    if coverage is None and not left[TRAIN]:
        empty.append(TRAIN)
    if coverage is not None and not left[TRAIN] + left[DOCUMENTS] + left[VALIDATION] and corpus:
        empty.append("train and documents")
    if empty:
        reasons = Counter(p.reason for p in placed if p.reason)
        why = ", ".join(f"{n} rows rejected as {reason}" for reason, n in sorted(reasons.items())) or "no rows are left"
        raise DataError("SPLIT_EMPTY", "split", f"{' and '.join(empty)} would be empty ({why})", "give more groups")
    return placed


def shows_answer(record: Record) -> bool:
    """Whether an example's own prompt, or its meta, gives the whole answer away (a passage may hold it)."""
    if not isinstance(record, Example) or record.answer is None or record.meta.get("context"):
        return False
    answer = fold(record.answer)
    given = [turn["content"] for turn in record.prompt]
    given += [str(record.meta.get(key) or "") for key in ("group", "category")]
    return len(answer.split()) >= LABEL_WORDS and any(answer in fold(text) for text in given)


def group_of(record: Record) -> str:
    """The group that must not straddle, folded for comparison: the row's own, else its passage, page or id."""
    passage = isinstance(record, Example) and _passage_key(record)
    return fold(str(record.meta.get("group") or passage or page_of(record) or record.id))


def _by_pairs(cfg: SplitConfig, coverage: list[Record]) -> list[Placed]:
    pairs = [r for r in coverage if isinstance(r, Example) and r.answer is not None]
    needed = cfg.seed_pairs + cfg.dev_pairs + 1
    groups = len({group_of(p) for p in pairs})
    splits = 1 + bool(cfg.seed_pairs) + bool(cfg.dev_pairs)
    if len(pairs) < needed or groups < splits:
        asked = f"{cfg.seed_pairs} seed, {cfg.dev_pairs} dev and some held pairs"
        what = f"{len(pairs)} coverage pairs in {groups} groups cannot give {asked}"
        raise DataError("SPLIT_TOO_SMALL", "coverage", what, "give more pairs, or lower split.seed_pairs and dev_pairs")
    chosen = draw(pairs, {SEED: cfg.seed_pairs, DEV: cfg.dev_pairs}, "held", cfg.seed)
    usable = {id(p) for p in pairs}
    return [
        Placed(r, chosen[group_of(r)])
        if id(r) in usable
        else Placed(r, "", "not_a_pair", "a coverage row is a prompt with an answer")
        for r in coverage
    ]


def _by_shares(cfg: SplitConfig, corpus: list[Record]) -> list[Placed]:
    """Without coverage: examples into train, validation and test; a document goes with its group."""
    examples = [r for r in corpus if isinstance(r, Example)]
    groups = len({group_of(e) for e in examples})
    shares = {"test": cfg.test, VALIDATION: cfg.validation}
    if groups < 1 + sum(1 for share in shares.values() if share):
        what = f"{len(examples)} examples in {groups} groups cannot fill train, validation and test"
        raise DataError("SPLIT_TOO_SMALL", "sources", what, "give more examples, or a coverage set")
    targets = {name: max(1, round(share * len(examples))) if share else 0 for name, share in shares.items()}
    return _with_documents(corpus, draw(examples, targets, TRAIN, cfg.seed))


def _training(cfg: SplitConfig, corpus: list[Record], pairs: list[Placed]) -> list[Placed]:
    """With coverage: everything trains but the groups of dev and held, and a share of examples for validation."""
    guarded = {group_of(p.record): p.split for p in pairs if p.split in GUARDED}
    groups = [group_of(r) for r in corpus]
    free = [r for r, group in zip(corpus, groups, strict=True) if group not in guarded]
    examples = [r for r in free if isinstance(r, Example)]
    several = len({group_of(e) for e in examples}) > 1
    target = max(1, round(cfg.validation * len(examples))) if cfg.validation and several else 0
    placed = iter(_with_documents(free, draw(examples, {VALIDATION: target}, TRAIN, cfg.seed)))
    return [
        Placed(r, "", "group_in_coverage", f"its group has {split} pairs")
        if (split := guarded.get(group))
        else next(placed)
        for r, group in zip(corpus, groups, strict=True)
    ]


def _with_documents(corpus: list[Record], chosen: dict[str, str]) -> list[Placed]:
    """Documents of validation and test groups are in no split: their text would show what is measured."""
    placed = []
    for r in corpus:
        split = chosen.get(group_of(r), TRAIN) if chosen else TRAIN
        if isinstance(r, Document) and split != TRAIN:
            placed.append(Placed(r, "", f"group_in_{split}", f"its group has {split} examples"))
        else:
            placed.append(Placed(r, DOCUMENTS if isinstance(r, Document) else split))
    return placed


def draw(records: Sequence[Record], targets: dict[str, int], rest: str, seed: int) -> dict[str, str]:
    """Split of each group: `targets` rows for the named splits, as near as whole groups allow, all others `rest`.

    First every category gets a group in each split where one fits (rarest category first), then the order fills up.
    """
    members = defaultdict[str, list[Record]](list)
    for record in records:
        members[group_of(record)].append(record)
    categories = {g: {str(r.meta["category"]) for r in rs if r.meta.get("category")} for g, rs in members.items()}
    order = _even_order(members, categories, seed)
    room, chosen = dict(targets), dict[str, str]()
    room[rest] = len(records) - sum(targets.values())

    def put(group: str, name: str) -> None:
        chosen[group] = name
        room[name] -= len(members[group])

    counts = Counter(c for cs in categories.values() for c in cs)
    for category in sorted(counts, key=lambda c: (counts[c], c)):
        for name in (rest, *targets):
            if any(category in categories[g] for g, where in chosen.items() if where == name):
                continue
            fitting = (g for g in order if g not in chosen and category in categories[g])
            if group := next((g for g in fitting if len(members[g]) <= room[name]), None):
                put(group, name)
    for name in targets:
        for group in order:
            if group not in chosen and len(members[group]) <= room[name]:
                put(group, name)
        # One group more when too many is nearer than too few, or when nothing fitted; the rest keeps a group.
        others = [g for g in order if g not in chosen]
        nearest = min(others, key=lambda g: len(members[g]), default=None)
        untouched = room[name] == targets[name] > 0
        if nearest and len(others) > 1 and (untouched or len(members[nearest]) < 2 * room[name]):
            put(nearest, name)
    return {group: chosen.get(group, rest) for group in members}


def _even_order(members: Iterable[str], categories: dict[str, set[str]], seed: int) -> list[str]:
    """Groups in hash order, spread so that each stretch holds every kind of group in its proportion."""
    kinds = defaultdict[tuple[str, ...], list[str]](list)
    hashes = {group: digest([seed, group], 16) for group in members}
    for group in sorted(hashes, key=lambda g: (hashes[g], g)):
        kinds[tuple(sorted(categories[group]))].append(group)
    places = {g: (i + 0.5) / len(groups) for groups in kinds.values() for i, g in enumerate(groups)}
    return sorted(hashes, key=lambda g: (places[g], hashes[g], g))


def _take_out_twins(placed: list[Placed]) -> None:
    """Reject what equals a prompt or passage of a better protected split; groups cannot see such twins."""
    prompts, passages = dict[str, str](), dict[str, str]()
    for p in placed:
        if p.split not in GUARDED or not isinstance(p.record, Example):
            continue
        for table, key in ((prompts, _prompt_key(p.record)), (passages, _passage_key(p.record))):
            if key and RANK[p.split] > RANK.get(table.get(key, ""), -1):
                table[key] = p.split
    for p in placed:
        if p.reason:
            continue
        prompt = prompts.get(_prompt_key(p.record), "")
        passage = passages.get(_passage_key(p.record), "") if passages else ""
        if prompt and RANK[prompt] > RANK[p.split]:
            p.reason, p.detail = _twin("prompt", prompt), f"the same prompt is in {prompt}"
        elif passage and RANK[passage] > RANK[p.split]:
            p.reason, p.detail = _twin("text", passage), f"the same passage is in {passage}"


def _take_out_leaks(cfg: SplitConfig, placed: list[Placed]) -> None:
    """Reject what shows a row of a better protected split in another guise; what many groups hold shows nothing."""
    kept = [p for p in placed if not p.reason]
    free = [p for p in kept if p.split not in ("held", "test")]
    rows = [Candidate(p.record, RANK[p.split], group_of(p.record)) for p in free]
    guard = build(_protected(kept), cfg.decontaminate.ngram_words, cfg.decontaminate.share)
    for i, leak in find_leaks(guard, rows).items():
        free[i].reason, free[i].detail = leak.reason, leak.detail


def _protected(placed: list[Placed]) -> list[Protected]:
    scored = [p for p in placed if p.split in SCORED and isinstance(p.record, Example)]
    return [Protected(p.record, p.split, RANK[p.split], group_of(p.record)) for p in scored]


def protect(cfg: SplitConfig, coverage: Path, out: Path) -> int:
    """Write the fingerprints of the dev and held pairs, by which others may be compared with them unread.

    Returns how many units they have; none when decontamination is off.
    """
    pairs = _protected(_by_pairs(cfg, read_records(coverage))) if cfg.decontaminate.enabled else []
    guard = build(pairs, cfg.decontaminate.ngram_words, cfg.decontaminate.share)
    save(guard, out)
    return len(guard.units)


def _twin(what: str, split: str) -> str:
    return f"{what}_in_{'coverage' if split in (DEV, 'held') else split}"


def _prompt_key(record: Record) -> str:
    return digest([fold(turn["content"]) for turn in record.prompt], 32) if isinstance(record, Example) else ""


def _passage_key(record: Record) -> str:
    text = record.text if isinstance(record, Document) else record.meta.get("context")
    return digest(fold(text), 32) if isinstance(text, str) and text.strip() else ""
