"""A row's way through a run, and the training rows that lie nearest to an answer.

Nearness is the cosine of TF-IDF vectors over words and pairs of words (Salton and Buckley 1988), on the answer and on
the prompt apart: no model is asked, and what is near in other words is not found.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from understudy.core.artifact import Artifact
from understudy.core.records import Example, from_json, read_jsonl
from understudy.errors import ConfigError

RECORDS = ("rows", "train", "validation", "documents", "seed", "dev", "held")
TRAINED = ("split", "synthesize", "augment")
PARENTS_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Event:
    """What one step did with a row: kept (in which file), rejected, gave to others, packed, answered or scored."""

    step: str
    what: str
    detail: str = ""


@dataclass(slots=True)
class History:
    """Everything that a run knows of one row; `record` is its last form, None when it never became one."""

    id: str
    record: dict[str, Any] | None = None
    events: list[Event] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A training row near an answer: similarities from 0 to 1, by answer and by prompt (None without a prompt)."""

    row: Example
    step: str
    answer: float
    prompt: float | None


def history(artifacts: Sequence[Artifact], row_id: str) -> History:
    """Where a row was kept or rejected, what came of it. Raises ConfigError ROW_UNKNOWN with the nearest ids."""
    found = History(_id_at(artifacts, row_id) or row_id)
    for artifact in artifacts:
        if not artifact.manifest.get("alias_of"):
            found.events += _events(artifact, found)
    if not found.events:
        near = get_close_matches(row_id, sorted(_ids(artifacts)), n=3, cutoff=0.5)
        fix = f"did you mean {', '.join(near)}?" if near else "understudy ledger lists steps and reasons"
        raise ConfigError("ROW_UNKNOWN", row_id, "no row of this run has this id or place", fix)
    return found


def _id_at(artifacts: Sequence[Artifact], place: str) -> str:
    """The id of the row that was read at a place; empty where none was."""
    needle = json.dumps(place, ensure_ascii=False)
    rows = (row for a in artifacts for row in _lines(a.path / "places.jsonl", needle))
    return next((str(row["id"]) for row in rows if row["where"] == place), "")


def _events(artifact: Artifact, found: History) -> Iterator[Event]:
    name, needle = artifact.name, json.dumps(found.id, ensure_ascii=False)
    for row in _lines(artifact.path / "places.jsonl", needle):
        if found.id == row["id"]:
            yield Event(name, "read", row["where"])
    for stem in RECORDS:
        children = []
        for row in _lines(artifact.path / f"{stem}.jsonl", needle):
            if row["id"] == found.id:
                found.record = row
                yield Event(name, "kept" if stem == "rows" else stem, _made(row) if stem == "train" else "")
            elif found.id in (row.get("meta", {}).get("parents") or ()):
                children.append(str(row["id"]))
        if children:
            shown = ", ".join(children[:3]) + (", ..." if len(children) > 3 else "")
            yield Event(name, f"parent of {len(children)}", shown)
    for row in _lines(artifact.path / "rejects.jsonl", needle):
        if row["where"] == found.id:
            yield Event(name, "rejected", f"{row['reason']}: {row.get('detail', '')}".rstrip(": "))
    if artifact.kind == "Packed" and _was_packed(artifact, found):
        yield Event(name, "packed")
    for row in _lines(artifact.path / "scores.jsonl", needle):
        if row["id"] == found.id and not row.get("sample"):
            values = ", ".join(f"{metric} {value:.3g}" for metric, value in list(row["values"].items())[:3])
            yield Event(name, "scored", f"{row['setting']}: {values}")


def _was_packed(artifact: Artifact, found: History) -> bool:
    """Whether a step that this one packs kept the row for training, and this one did not reject it."""
    inputs = set(artifact.manifest["inputs"])
    given = any(e.step in inputs and e.what in ("train", "seed", "validation") for e in found.events)
    return given and not any(e.step == artifact.name for e in found.events)


def _made(row: dict[str, Any]) -> str:
    """Who wrote a synthetic row, and from what."""
    meta = row.get("meta", {})
    if "teacher" not in meta:
        return ""
    parents = meta.get("parents") or []
    shown = ", ".join(map(str, parents[:PARENTS_SHOWN])) + (", ..." if len(parents) > PARENTS_SHOWN else "")
    asked = f"round {meta.get('round')}, {meta['teacher'].get('model')}, prompt {str(meta.get('prompt_hash'))[:12]}"
    return f"{asked}, from {shown}"


def _lines(file: Path, needle: str) -> Iterator[dict[str, Any]]:
    """Rows of a file in whose text the id stands; only those are parsed."""
    if file.is_file():
        with open(file, encoding="utf-8") as f:
            yield from (json.loads(line) for line in f if needle in line)


def _ids(artifacts: Sequence[Artifact]) -> set[str]:
    """Every id and place of the run's rows."""
    known: set[str] = set()
    for artifact in artifacts:
        for stem in RECORDS:
            file = artifact.path / f"{stem}.jsonl"
            known.update(str(row["id"]) for row in (read_jsonl(file) if file.is_file() else ()))
    return known


def training_rows(artifacts: Sequence[Artifact]) -> list[tuple[str, Example]]:
    """(step, row) of every row that a model of this run learnt from, each once."""
    rows: dict[str, tuple[str, Example]] = {}
    for artifact in artifacts:
        if artifact.manifest["stage"] in TRAINED and not artifact.manifest.get("alias_of"):
            for stem in ("train", "seed"):
                file = artifact.path / f"{stem}.jsonl"
                for row in read_jsonl(file) if file.is_file() else ():
                    record = from_json(row)
                    if isinstance(record, Example) and record.answer is not None:
                        rows.setdefault(record.id, (artifact.name, record))
    return list(rows.values())


def answer_of(artifacts: Sequence[Artifact], item: str, who: str) -> tuple[str, str, str]:
    """(step, prompt, answer) of a model's first answer to a held or dev item; the last step that has it.

    Candidate and base have answered dev items, the others held ones alone.
    Raises ConfigError ITEM_UNKNOWN with the nearest ids.
    """
    answers = {a.name: a for a in artifacts if a.kind == "Answers"}
    known: set[str] = set()
    arms = (n for n in answers if n.startswith("answer-dev-") and (n == "answer-dev-base") == (who == "base"))
    dev = sorted(arms, reverse=True) if who in ("candidate", "base") else []
    for name in [n for n in answers if n == f"answer-held-{who}"] + dev:
        for row in read_jsonl(answers[name].path / "answers.jsonl"):
            known.add(str(row["id"]))
            if row["id"] == item and not row.get("sample"):
                return name, _prompt(artifacts, item), str(row["text"])
    near = get_close_matches(item, sorted(known), n=3, cutoff=0.5)
    fix = f"did you mean {', '.join(near)}?" if near else "give the id of a held or dev item (the report shows them)"
    raise ConfigError("ITEM_UNKNOWN", item, f"no answer of {who} has this id", fix)


def _prompt(artifacts: Sequence[Artifact], item: str) -> str:
    """What was asked: the question of a context pair, else the last user turn."""
    for artifact in artifacts:
        if artifact.kind in ("HeldSet", "Dataset"):
            for stem in ("held", "dev"):
                for row in _lines(artifact.path / f"{stem}.jsonl", json.dumps(item, ensure_ascii=False)):
                    if row["id"] == item:
                        record = from_json(row)
                        assert isinstance(record, Example)
                        return _asked(record)
    return ""


def _asked(example: Example) -> str:
    return str(example.meta.get("question") or (example.prompt[-1]["content"] if example.prompt else ""))


def nearest(rows: Sequence[tuple[str, Example]], answer: str, prompt: str = "", count: int = 5) -> list[Neighbour]:
    """The training rows nearest to an answer; with a prompt, half of the order comes from the prompts' similarity."""
    answers = similarities([str(e.answer) for _, e in rows], answer)
    prompts = similarities([_asked(e) for _, e in rows], prompt) if prompt else None
    total = [(a + prompts[i]) / 2 if prompts else a for i, a in enumerate(answers)]
    order = sorted(range(len(rows)), key=lambda i: (-total[i], rows[i][1].id))[:count]
    return [Neighbour(rows[i][1], rows[i][0], answers[i], prompts[i] if prompts else None) for i in order]


def similarities(texts: Sequence[str], query: str) -> list[float]:
    """Cosine of each text with the query, 0 to 1: TF-IDF over words and word pairs, with idf over texts and query."""
    import numpy as np

    from understudy.data.shingles import ngrams, words

    found = words([*texts, query])
    both = [ngrams(found, n) for n in (1, 2)]
    hashes = np.concatenate([g.hashes for g in both])
    owners = np.concatenate([g.owners for g in both])
    if not len(hashes):
        return [0.0] * len(texts)
    _, terms = np.unique(hashes, return_inverse=True)
    width = int(terms.max()) + 1
    cells, counts = np.unique(owners * width + terms, return_counts=True)
    owner, term = np.divmod(cells, width)
    held_by = np.bincount(term, minlength=width)
    idf = np.log((1 + len(texts) + 1) / (1 + held_by)) + 1
    weights = counts * idf[term]
    norms = np.sqrt(np.bincount(owner, weights**2, minlength=len(texts) + 1))
    asked = np.zeros(width)
    own = owner == len(texts)
    asked[term[own]] = weights[own]
    dots = np.bincount(owner, weights * asked[term], minlength=len(texts) + 1)
    cosine = dots / np.maximum(norms * norms[-1], 1e-12)
    return [round(float(min(1.0, value)), 6) for value in cosine[:-1]]


def tell(found: History, artifacts: Sequence[Artifact]) -> Iterator[str]:
    """A row's history in at most 80 columns, its parents' in a line each, and its text."""
    yield f"row {found.id}"
    for event in found.events:
        yield from _wrapped(f"  {event.step:<22} {event.what:<10} {event.detail}")
    meta = (found.record or {}).get("meta", {})
    for parent in meta.get("parents") or ():
        yield from _wrapped(f"  parent {brief(history(artifacts, str(parent)))}")
    shown = {key: meta[key] for key in ("source", "licence", "group", "category") if meta.get(key)}
    if shown:
        yield from _wrapped("  " + ", ".join(f"{key} {value}" for key, value in shown.items()))
    for who, text in _texts(found.record):
        yield from _wrapped(f"  {who}: {' '.join(text.split())[:400]}")


def brief(found: History) -> str:
    """A row's history in one line."""
    return f"{found.id}: " + "; ".join(
        f"{e.step} {e.what}" + (f" {e.detail}" if e.what == "read" else "") for e in found.events
    )


def tell_neighbours(found: Sequence[Neighbour], artifacts: Sequence[Artifact]) -> Iterator[str]:
    """The nearest training rows: similarities, text, and each one's history in a line."""
    if not found:
        yield "nothing was trained on"
    for near in found:
        prompt = f", prompt {near.prompt:.2f}" if near.prompt is not None else ""
        yield from _wrapped(f"answer {near.answer:.2f}{prompt}  {near.row.id} ({near.step})")
        yield from _wrapped(f"    {' '.join(_asked(near.row).split())[:160]}")
        yield from _wrapped(f"    {' '.join(str(near.row.answer).split())[:200]}")
        yield from _wrapped(f"    {brief(history(artifacts, near.row.id))}")


def _texts(record: dict[str, Any] | None) -> list[tuple[str, str]]:
    if record is None:
        return []
    return (
        [(m["role"], m["content"]) for m in record["messages"]] if "messages" in record else [("text", record["text"])]
    )


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line.rstrip(), 80, subsequent_indent="      ", break_on_hyphens=False) or [""]
