"""Rewrites a text about one person for another group: the name in its grammatical case, pronouns and group terms.

Case by case without a parser, so it refuses (`Unswappable`) what it cannot decide: a Russian form that may be two cases
of the new name, a verb or adjective that agrees with the person's gender. English `her` and `his` go by the next word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from understudy.data.counterfactual import declension
from understudy.data.counterfactual.lexicon import Attribute, Form

_HOLD = "\ue000{}\ue001"  # private-use marks stand for what is put in, so that nothing is swapped twice
_HELD = re.compile("\ue000(\\d+)\ue001")
_NEXT = re.compile(r"[ \t]+([^\W\d_]+)")
_BEFORE = re.compile(r"([^\W\d_]+)[ \t]+$")
_SENTENCE = re.compile(r"[^.!?…\n]+")
_AGREES = re.compile(r"\b[а-яё]{2,}(?:л|ла|лся|лась|ая|яя|ый|ий)\b", re.IGNORECASE)
_AGREES_NOT = frozenset(
    {"балл", "дела", "журнал", "зал", "отдел", "раздел", "стол", "стул", "угол", "школа", "сила", "тела", "смысл"}
)
# Words after which `her` is an object and `his` stands alone: no noun begins with them.
_NO_NOUN = frozenset(
    re.findall(
        r"\w+",
        """a about after again all also an and any are as at because before but by can for from had has have he how if
        in into is it may more most never no nor not of off often on once or out over she should since so than that the
        their them then there these they this those though through to too under until up very was well were what when
        where which while who why will with would yesterday today tomorrow""",
    )
)
# Verbs after which `her` may be an object with an adjective ("call her patient") as well as a possessive.
_NAMING = frozenset(
    re.findall(
        r"\w+",
        """call calls called calling consider considers considered deem deems find finds found judge judges judged keep
        keeps kept make makes made paint paints rate rates rated see sees saw think thinks thought""",
    )
)


class Unswappable(Exception):
    """`args[0]` is the reason for the ledger."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody in a text; `gender` is `f` or `m` where the language bends names by it."""

    name: str
    language: str = "en"

    @property
    def given(self) -> str:
        return self.name.split()[0]

    @property
    def rest(self) -> str:
        return " ".join(self.name.split()[1:])

    @property
    def gender(self) -> str:
        return declension.gender_of(self.given, self.rest) if self.language == "ru" else ""

    def cases(self) -> tuple[str, ...]:
        """The whole name in six cases; English has one form for all."""
        if self.language != "ru":
            return (self.name,) * 6
        given = declension.decline_given(self.given, self.gender)
        last = declension.decline_surname(self.rest, self.gender) if self.rest else ("",) * 6
        return tuple(f"{g} {s}".strip() for g, s in zip(given, last, strict=True))

    def called(self, name: str) -> Person:
        """The same person under another name; a given name alone keeps the surname, as the language wants it."""
        if " " in name or not self.rest:
            return Person(name, self.language)
        rest = self.rest
        if self.language == "ru":
            rest = declension.counterpart(rest, declension.gender_of(name))
        return Person(f"{name} {rest}", self.language)


def rewrite(text: str, attribute: Attribute, group: str, person: Person | None, new: Person | None) -> str:
    """`text` as if it were about a member of `group`; `person` becomes `new` where both are given.

    Raises Unswappable with a reason.
    """
    if attribute.agreement and person:
        _refuse_agreement(text, attribute, person)
    held: list[str] = []

    def hold(value: str) -> str:
        held.append(value)
        return _HOLD.format(len(held) - 1)

    if person and new:
        text = _names(text, person, new, hold)
    text = _forms(text, attribute, attribute.groups.index(group), hold)
    return _HELD.sub(lambda m: held[int(m[1])], text)


def mentions(text: str, person: Person) -> bool:
    """Whether the person's whole name stands in the text, in any case."""
    return any(re.search(_whole(form), text) for form in set(person.cases()))


def _whole(word: str) -> str:
    return rf"(?<!\w){re.escape(word)}(?!\w)"


def _names(text: str, person: Person, new: Person, hold: object) -> str:
    """The whole name, then each of its words alone."""
    assert callable(hold)
    parts = [(person, new)]
    if person.rest:
        parts.append((Person(person.given, person.language), Person(new.given, new.language)))
        # A surname alone bends by the person's gender, not by its own ending.
        text = _replace(text, person.cases(), new.cases(), hold)
        text = _replace(text, *_surnames(person, new), hold)
    for old, other in parts:
        text = _replace(text, old.cases(), other.cases(), hold)
    return text


def _surnames(person: Person, new: Person) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if person.language != "ru":
        return (person.rest,) * 6, (new.rest or new.name,) * 6
    return (
        declension.decline_surname(person.rest, person.gender),
        declension.decline_surname(new.rest or new.name, new.gender),
    )


def _replace(text: str, old: Sequence[str], new: Sequence[str], hold: object) -> str:
    assert callable(hold)

    def put(match: re.Match[str]) -> str:
        places = [i for i, form in enumerate(old) if form == match[0]]
        wanted = {new[i] for i in places}
        if len(wanted) > 1:
            before = _BEFORE.search(text[: match.start()])
            case = declension.BEFORE.get(before[1].lower()) if before else None
            if case is None or declension.CASES.index(case) not in places:
                raise Unswappable("ambiguous_case")
            wanted = {new[declension.CASES.index(case)]}
        return str(hold(wanted.pop()))

    forms = sorted(set(old), key=lambda f: (-len(f), f))
    return re.sub("|".join(_whole(f) for f in forms), put, text)


def _forms(text: str, attribute: Attribute, at: int, hold: object) -> str:
    assert callable(hold)
    if not attribute.owners:
        return text

    def put(match: re.Match[str]) -> str:
        word = match[0].lower()
        if word in attribute.refuse:
            raise Unswappable("ambiguous_form")
        found = {f.words[at] for f in _fitting(attribute.owners[word], text, match)}
        if len(found) != 1:
            raise Unswappable("ambiguous_form")
        return str(hold(_cased(found.pop(), match[0])))

    return attribute.pattern.sub(put, text)


def _fitting(forms: list[Form], text: str, match: re.Match[str]) -> list[Form]:
    """The forms that the words around leave."""
    if len({f.words for f in forms}) == 1:
        return forms
    after = _NEXT.match(text, match.end())
    noun = after is not None and after[1].lower() not in _NO_NOUN
    before = _BEFORE.search(text[: match.start()])
    preposition = before[1].lower() if before else ""
    if noun and preposition in _NAMING and any(f.before_noun is not None for f in forms):
        return forms  # undecided
    kept = [f for f in forms if f.before_noun in (None, noun) and (not f.after or preposition in f.after)]
    told = [f for f in kept if f.before_noun is not None or f.after]
    return told or kept


def _cased(word: str, like: str) -> str:
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[0].upper() + word[1:] if like[0].isupper() else word


def _refuse_agreement(text: str, attribute: Attribute, person: Person) -> None:
    own = {w.lower() for case in person.cases() for w in case.split()}
    about = {w for form in attribute.forms for w in (x.lower() for x in form.words)} | own
    for sentence in _SENTENCE.findall(text):
        if not about & {w.lower() for w in re.findall(r"[^\W\d_]+", sentence)}:
            continue
        if any(w.lower() not in own | _AGREES_NOT for w in _AGREES.findall(sentence)):
            raise Unswappable("gender_agreement")
