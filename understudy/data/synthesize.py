"""The teacher writes training examples: from seed pairs and training documents only, each row filtered with a reason.

Nothing here ever receives held data: seeds, training documents and dev failure rates are all there is. What a teacher
knows of dev and held by itself is stopped by their fingerprints. Requests are planned from the seed before any is
sent; with the teacher's cache a rerun costs no call.
"""

from __future__ import annotations

import json
import math
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from string import Template
from typing import Any, Protocol

from understudy.config import SynthesizeConfig
from understudy.core.records import Document, Example, Ledger, digest, write_jsonl
from understudy.data.clean import context_turn
from understudy.data.splits.decontaminate import Firewall
from understudy.errors import DataError, RemoteError
from understudy.models.base import Conversation

Progress = Callable[[int, int, dict[str, float]], None]

PROMPT = Path(__file__).parent / "prompts" / "synthesize.txt"
SYSTEM = "You write training data. You reply with JSON only."
MAX_OVERSAMPLING = 4
"""Requests for a category stay under this many times those that its quota needs."""
FIRST_SHARE = 0.2
"""Share of the planned requests after which the yield is judged."""
VARIANTS_PER_ROUND = 97
"""Each round counts its variants from a multiple of this; a prime, as a teacher may take them modulo its choices."""
FLOOR = 0.05
"""Share of an aimed quota that is spread evenly, so that no category is forgotten."""
MIN_DIVERSITY = 0.2
"""Mean share of word triples that two replies do not have in common; below it the teacher repeats itself."""
COMPARED = 40
"""Replies compared for diversity: 780 pairs."""

_REFUSAL = re.compile(
    r"^\W*(i['’]?m sorry|i am sorry|sorry,|i can(no|['’])t|i['’]?m (not able|unable)|i am (not able|unable)|as an ai\b|"
    r"i do(n['’]t| not) have (access|enough)|извините|к сожалению, я)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")


class Teacher(Protocol):
    """What is asked of a teacher; `models.service.ServiceModel` is one."""

    @property
    def identity(self) -> dict[str, str]: ...

    def ask_json(self, conversations: Sequence[Conversation], schema: Callable[[Any], list[Any]]) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class _Request:
    """One planned call; `where` names it in rejects."""

    category: str
    seeds: list[Example]
    document: Document
    round: int
    variant: int
    where: str


@dataclass(slots=True)
class _Batch:
    """What a round has gathered so far."""

    quota: dict[str, int]
    earlier: set[str]
    taken: set[str]
    seed_prompts: set[str]
    seed_pairs: set[tuple[str, str]]
    limits: tuple[int, int]
    firewall: Firewall | None
    kept: list[Example] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    replies: list[frozenset[str]] = field(default_factory=list)
    filled: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    ledger: Ledger = field(default_factory=Ledger)

    def reject(self, where: str, reason: str, detail: str) -> None:
        self.ledger.reject(reason)
        self.rejects.append({"where": where, "reason": reason, "detail": detail})

    def missing(self, category: str) -> int:
        return max(0, self.quota[category] - self.filled[category])


def normalised(text: str) -> str:
    """The form in which prompts are compared: case, punctuation and white space folded."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(c if c.isalnum() else " " for c in folded).split())


def category_of(meta: dict[str, Any]) -> str:
    """The category of an example or of a row of scores; empty when it has none."""
    return str(meta.get("category") or "")


def prompt_key(example: Example) -> str:
    """Normalised text of an example's prompt; `earlier` is a set of these."""
    return normalised("\n".join(m["content"] for m in example.prompt if m["role"] != "system"))


def quota(
    cfg: SynthesizeConfig,
    categories: dict[str, int],
    dev: Sequence[dict[str, Any]] | None,
    metric: str,
    targeted: bool,
) -> dict[str, int]:
    """Rows wanted per category; they sum to `cfg.rows`.

    `categories`: seed pairs per category. `dev`: rows of scores.jsonl of one setting; with `targeted` the rows follow
    the failure rate per category (1 - value, or the mean loss), and 5 % are spread evenly.
    """
    if not categories:
        raise DataError("SYNTH_NO_SEEDS", "synthesize", "there is no seed pair to write from", "raise split.seed_pairs")
    weights = {name: float(count) for name, count in categories.items()}
    if not targeted or not dev:
        return _apportion(cfg.rows, weights)
    failures: dict[str, list[float]] = {}
    for row in dev:
        if metric in row["values"]:
            failures.setdefault(category_of(row), []).append(_failure(metric, float(row["values"][metric])))
    if not failures:
        raise DataError(
            "SYNTH_NO_METRIC", "synthesize", f"the dev scores hold no {metric!r}", "score dev with it first"
        )
    overall = [v for values in failures.values() for v in values]
    means = {name: sum(values) / len(values) for name, values in failures.items()}
    aimed = {name: means.get(name, sum(overall) / len(overall)) for name in categories}
    if sum(aimed.values()) <= 0:
        return _apportion(cfg.rows, weights)
    total = sum(aimed.values())
    floor = FLOOR / len(categories)
    return _apportion(cfg.rows, {name: floor + (1 - FLOOR) * weight / total for name, weight in aimed.items()})


@dataclass(frozen=True, slots=True)
class Material:
    """What the teacher writes from; `earlier` holds the `prompt_key` of every row of earlier rounds.

    `firewall` refuses what shows a dev or held pair.
    """

    seeds: list[Example]
    documents: list[Document]
    earlier: set[str]
    firewall: Firewall | None = None


def synthesize(
    cfg: SynthesizeConfig,
    teacher: Teacher,
    material: Material,
    *,
    quota: dict[str, int],
    round: int,
    out: Path,
    progress: Progress | None = None,
) -> Ledger:
    """Write `train.jsonl` and `rejects.jsonl` with the rows that the quota asks for.

    Raises DataError SYNTH_YIELD or SYNTH_COLLAPSE when the first requests show that the teacher does not do the job,
    RemoteError when the service does not answer.
    """
    seeds, documents, earlier = material.seeds, material.documents, material.earlier
    if not documents:
        raise DataError("SYNTH_NO_DOCUMENTS", "synthesize", "there is no training document", "check `sources`")
    wanted = {category: rows for category, rows in quota.items() if rows > 0}
    total = sum(wanted.values())
    fresh = _freshest(documents, earlier)
    plans = {category: _Plan(cfg, category, seeds, fresh, round) for category in wanted}
    batch = _batch(wanted, material)
    template = Template(PROMPT.read_text("utf-8"))
    sent: Counter[str] = Counter()
    needed = {category: math.ceil(rows / cfg.rows_per_call) for category, rows in wanted.items()}
    planned = _interleave(plans, sent, needed)
    by_quota = len(planned)
    first = max(4, math.ceil(FIRST_SHARE * by_quota))
    while planned:
        requests, planned, first = planned[:first], planned[first:], by_quota
        _send(teacher, requests, template, cfg, batch)
        sent.update(r.category for r in requests)
        if sent.total() <= by_quota:  # later requests look for the last rows of what is nearly used up
            _check_health(cfg, batch, sent.total(), teacher.identity.get("provider", ""))
        if progress:
            progress(len(batch.kept), total, {})
        if not planned:
            more = {c: _more(cfg, batch, c, sent[c], MAX_OVERSAMPLING * needed[c]) for c in wanted}
            planned = _interleave(plans, sent, more)
    for category in wanted:
        if batch.missing(category):
            batch.ledger.note(f"short:{category}", batch.missing(category))
    batch.ledger.note("requests", sent.total())
    batch.ledger.rows_out = write_jsonl(out / "train.jsonl", batch.kept)
    write_jsonl(out / "rejects.jsonl", batch.rejects)
    return batch.ledger


def _batch(wanted: dict[str, int], material: Material) -> _Batch:
    seeds = material.seeds
    return _Batch(
        quota=wanted,
        earlier=material.earlier,
        taken=set(),
        seed_prompts={prompt_key(s) for s in seeds},
        seed_pairs={(normalised(_question(s)), normalised(s.answer or "")) for s in seeds},
        limits=_limits(seeds),
        firewall=material.firewall,
    )


def _freshest(documents: list[Document], earlier: set[str]) -> list[list[Document]]:
    """Documents grouped by how many earlier prompts quote them, the least used first."""
    used = Counter(key.rpartition(" question ")[0] for key in earlier)
    groups: dict[int, list[Document]] = {}
    for document in documents:
        groups.setdefault(used[normalised(document.text)], []).append(document)
    return [groups[uses] for uses in sorted(groups)]


class _Plan:
    """The requests of one category, without end: seeds and documents rotate, a document's next turn varies."""

    def __init__(
        self, cfg: SynthesizeConfig, category: str, seeds: list[Example], documents: list[list[Document]], round: int
    ) -> None:
        self.category, self.round, self.shown = category, round, cfg.seeds_per_call
        self.seeds = [s for s in seeds if category_of(s.meta) == category]
        if not self.seeds:
            raise DataError("SYNTH_NO_SEEDS", f"category {category!r}", "no seed pair has it", "raise split.seed_pairs")
        # One order per category and round: the categories do not all start with the same documents.
        order = random.Random(digest([cfg.seed, round, category]))
        self.documents = [d for equally_used in documents for d in order.sample(equally_used, len(equally_used))]

    def request(self, i: int) -> _Request:
        turn, at = divmod(i, len(self.documents))
        first = i * self.shown
        count = min(self.shown, len(self.seeds))
        return _Request(
            category=self.category,
            seeds=[self.seeds[(first + j) % len(self.seeds)] for j in range(count)],
            document=self.documents[at],
            round=self.round,
            variant=(self.round - 1) * VARIANTS_PER_ROUND + turn,
            where=f"round {self.round} {self.category} request {i}",
        )


def _interleave(plans: dict[str, _Plan], sent: Counter[str], counts: dict[str, int]) -> list[_Request]:
    """The next `counts` requests of every category, dealt in turn, so that any first part is a fair sample."""
    places = sorted(((i + 0.5) / count, category, i) for category, count in counts.items() for i in range(count))
    return [plans[category].request(sent[category] + i) for _, category, i in places]


def _more(cfg: SynthesizeConfig, batch: _Batch, category: str, sent: int, most: int) -> int:
    """Requests still worth sending for a category, going by what its requests have yielded."""
    missing = batch.missing(category)
    if not missing:
        return 0
    per_request = max(batch.filled[category] / sent, 0.25 * cfg.rows_per_call)
    return min(math.ceil(missing / per_request), most - sent)


def _send(teacher: Teacher, requests: list[_Request], template: Template, cfg: SynthesizeConfig, batch: _Batch) -> None:
    conversations = [_conversation(template, r, cfg.rows_per_call) for r in requests]
    replies = teacher.ask_json(conversations, _rows)
    if all(isinstance(r, RemoteError) and r.code != "BAD_JSON" for r in replies):
        raise replies[0]
    for request, conversation, reply in zip(requests, conversations, replies, strict=True):
        if isinstance(reply, RemoteError):
            batch.ledger.rows_in += 1
            reason = "bad_json" if reply.code == "BAD_JSON" else "request_failed"
            batch.reject(request.where, reason, reply.code)
            continue
        batch.ledger.rows_in += len(reply)
        if not reply:
            batch.ledger.note("empty_replies")
        if reply and len(batch.replies) < COMPARED:
            batch.replies.append(_triples(reply))
        for n, row in enumerate(reply):
            _take(batch, request, conversation, teacher.identity, (n, row))


def _rows(value: Any) -> list[Any]:
    """The rows of a reply; each is checked on its own. Raises ValueError when there is no list of them."""
    rows = value.get("examples") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise ValueError('no list "examples"')
    return rows


def _take(
    batch: _Batch, request: _Request, conversation: Conversation, teacher: dict[str, str], numbered: tuple[int, Any]
) -> None:
    """Keep one row of a reply, or reject it with the first reason that applies."""
    n, row = numbered
    where = f"{request.where} row {n}"
    problem = _shape(row, request.category) or _content(batch, request, row)
    if problem:
        batch.reject(where, *problem)
        return
    example = _example(request, row)
    key = prompt_key(example)
    if key in batch.seed_prompts:
        batch.reject(where, "same_as_seed", row["question"])
    elif key in batch.earlier or key in batch.taken:
        batch.repeated += key in batch.earlier
        batch.reject(where, "duplicate", row["question"])
    elif not batch.missing(request.category):
        batch.reject(where, "over_quota", row["question"])
    elif leak := batch.firewall and batch.firewall.leak(example):
        batch.reject(where, leak.reason, leak.detail)
    else:
        batch.taken.add(key)
        batch.filled[request.category] += 1
        example.meta |= {"teacher": teacher, "prompt_hash": digest(conversation), "round": request.round}
        batch.kept.append(example)


def _shape(row: Any, category: str) -> tuple[str, str] | None:
    if not isinstance(row, dict):
        return "schema", f"row of type {type(row).__name__}"
    for name in ("question", "answer"):
        if not isinstance(row.get(name), str):
            return "schema", f"{name} of type {type(row.get(name)).__name__}"
    facts = row.get("facts")
    if not isinstance(facts, list) or not all(isinstance(f, str) for f in facts):
        return "schema", "facts is not a list of texts"
    if category and "category" in row and normalised(str(row["category"])) != normalised(category):
        return "category", str(row["category"])[:80]
    return None


def _content(batch: _Batch, request: _Request, row: dict[str, Any]) -> tuple[str, str] | None:
    question, answer, document = row["question"], row["answer"], request.document.text
    q, a = normalised(question), normalised(answer)
    facts = [f for f in row["facts"] if normalised(f)]
    if not q or not a or (not facts and any(s.meta.get("facts") for s in request.seeds)):
        return "empty", "question" if not q else "answer" if not a else "facts"
    if len(question) > batch.limits[0] or len(answer) > batch.limits[1]:
        return "length", f"question {len(question)}, answer {len(answer)} characters"
    if _REFUSAL.match(answer) or _REFUSAL.match(question):
        return "refusal", answer[:80]
    if a == q or (q, a) in batch.seed_pairs:
        return ("echo_question" if a == q else "echo_seed"), answer[:80]
    for fact in facts:
        if not _holds(answer, fact):
            return "fact_not_in_answer", fact
        if not _holds(document, fact):
            return "unfaithful", fact
    known = {_plain(n) for text in (document, question) for n in _NUMBER.findall(text)}
    odd = next((n for n in _NUMBER.findall(answer) if _plain(n) not in known), None)
    return ("unfaithful", odd) if odd else None


def _holds(text: str, fact: str) -> bool:
    """Whether `fact` stands in `text` as whole words, case and white space folded; `12` is not in `3.12` or `12:30`."""
    fold = [" ".join(unicodedata.normalize("NFKC", t).casefold().split()) for t in (text, fact)]
    return bool(re.search(rf"(?<!\w)(?<!\d[.,:/]){re.escape(fold[1])}(?!\w)(?![.,:/]\d)", fold[0]))


def _plain(number: str) -> str:
    return re.sub(r",(?=\d{3}\b)", "", number)


def _question(example: Example) -> str:
    return str(example.meta.get("question") or example.prompt[-1]["content"])


def _limits(seeds: list[Example]) -> tuple[int, int]:
    """Longest question and answer (characters): four times the longest seed's, and room for a short one's."""
    return (
        max(300, 4 * max((len(_question(s)) for s in seeds), default=0)),
        max(400, 4 * max((len(s.answer or "") for s in seeds), default=0)),
    )


def _example(request: _Request, row: dict[str, Any]) -> Example:
    document = request.document
    question, answer = row["question"].strip(), row["answer"].strip()
    # Mixed seeds rotate through the requests, so following the first one keeps their proportions.
    shape = request.seeds[0]
    asks_about_text = bool(shape.meta.get("context")) or context_turn("", "") in shape.prompt[-1]["content"]
    messages = [
        *(m for m in shape.messages[:1] if m["role"] == "system"),
        {"role": "user", "content": context_turn(document.text, question) if asks_about_text else question},
        {"role": "assistant", "content": answer},
    ]
    meta = {
        **({"category": request.category} if request.category else {}),
        **({"context": document.text, "question": question} if asks_about_text else {}),
        "facts": [f for f in row["facts"] if normalised(f)],
        "group": document.meta.get("group") or document.id,
        "source": "synthetic",
        "parents": [*(s.id for s in request.seeds), document.id],
        "licence": document.meta.get("licence"),
    }
    return Example(f"synthetic-{digest(messages, 16)}", messages, meta)


def _conversation(template: Template, request: _Request, count: int) -> Conversation:
    blocks = {
        "seeds": [_shown(s) for s in request.seeds],
        "document": {"text": request.document.text},
        "category": request.category,
        "count": count,
        "variant": request.variant,
    }
    text = template.substitute({name: json.dumps(value, ensure_ascii=False) for name, value in blocks.items()})
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def _shown(seed: Example) -> dict[str, Any]:
    meta = seed.meta
    if meta.get("context") and meta.get("question"):
        asked = {"context": meta["context"], "question": meta["question"]}
    else:
        asked = {"prompt": seed.prompt[-1]["content"]}
    return {**asked, "answer": seed.answer, "facts": meta.get("facts") or [], "category": category_of(meta)}


def _check_health(cfg: SynthesizeConfig, batch: _Batch, sent: int, provider: str) -> None:
    """Stop early when the teacher repeats itself or most of its rows are of no use."""
    diversity = _diversity(batch.replies)
    if diversity < MIN_DIVERSITY:
        raise DataError(
            "SYNTH_COLLAPSE",
            "synthesize",
            f"the replies are near-identical: diversity {diversity:.3f} (at least {MIN_DIVERSITY} is needed) over "
            f"{len(batch.replies)} replies",
            "raise teacher.temperature, or use another teacher",
        )
    useful = len(batch.kept) + batch.ledger.rejected.get("over_quota", 0)
    # Rows of earlier rounds say that the documents are used up, not that the teacher is bad.
    asked = sent * cfg.rows_per_call - batch.repeated
    if useful < cfg.min_yield * asked:
        counts = ", ".join(f"{reason} {count}" for reason, count in sorted(batch.ledger.rejected.items()))
        raise DataError(
            "SYNTH_YIELD",
            "synthesize",
            f"{useful} of the first {asked} asked rows are usable, under min_yield {cfg.min_yield:g} "
            f"(rejected: {counts or 'none'}; empty replies: {batch.ledger.notes.get('empty_replies', 0)})",
            "the simulated teacher knows little but its example's sentences (docs/simulated-service.md); use a real one"
            if provider == "simulated"
            else "look at the teacher's replies in cache/, or use another teacher",
        )


def _triples(rows: list[Any]) -> frozenset[str]:
    words = normalised(json.dumps([_texts(r) for r in rows], ensure_ascii=False)).split()
    return frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))


def _texts(row: Any) -> list[str]:
    return [str(row.get("question")), str(row.get("answer"))] if isinstance(row, dict) else [str(row)]


def _diversity(replies: list[frozenset[str]]) -> float:
    """1 - mean Jaccard similarity of the replies' word triples, pair by pair; 1.0 for fewer than three replies."""
    if len(replies) < 3:
        return 1.0
    similar = [len(a & b) / len(a | b) for a, b in combinations(replies, 2)]
    return 1.0 - sum(similar) / len(similar)


def _failure(metric: str, value: float) -> float:
    """How far from good a dev value is, 0 the best: the loss itself, a grade of 1-100, or a score of 0-1."""
    if metric == "loss":
        return max(0.0, value)
    return 1.0 - value / 100.0 if metric.startswith("judge_") else 1.0 - value


def _apportion(rows: int, weights: dict[str, float]) -> dict[str, int]:
    """Whole rows in proportion to the weights, by largest remainder; ties go by name."""
    total = sum(weights.values())
    exact = {name: rows * weight / total for name, weight in weights.items()}
    whole = {name: math.floor(share) for name, share in exact.items()}
    by_remainder = sorted(weights, key=lambda name: (whole[name] - exact[name], name))
    for name in by_remainder[: rows - sum(whole.values())]:
        whole[name] += 1
    return whole
