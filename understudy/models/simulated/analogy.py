"""Answers by analogy: sentence patterns are read off solved examples and matched against another document.

A pattern is the shortest run of sentences that holds a seed's key (what the question names) and its facts, with every
value replaced by a slot of the same shape. What matches it states the same relation between other values.
`Neighbours` is the weaker second way: it finds a value by the words beside it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from understudy.models.simulated.values import (
    COMMON,
    NAME,
    STOP,
    TOKEN,
    Unit,
    capitalised,
    occurrences,
    sentences,
    shape,
    shared_values,
    units,
)

Binding = dict[str, str]
MAX_SENTENCES = 3


@dataclass(frozen=True, slots=True)
class Seed:
    """A solved example; every fact is a substring of context and answer."""

    context: str
    question: str
    answer: str
    facts: tuple[str, ...]
    category: str


@dataclass(frozen=True, slots=True)
class Template:
    """Text with slots: parts at odd places are slot names."""

    parts: tuple[str, ...]

    @classmethod
    def of(cls, text: str, slots: Mapping[str, str]) -> Template:
        """Replace the values of `slots` (name to value) in `text`, longest first, as whole words."""
        parts = [text]
        for name, value in sorted(slots.items(), key=lambda item: (-len(item[1]), item[0])):
            parts = list(itertools.chain.from_iterable(_cut(p, i, name, value) for i, p in enumerate(parts)))
        return cls(tuple(parts))

    def fill(self, binding: Mapping[str, str]) -> str:
        return "".join(binding[p] if i % 2 else p for i, p in enumerate(self.parts))

    @property
    def slots(self) -> set[str]:
        return set(self.parts[1::2])


def _cut(part: str, index: int, name: str, value: str) -> list[str]:
    if index % 2:
        return [part]
    made, at = [], 0
    for start, end in occurrences(value, part):
        made += [part[at:start], name]
        at = end
    return [*made, part[at:]]


@dataclass(frozen=True)
class Lesson:
    """What one seed teaches: its slots with their values, and its question and answer as templates."""

    seed: Seed
    slots: Binding
    question: Template
    answer: Template
    facts: tuple[str, ...]

    @cached_property
    def signature(self) -> tuple[tuple[str, str], ...]:
        """Slot names and types; lessons of one category and signature can exchange question and answer wordings."""
        return tuple((name, _type(value)) for name, value in sorted(self.slots.items()))

    @cached_property
    def keys(self) -> tuple[str, ...]:
        return tuple(name for name in self.slots if name.startswith("key"))

    @cached_property
    def asked(self) -> tuple[str, ...]:
        """The question's skeleton."""
        return skeleton(self.seed.question, self.slots)

    @cached_property
    def wording(self) -> frozenset[str]:
        """Words of question and answer."""
        return frozenset((*self.asked, *skeleton(self.seed.answer, self.slots)))

    @cached_property
    def window(self) -> tuple[str, ...]:
        """The shortest run of the context's sentences that holds every slot's value; empty when there is none."""
        found = sentences(self.seed.context)
        for size in range(1, MAX_SENTENCES + 1):
            for run in _runs(found, size):
                if all(occurrences(value, " ".join(run)) for value in self.slots.values()):
                    return run
        return ()

    @cached_property
    def patterns(self) -> tuple[re.Pattern[str], ...]:
        """The window as a pattern, and once more with the key and its neighbour in an `A and B` exchanged."""
        if not self.window:
            return ()
        pieces = _pieces(" ".join(self.window), self.slots)
        compiled = [re.compile(_regex(p, self.slots)) for p in (pieces, *_swaps(pieces))]
        own = [b for b in (_bound(p.fullmatch(" ".join(self.window)), self.slots) for p in compiled[:1]) if b]
        return tuple(compiled) if own == [self.slots] else ()

    def match(self, document: Sequence[str]) -> Iterator[Binding]:
        """Bindings of this lesson's patterns in a document's sentences."""
        if not self.patterns:
            return
        for run in _runs(document, len(self.window)):
            for pattern in self.patterns:
                binding = _bound(pattern.fullmatch(" ".join(run)), self.slots)
                if binding:
                    yield binding


def _runs(items: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    return (tuple(items[i : i + size]) for i in range(len(items) - size + 1))


def _type(value: str) -> str:
    return shape(value) if any(c.isdigit() for c in value) else "name" if capitalised(value) else "word"


def learn(seed: Seed) -> Lesson | None:
    """The lesson of a seed, or None when its facts do not stand in its context or its question names nothing there."""
    facts = tuple(dict.fromkeys(f for f in seed.facts if f.strip()))
    if not facts or not all(occurrences(f, seed.context) and occurrences(f, seed.answer) for f in facts):
        return None
    keys = [v for v in shared_values(seed.question, seed.context) if v not in facts]
    if not keys:
        return None
    slots = {f"key{i}": v for i, v in enumerate(keys)} | {f"fact{i}": v for i, v in enumerate(facts)}
    blanked = Template.of(seed.answer, slots)
    more: list[str] = []
    for i in range(0, len(blanked.parts), 2):
        more += shared_values(blanked.parts[i], seed.context) if _has_value(blanked.parts[i]) else []
    slots |= {f"more{i}": v for i, v in enumerate(dict.fromkeys(more))}
    return Lesson(seed, slots, Template.of(seed.question, slots), Template.of(seed.answer, slots), facts)


def _has_value(text: str) -> bool:
    """Whether a number, or a capitalised word that does not merely begin a sentence, stands in the text."""
    return any(u.kind == "code" or (u.kind == "name" and u.start > 0) for u in units(text))


Piece = tuple[str, str]
"""What a piece of a sentence is (`slot`, `name`, `code`, `text`) and its slot name or text."""


def _pieces(text: str, slots: Mapping[str, str]) -> list[Piece]:
    """A sentence cut into slots, other values (any value of that shape fits) and wording."""
    pieces: list[Piece] = []
    for i, part in enumerate(Template.of(text, slots).parts):
        if i % 2:
            pieces.append(("slot", part))
            continue
        at = 0
        for unit in units(part):
            opens = i == 0 and unit.start == 0
            # A single capitalised word that opens the sentence cannot be told from wording.
            wild = unit.kind == "code" or (unit.kind == "name" and not (opens and " " not in unit.text))
            if wild:
                pieces += [("text", part[at : unit.start]), (unit.kind, unit.text)]
                at = unit.end
        pieces.append(("text", part[at:]))
    return [p for p in pieces if p[1]]


def _swaps(pieces: list[Piece]) -> Iterator[list[Piece]]:
    for i in range(len(pieces) - 2):
        first, joint, second = pieces[i : i + 3]
        of_keys = [p for p in (first, second) if p[0] == "slot" and p[1].startswith("key")]
        if joint == ("text", " and ") and len(of_keys) == 1 and "name" in (first[0], second[0]):
            yield [*pieces[:i], second, joint, first, *pieces[i + 3 :]]


def _regex(pieces: list[Piece], slots: Mapping[str, str]) -> str:
    made, seen = [], set()
    for kind, text in pieces:
        if kind == "slot":
            made.append(f"(?P={text})" if text in seen else f"(?P<{text}>{shape(slots[text])})")
            seen.add(text)
        elif kind == "text":
            made.append(re.sub(r"(?:\\?\s)+", lambda _: r"\s+", re.escape(text)))
        else:
            made.append(NAME if kind == "name" else shape(text))
    return "".join(made)


def _bound(match: re.Match[str] | None, slots: Mapping[str, str]) -> Binding | None:
    if match is None:
        return None
    binding = {name: match.group(name) for name in slots}
    opens_with_wording = any(capitalised(v) and v.split()[0].lower() in STOP for v in binding.values())
    distinct = len(set(binding.values())) == len(set(slots.values()))
    return binding if distinct and not opens_with_wording else None


@dataclass(frozen=True, slots=True)
class Guess:
    """A binding found by neighbouring words; `sure` when nothing else in the sentence fits as well."""

    binding: Binding
    score: float
    sure: bool


class Neighbours:
    """Which words stand beside each slot's value in the seeds, for lessons of one category and signature."""

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        self.slots = lessons[0].slots
        self.keys = lessons[0].keys
        self.beside: dict[str, tuple[set[str], set[str]]] = {name: (set(), set()) for name in self.slots}
        self.inventories: set[tuple[str, ...]] = set()
        for lesson in lessons:
            if len(lesson.window) == 1:
                self._read(lesson)

    def _read(self, lesson: Lesson) -> None:
        found = units(lesson.window[0])
        self.inventories.add(_inventory(found))
        key = lesson.slots[self.keys[0]]
        for name, value in lesson.slots.items():
            for i, unit in enumerate(found):
                if unit.text == value:
                    self.beside[name][0].add(_abstract(found, i - 1, key))
                    self.beside[name][1].add(_abstract(found, i + 1, key))

    def find(self, sentence: str, key: str) -> Guess | None:
        """The other slots' values in a sentence that holds `key`; None when a slot has no candidate."""
        if len(self.keys) != 1 or not occurrences(key, sentence):
            return None
        found = units(sentence)
        same = _inventory(found) in self.inventories
        binding, score, sure = {self.keys[0]: key}, 2.0 * same, same
        for name, value in self.slots.items():
            if name in self.keys:
                continue
            kind, pattern = _type(value), re.compile(shape(value))
            ranked = sorted(
                ((self._score(found, i, name, key), -i) for i, u in enumerate(found) if _fits(u, kind, pattern, key)),
                reverse=True,
            )
            ranked = [r for r in ranked if found[-r[1]].text not in binding.values()]
            if not ranked or (kind == "word" and ranked[0][0] == 0):
                return None
            alone = len(ranked) == 1 or (ranked[0][0] == 2 and ranked[1][0] < 2)
            sure = sure and (alone if kind != "word" else ranked[0][0] == 2 and alone)
            binding[name] = found[-ranked[0][1]].text
            score += ranked[0][0] + 0.5 * (len(ranked) == 1)
        return Guess(binding, score, sure)

    def _score(self, found: Sequence[Unit], at: int, name: str, key: str) -> int:
        lefts, rights = self.beside[name]
        return int(_abstract(found, at - 1, key) in lefts) + int(_abstract(found, at + 1, key) in rights)


def _fits(unit: Unit, kind: str, pattern: re.Pattern[str], key: str) -> bool:
    if unit.text == key or (kind == "word" and unit.text.lower() in STOP | COMMON):
        return False
    expected = kind if kind in ("name", "word") else "code"
    return unit.kind == expected and bool(pattern.fullmatch(unit.text))


def _abstract(found: Sequence[Unit], at: int, key: str) -> str:
    if not 0 <= at < len(found):
        return "<edge>"
    unit = found[at]
    if unit.text == key:
        return "<key>"
    return {"name": "<name>", "code": shape(unit.text)}.get(unit.kind, unit.text.lower())


def _inventory(found: Sequence[Unit]) -> tuple[str, ...]:
    """The types of the values in a sentence; two sentences about the same relation have the same."""
    named = [u for i, u in enumerate(found) if u.kind in ("name", "code") and not (i == 0 and " " not in u.text)]
    return tuple(sorted(_type(u.text) for u in named))


def grouped(lessons: Sequence[Lesson]) -> list[list[Lesson]]:
    """Lessons of one category and signature together, in order of appearance."""
    groups: dict[tuple[object, ...], list[Lesson]] = {}
    for lesson in lessons:
        groups.setdefault((lesson.seed.category, lesson.signature), []).append(lesson)
    return list(groups.values())


def alternatives(value: str, document: str, taken: Sequence[str]) -> list[str]:
    """Other values of the same type in a document, those with as many words first: what a wrong answer may state."""
    kind, pattern = _type(value), re.compile(shape(value))
    found = [u for s in sentences(document) for u in units(s)]
    fitting = [u.text for u in found if _fits(u, kind, pattern, value)]
    # A page may hold no second adjective; any other word makes the answer wrong just as well.
    if kind == "word" and set(fitting) <= set(taken):
        fitting = [u.text for u in found if u.kind == "word" and u.text.lower() not in STOP]
    fresh = [v for v in dict.fromkeys(fitting) if v not in taken]
    return sorted(fresh, key=lambda v: abs(len(v.split()) - len(value.split())))


def skeleton(text: str, slots: Mapping[str, str]) -> tuple[str, ...]:
    """A question's lower-case words with its values replaced by slot names."""
    parts = Template.of(text, slots).parts
    return tuple(w for i, p in enumerate(parts) for w in ([p] if i % 2 else [t.lower() for t in TOKEN.findall(p)]))
