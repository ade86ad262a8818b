"""`exact_facts`: every fact of the reference is in the answer, and the answer adds no number or name of its own.

Facts match as whole runs of words: case, punctuation and white space do not count, `12` is not in `12B` or `3.12`,
`1,200` is `1200`, `3.50` is `3.5`, `10:30am` is `10:30 a.m.`. A name is a capitalised word inside a sentence, or at
its start when another capitalised word follows.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from understudy.core.records import Example
from understudy.evals.scorers.base import Card, Score, TextScorer, references

_WORD = re.compile(r"[^\W_]+(?:(?:(?<=\d)[.,:/](?=\d)|'(?=[^\W\d_]))[^\W_]+)*")
_MERIDIEM = re.compile(r"(?<=\d)\s*([ap])\.?m\b|\b([ap])\.m\b", re.IGNORECASE)
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_DECIMAL = re.compile(r"\d+\.\d+")
_SENTENCE_END = re.compile(r"(?:^|[.!?:…\n]|^\W*[-*•])[\s\"'“”«»(\[*_-]*$")


def words(text: str) -> list[tuple[str, str, bool]]:
    """(folded form, as written, starts a sentence) of every word and number."""
    text = unicodedata.normalize("NFKC", text).replace("\u2019", "'")
    text = _MERIDIEM.sub(lambda m: f" {m[1] or m[2]}m ", text)
    found = []
    for match in _WORD.finditer(text):
        starts = bool(_SENTENCE_END.search(text[max(0, match.start() - 12) : match.start()])) or match.start() == 0
        found.append((_fold(match[0]), match[0], starts))
    return found


def _fold(word: str) -> str:
    word = word.casefold().removesuffix("'s")
    if _THOUSANDS.fullmatch(word):
        word = word.replace(",", "")
    return word.rstrip("0").rstrip(".") if _DECIMAL.fullmatch(word) else word


def holds(text: list[str], fact: list[str]) -> bool:
    """Whether the folded words of `fact` stand in `text` one after another."""
    return any(text[i : i + len(fact)] == fact for i in range(len(text) - len(fact) + 1))


def foreign(answer: str, known: set[str]) -> Iterator[str]:
    """Numbers and names in `answer` whose folded form is not in `known`, as written."""
    found = words(answer)
    for i, (folded, written, starts) in enumerate(found):
        after = found[i + 1] if i + 1 < len(found) else None
        capital = written[0].isupper() and (
            not starts or (after is not None and after[1][0].isupper() and not after[2])
        )
        if folded not in known and (capital or any(c.isdigit() for c in written)):
            yield written


def _exact_facts(example: Example, answer: str) -> Score:
    given = [w[0] for w in words(answer)]
    facts = [str(f) for f in example.meta.get("facts") or []]
    for fact in facts:
        wanted = [w[0] for w in words(fact)]
        if not holds(given, wanted):
            return Score(0.0, f"missing fact: {fact}")
    sources = [*facts, *references(example), *(m["content"] for m in example.prompt)]
    known = {w[0] for source in sources for w in words(source)}
    odd = next(foreign(answer, known), None)
    if odd is not None:
        return Score(0.0, f"foreign: {odd}")
    return Score(1.0, f"all {len(facts)} facts, nothing foreign")


EXACT_FACTS = TextScorer(
    "exact_facts",
    "rate",
    Card(
        "Share of answers with every fact of the reference and no number or name from outside reference and prompt.",
        "Hand-written cases with times, decimals, codes, thousands and names (tests/test_scorers.py).",
        "A negated fact passes; a wrong name or number of the same prompt passes when the right one is there too; one "
        "foreign name at the start of a sentence passes; numbers in words and scripts without spaces are not read.",
    ),
    _exact_facts,
    needs=("facts",),
)
