"""Who sees what: one pure assignment of corpus and coverage rows, from their outlines.

Groups are drawn whole in a seeded hash order that runs evenly through the categories. What dev and held hold (a group,
a prompt, a passage) is taken out of everything less protected: train < validation < seed < dev < held or test. Leaks in
other guises are found afterwards, by `decontaminate`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from understudy.config import SplitConfig
from understudy.core.records import digest
from understudy.data.splits.outline import Outline
from understudy.errors import DataError

TRAIN, VALIDATION, DOCUMENTS, SEED, DEV = "train", "validation", "documents", "seed", "dev"
FILES = (TRAIN, VALIDATION, DOCUMENTS, SEED, DEV)
GUARDED = (VALIDATION, DEV, "held", "test")
SCORED = (DEV, "held", "test")
RANK = {name: i for i, name in enumerate((DOCUMENTS, TRAIN, VALIDATION, SEED, DEV, "held", "test"))}
"""What a better protected split holds is taken out of the others."""


@dataclass(slots=True)
class Placed:
    """A row and its split, or the reason why it is in none."""

    row: Outline
    split: str
    reason: str = ""
    detail: str = ""


def assign(cfg: SplitConfig, corpus: Sequence[Outline], coverage: Sequence[Outline] | None) -> list[Placed]:
    """Each row's split or reason, corpus before coverage; a function of the rows and the config alone.

    Raises DataError SPLIT_TOO_SMALL.
    """
    if coverage is None:
        placed = _by_shares(cfg, corpus)
    else:
        placed = [*_training(cfg, corpus, pairs := by_pairs(cfg, coverage)), *pairs]
    _take_out_twins(placed)
    return placed


def check_filled(cfg: SplitConfig, placed: Sequence[Placed], corpus: int, covered: bool) -> None:
    """Raise DataError SPLIT_EMPTY when nothing is left of a split that the config asks for; `corpus`: its rows."""
    left = Counter(p.split for p in placed if not p.reason)
    asked = {"held": 1, SEED: cfg.seed_pairs, DEV: cfg.dev_pairs} if covered else {"test": cfg.test, TRAIN: 1}
    empty = [name for name, wanted in asked.items() if wanted and not left[name]]
    if covered and corpus and not left[TRAIN] + left[DOCUMENTS] + left[VALIDATION]:
        empty.append("train and documents")
    if empty:
        reasons = Counter(p.reason for p in placed if p.reason)
        why = ", ".join(f"{n} rows rejected as {reason}" for reason, n in sorted(reasons.items())) or "no rows are left"
        fix = "give more groups"
        if any(reason.startswith("LEAK") for reason in reasons):
            fix = "give documents of groups that have no dev or held pairs; understudy ledger names the rows"
        raise DataError("SPLIT_EMPTY", "split", f"{' and '.join(empty)} would be empty ({why})", fix)


def by_pairs(cfg: SplitConfig, coverage: Sequence[Outline]) -> list[Placed]:
    """Coverage pairs into seed, dev and held; what is no pair goes. Raises DataError SPLIT_TOO_SMALL."""
    pairs = [r for r in coverage if r.answered]
    needed = cfg.seed_pairs + cfg.dev_pairs + 1
    groups = len({p.group for p in pairs})
    splits = 1 + bool(cfg.seed_pairs) + bool(cfg.dev_pairs)
    if len(pairs) < needed or groups < splits:
        asked = f"{cfg.seed_pairs} seed, {cfg.dev_pairs} dev and some held pairs"
        what = f"{len(pairs)} coverage pairs in {groups} groups cannot give {asked}"
        raise DataError("SPLIT_TOO_SMALL", "coverage", what, "give more pairs, or lower split.seed_pairs and dev_pairs")
    chosen = draw(pairs, {SEED: cfg.seed_pairs, DEV: cfg.dev_pairs}, "held", cfg.seed)
    return [
        Placed(r, chosen[r.group])
        if r.answered
        else Placed(r, "", "not_a_pair", "a coverage row is a prompt with an answer")
        for r in coverage
    ]


def _by_shares(cfg: SplitConfig, corpus: Sequence[Outline]) -> list[Placed]:
    """Without coverage: examples into train, validation and test; a document goes with its group."""
    examples = [r for r in corpus if not r.document]
    groups = len({e.group for e in examples})
    shares = {"test": cfg.test, VALIDATION: cfg.validation}
    if groups < 1 + sum(1 for share in shares.values() if share):
        what = f"{len(examples)} examples in {groups} groups cannot fill train, validation and test"
        raise DataError("SPLIT_TOO_SMALL", "sources", what, "give more examples, or a coverage set")
    targets = {name: max(1, round(share * len(examples))) if share else 0 for name, share in shares.items()}
    return _with_documents(corpus, draw(examples, targets, TRAIN, cfg.seed))


def _training(cfg: SplitConfig, corpus: Sequence[Outline], pairs: Sequence[Placed]) -> list[Placed]:
    """With coverage: everything trains but the groups of dev and held, and a share of examples for validation."""
    guarded = {p.row.group: p.split for p in pairs if p.split in GUARDED}
    free = [r for r in corpus if r.group not in guarded]
    examples = [r for r in free if not r.document]
    several = len({e.group for e in examples}) > 1
    target = max(1, round(cfg.validation * len(examples))) if cfg.validation and several else 0
    placed = iter(_with_documents(free, draw(examples, {VALIDATION: target}, TRAIN, cfg.seed)))
    return [
        Placed(r, "", "group_in_coverage", f"its group has {split} pairs")
        if (split := guarded.get(r.group))
        else next(placed)
        for r in corpus
    ]


def _with_documents(corpus: Sequence[Outline], chosen: dict[str, str]) -> list[Placed]:
    """Documents of validation and test groups are in no split: their text would show what is measured."""
    placed = []
    for r in corpus:
        split = chosen.get(r.group, TRAIN)
        if r.document and split != TRAIN:
            placed.append(Placed(r, "", f"group_in_{split}", f"its group has {split} examples"))
        else:
            placed.append(Placed(r, DOCUMENTS if r.document else split))
    return placed


def draw(rows: Sequence[Outline], targets: dict[str, int], rest: str, seed: int) -> dict[str, str]:
    """Split of each group: `targets` rows for the named splits, as near as whole groups allow, all others `rest`.

    First every category gets a group in each split where one fits (rarest category first), then the order fills up.
    """
    members = defaultdict[str, list[Outline]](list)
    for row in rows:
        members[row.group].append(row)
    categories = {g: {r.category for r in own if r.category} for g, own in members.items()}
    order = _even_order(members, categories, seed)
    room, chosen = dict(targets), dict[str, str]()
    room[rest] = len(rows) - sum(targets.values())

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


def _take_out_twins(placed: Sequence[Placed]) -> None:
    """Reject what equals a prompt or passage of a better protected split; groups cannot see such twins."""
    prompts, passages = dict[str, str](), dict[str, str]()
    for p in placed:
        if p.split not in GUARDED or p.row.document:
            continue
        for table, key in ((prompts, p.row.prompt), (passages, p.row.passage)):
            if key and RANK[p.split] > RANK.get(table.get(key, ""), -1):
                table[key] = p.split
    for p in placed:
        if p.reason:
            continue
        prompt, passage = prompts.get(p.row.prompt, ""), passages.get(p.row.passage, "")
        if prompt and RANK[prompt] > RANK[p.split]:
            p.reason, p.detail = _twin("prompt", prompt), f"the same prompt is in {prompt}"
        elif passage and RANK[passage] > RANK[p.split]:
            p.reason, p.detail = _twin("text", passage), f"the same passage is in {passage}"


def _twin(what: str, split: str) -> str:
    return f"{what}_in_{'coverage' if split in (DEV, 'held') else split}"
