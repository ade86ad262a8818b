"""Words, sentences and values of plain text: what counts as a name, a number, a code, and what shape a value has.

A value is something that changes from document to document; the rest of a sentence is its wording.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TOKEN = re.compile(r"\w+(?:[:.,'’/&-]\w+)*%?|[^\w\s]")
_UPPER = "A-ZÀ-ÖØ-ÞА-ЯЁ"
_WORD = rf"[{_UPPER}][\w'’-]*"
NAME = rf"{_WORD}(?: (?:(?:of|the|de|la|van|von|der) ){{0,2}}{_WORD}){{0,5}}"
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\bDr\.)(?<!\bMr\.)(?<!\bMs\.)(?<!\bSt\.)(?<!\bMrs\.)(?<!\bProf\.)\s+|\n+")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOP = _words(
    """a about above according across after again all also although always am among an and any are as at be because
    been before being between both but by can could did do does during each either every few for from give gives had
    has have he her here hers him his how however i if in into is it its just like many may me might more most much
    must my near never no not of off on once one only or other our out over per please shall she should since so
    some such than that the their them then there these they this those through to too under until up us very was we
    were what when where whether which while who whom whose why will with would yes yet you your"""
)
COMMON = _words(
    """according answer answers appear appears ask asked become becomes begin begins belong belongs bring call called
    calls come comes consider considered costs course courses credit credits day describe described describes earn
    earns equal feel fellow find finds follow found gave get gets getting given giving go goes going got hear held
    help hold holds host hosts keep know known lead leads lecture let lies located look looks make makes mean means
    meet meets mention need needs offer offered offers open opens opinion pass passing people person place places
    play plays portray portrayed prices professor provide provides put rate rated read receive receives regard
    regarded remain report reports review reviewer reviewers reviews room run runs said say saying says see seem
    seems seen sell set show shown shows sits someone speak start starts state stated states still student students
    taken take takes taking talk taught teach teacher teaches tell tells thing things think thinks thought time
    timetable today use used uses usually value view views visit want way week weekly well work works worth write
    year"""
)
_NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve"
NUMBER_WORDS = {word: str(number) for number, word in enumerate(_NUMBERS.split())}


@dataclass(frozen=True, slots=True)
class Unit:
    """One token, or one run of capitalised words; `kind` is `name`, `code` (has a digit), `word` or `mark`."""

    text: str
    kind: str
    start: int
    end: int


def sentences(text: str) -> list[str]:
    return [s.strip() for s in _SENTENCE_END.split(text) if s.strip()]


def capitalised(word: str) -> bool:
    return word[:1].isupper() and not any(c.isdigit() for c in word)


def _kind(token: str) -> str:
    if any(c.isdigit() for c in token):
        return "code"
    if not token[0].isalnum():
        return "mark"
    return "name" if token[0].isupper() else "word"


def units(sentence: str, ordinary: frozenset[str] = STOP) -> list[Unit]:
    """Tokens with neighbouring capitalised words joined; a first word that is `ordinary` is wording, not a name."""
    made: list[Unit] = []
    for match in TOKEN.finditer(sentence):
        token, kind = match.group(), _kind(match.group())
        if kind == "name" and not made and token.lower() in ordinary:
            kind = "word"
        last = made[-1] if made else None
        if kind == "name" and last and last.kind == "name" and sentence[last.end : match.start()] == " ":
            made[-1] = Unit(sentence[last.start : match.end()], "name", last.start, match.end())
        else:
            made.append(Unit(token, kind, match.start(), match.end()))
    return made


def shape(value: str) -> str:
    """Regular expression for values of the same type: `10:30` gives digits, colon, digits; a name gives names."""
    if any(c.isdigit() for c in value):
        parts = re.findall(rf"\d+|[{_UPPER}]+(?![a-z])|[{_UPPER}][a-z]+|[a-z]+|\s+|.", value)
        return "".join(_part(p) for p in parts)
    if capitalised(value):
        return NAME
    return rf"[^\W\d{_UPPER}][\w'’-]*(?: [^\W\d{_UPPER}][\w'’-]*){{0,{len(value.split())}}}"


def _part(part: str) -> str:
    if part.isdigit():
        return r"\d+"
    if part.isspace():
        return r"\s+"
    if part.isalpha() and part.isupper():
        return rf"[{_UPPER}]+"
    return re.escape(part)


def occurrences(value: str, text: str) -> list[tuple[int, int]]:
    """Where `value` stands in `text` as whole words, also not as a part of a longer number such as `10` in `10:30`."""
    pattern = rf"(?<![\w])(?<!\d[:.,]){re.escape(value)}(?![\w])(?![:.,]\d)"
    return [m.span() for m in re.finditer(pattern, text)]


def shared_values(question: str, context: str) -> list[str]:
    """Names and codes of the question that the context has too, in order; else the longest words that both have."""
    words = [m.span() for m in TOKEN.finditer(question)]
    found: list[str] = []
    at = 0
    while at < len(words):
        if _kind(question[slice(*words[at])]) not in ("name", "code"):
            at += 1
            continue
        size = next((n for n in range(min(7, len(words) - at), 0, -1) if _shared(question, context, words, at, n)), 0)
        if size:
            found.append(question[words[at][0] : words[at + size - 1][1]])
        at += size or 1
    return list(dict.fromkeys(found)) or _shared_words(question, context)


def _shared(question: str, context: str, words: list[tuple[int, int]], at: int, size: int) -> bool:
    """Whether `size` tokens from `at` stand in the context and both ends are names or codes (not a stop word alone)."""
    text, tail = question[words[at][0] : words[at + size - 1][1]], question[slice(*words[at + size - 1])]
    if _kind(tail) not in ("name", "code") or (size == 1 and text.lower() in STOP):
        return False
    return bool(occurrences(text, context))


def _shared_words(question: str, context: str) -> list[str]:
    tokens = re.findall(r"[\w'’-]+", question)
    for size in range(min(4, len(tokens)), 0, -1):
        for at in range(len(tokens) - size + 1):
            run = tokens[at : at + size]
            edges_count = all(w.lower() not in STOP and w.lower() not in COMMON for w in (run[0], run[-1]))
            if edges_count and occurrences(" ".join(run), context):
                return [" ".join(run)]
    return []
