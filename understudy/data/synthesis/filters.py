"""What a row of a reply must be: each check that fails gives a reason and what was seen.

Refusals and echoes are told by their wording. Where the seeds themselves are so worded (answers that say "I do not
know", answers that repeat their text), that check says nothing and is left out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

from understudy.core.records import Document, Example
from understudy.data.synthesis.diversity import triples
from understudy.data.synthesis.language import Language
from understudy.data.synthesis.requests import Request
from understudy.data.synthesis.texts import normalised, question_of

Problem = tuple[str, str]
"""Reason and detail of a reject."""

ECHO = 0.8
"""An answer repeats a text when one run of words makes this share of both; one that sorts a list has shorter runs."""
ECHO_WORDS = 8
"""A question of fewer words is in an answer easily, and rightly."""
ECHO_DOCUMENT_WORDS = 40
"""A document of fewer words may be the answer."""
USUAL = 0.1
"""Share of seeds that a check may find fault with; above it, that is how the job is done."""

_REFUSAL = re.compile(
    r"^\W*(i['’]?m sorry|i am sorry|sorry,|i can(no|['’])t|i['’]?m (not able|unable)|i am (not able|unable)|as an ai\b|"
    r"as a language model|i (must|have to) decline|i do(n['’]t| not) (have (access|enough)|know)|my apologies|"
    r"извините|простите|к сожалению,? (я|не)|я не (могу|смогу|знаю|располагаю)|"
    r"не могу (ответить|помочь|создать|выполнить)|"
    r"как (языковая модель|искусственный интеллект|ии)\b|у меня нет (информации|данных|доступа|сведений))",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")


class Filters:
    """The checks of one round; bounds of length, language and usual wording are those of the seeds."""

    def __init__(self, seeds: Sequence[Example], documents: Sequence[Document]) -> None:
        self.limits = limits_of(seeds)
        self.pairs = {(normalised(question_of(s)), normalised(s.answer or "")) for s in seeds}
        self.language = Language([*(text for s in seeds for text in (question_of(s), s.answer or ""))],
                                 [d.text for d in documents])  # fmt: skip
        found = [wording(question_of(s), s.answer or "", str(s.meta.get("context") or "")) for s in seeds]
        reasons = [problem[0] for problem in found if problem]
        self.usual = {reason for reason in reasons if reasons.count(reason) > USUAL * len(seeds)}

    def problem(self, request: Request, row: Any) -> Problem | None:
        """The first reason why a row of a reply is of no use."""
        return shape(row, request.cell.category) or self._content(request, row)

    def _content(self, request: Request, row: dict[str, Any]) -> Problem | None:
        question, answer, document = row["question"], row["answer"], request.document.text
        q, a = normalised(question), normalised(answer)
        facts = [f for f in row["facts"] if normalised(f)]
        if not q or not a or (not facts and any(s.meta.get("facts") for s in request.seeds)):
            return "empty", "question" if not q else "answer" if not a else "facts"
        if len(question) > self.limits[0] or len(answer) > self.limits[1]:
            return "length", f"question {len(question)}, answer {len(answer)} characters"
        worded = wording(question, answer, document)
        if worded and worded[0] not in self.usual:
            return worded
        if (q, a) in self.pairs:
            return "echo_seed", answer[:80]
        if odd := self.language.odd(f"{question}\n{answer}"):
            return "language", odd
        return faults(question, answer, facts, document)


def shape(row: Any, category: str) -> Problem | None:
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


def wording(question: str, answer: str, document: str) -> Problem | None:
    """(reason, detail) when the answer refuses, or is no more than the question or the document said again."""
    if _REFUSAL.match(answer) or _REFUSAL.match(question):
        return "refusal", answer[:80]
    q, a = normalised(question).split(), normalised(answer).split()
    if a == q or (len(q) >= ECHO_WORDS and _repeats(a, q)):
        return "echo_question", answer[:80]
    d = normalised(document).split()
    if len(d) >= ECHO_DOCUMENT_WORDS and _repeats(a, d):
        return "echo_document", answer[:80]
    return None


def _repeats(answer: list[str], other: list[str]) -> bool:
    """Whether nearly all of the other text is in the answer as it stands, and little else."""
    longer = max(len(answer), len(other))
    ours, theirs = triples(answer), triples(other)
    if len(ours & theirs) < ECHO * max(len(ours), len(theirs)):  # saves the search in nearly all cases
        return False
    return SequenceMatcher(None, answer, other, autojunk=False).find_longest_match().size >= ECHO * longer


def faults(question: str, answer: str, facts: Sequence[str], document: str) -> Problem | None:
    """(reason, detail) for a fact that answer or document does not hold, or a number that nothing gave."""
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


def limits_of(seeds: Sequence[Example]) -> tuple[int, int]:
    """Longest question and answer (characters): four times the longest seed's, and room for a short one's."""
    return (
        max(300, 4 * max((len(question_of(s)) for s in seeds), default=0)),
        max(400, 4 * max((len(s.answer or "") for s in seeds), default=0)),
    )
