"""What a row of a reply must be: each check that fails gives a reason and what was seen."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from understudy.core.records import Example
from understudy.data.synthesis.batch import Batch
from understudy.data.synthesis.requests import Request
from understudy.data.synthesis.texts import normalised, question_of

_REFUSAL = re.compile(
    r"^\W*(i['’]?m sorry|i am sorry|sorry,|i can(no|['’])t|i['’]?m (not able|unable)|i am (not able|unable)|as an ai\b|"
    r"i do(n['’]t| not) have (access|enough)|извините|к сожалению, я)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")


def shape(row: Any, category: str) -> tuple[str, str] | None:
    """(reason, detail) when the row lacks a field, has one of another type, or is of another category."""
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


def content(batch: Batch, request: Request, row: dict[str, Any]) -> tuple[str, str] | None:
    """(reason, detail) when what a row of the right shape says is of no use."""
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
        if not holds(answer, fact):
            return "fact_not_in_answer", fact
        if not holds(document, fact):
            return "unfaithful", fact
    known = {_plain(n) for text in (document, question) for n in _NUMBER.findall(text)}
    odd = next((n for n in _NUMBER.findall(answer) if _plain(n) not in known), None)
    return ("unfaithful", odd) if odd else None


def holds(text: str, fact: str) -> bool:
    """Whether `fact` stands in `text` as whole words, case and white space folded; `12` is not in `3.12` or `12:30`."""
    fold = [" ".join(unicodedata.normalize("NFKC", t).casefold().split()) for t in (text, fact)]
    return bool(re.search(rf"(?<!\w)(?<!\d[.,:/]){re.escape(fold[1])}(?!\w)(?![.,:/]\d)", fold[0]))


def _plain(number: str) -> str:
    return re.sub(r",(?=\d{3}\b)", "", number)


def limits_of(seeds: list[Example]) -> tuple[int, int]:
    """Longest question and answer (characters): four times the longest seed's, and room for a short one's."""
    return (
        max(300, 4 * max((len(question_of(s)) for s in seeds), default=0)),
        max(400, 4 * max((len(s.answer or "") for s in seeds), default=0)),
    )
