"""Attributes to swap: groups, matched names, and forms (pronouns, group terms) with one word for each group.

Names at one place of the groups' lists belong together. Even places serve the experiment, odd ones augmentation, so
that no name of the experiment is in a row that was made against its bias.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from understudy.errors import ConfigError
from understudy.yamlfile import Reader, decode, read_bytes

BUILT_IN = ("en", "ru")
_CYRILLIC = re.compile(r"[а-яё]", re.IGNORECASE)
_LATIN = re.compile(r"[a-z]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Form:
    """One word for each group. Where a word stands in two forms, `before_noun` or `after` (prepositions) decides.

    `read` are the words that the form is known by; one written `~Mr` is put in and not read, since `Ms` reads it.
    """

    words: tuple[str, ...]
    read: tuple[str, ...]
    before_noun: bool | None = None
    after: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Attribute:
    """What is swapped, in one language. `agreement`: other words of a sentence agree with the group."""

    name: str
    language: str
    groups: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    forms: tuple[Form, ...] = ()
    terms: Mapping[str, str] = field(default_factory=dict)
    refuse: frozenset[str] = frozenset()
    agreement: bool = False

    def pairs(self, *, testing: bool) -> list[dict[str, str]]:
        """Names that belong together, by group: those of the experiment, or those of augmentation."""
        places = range(0 if testing else 1, len(next(iter(self.names.values()), ())), 2)
        return [{group: self.names[group][i] for group in self.groups} for i in places]

    @cached_property
    def owners(self) -> dict[str, list[Form]]:
        """The forms that a word, in small letters, is known by."""
        found: dict[str, list[Form]] = {}
        for form in self.forms:
            for word in form.read:
                found.setdefault(word.lower(), []).append(form)
        return found

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Any word that is swapped or refused, as a whole word; the longest first."""
        words = sorted({*self.owners, *self.refuse}, key=lambda w: (-len(w), w))
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE)

    def words(self, group: str) -> list[str]:
        """Every form and term of a group, in small letters."""
        at = self.groups.index(group)
        found = {form.words[at].lower() for form in self.forms}
        return sorted(found | ({self.terms[group].lower()} if group in self.terms else set()))


Lexicon = Mapping[tuple[str, str], Attribute]
"""(language, attribute) -> Attribute"""


def language_of(text: str) -> str:
    """`ru` where most letters are Cyrillic, else `en`."""
    return "ru" if len(_CYRILLIC.findall(text)) > len(_LATIN.findall(text)) else "en"


def lexicon(names: list[str], own: Path | None) -> dict[tuple[str, str], Attribute]:
    """The attributes `names` in every language that has them; the own file's win.

    Raises ConfigError SWAPS_UNKNOWN for an attribute that no list has, SWAPS_SHAPE for a file of another shape.
    """
    found: dict[tuple[str, str], Attribute] = {}
    for language in BUILT_IN:
        text = (Path(__file__).parent / f"{language}.json").read_text("utf-8")
        found |= {(language, name): _attribute(name, language, value) for name, value in json.loads(text).items()}
    if own:
        found |= _own(own)
    known = sorted({name for _, name in found})
    for name in names:
        if name not in known:
            fix = f"one of {', '.join(known)}, or give your own list with bias.swaps"
            raise ConfigError("SWAPS_UNKNOWN", "bias.attributes", f"no swap list for {name!r}", fix)
    return {key: attribute for key, attribute in found.items() if key[1] in names}


def read_yaml(path: Path) -> Any:
    """A plain YAML file under the rules of `understudy.yaml`."""
    return Reader(path, decode(path, read_bytes(path))).document()


def _own(path: Path) -> dict[tuple[str, str], Attribute]:
    value = read_yaml(path)
    if not isinstance(value, dict) or not all(isinstance(v, dict) for v in value.values()):
        raise _shape(path, "wanted language > attribute > groups, names, forms, terms")
    try:
        return {
            (language, name): _attribute(name, language, given)
            for language, attributes in value.items()
            for name, given in attributes.items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise _shape(path, str(e)) from None


def _shape(path: Path, what: str) -> ConfigError:
    return ConfigError("SWAPS_SHAPE", path, what, "see docs/bias.md for the shape of a swap list")


def _attribute(name: str, language: str, value: Mapping[str, Any]) -> Attribute:
    groups = tuple(str(g) for g in value["groups"])
    names = {group: tuple(value["names"][group]) for group in groups} if value.get("names") else {}
    if len({len(of) for of in names.values()}) > 1:
        raise ValueError(f"{language}.{name}.names: the groups' lists differ in length; names are matched by place")
    forms = tuple(_form(f) for f in value.get("forms", ()))
    if odd := next((f.words for f in forms if len(f.words) != len(groups)), None):
        raise ValueError(f"{language}.{name}.forms: {list(odd)} has not one word for each of {list(groups)}")
    terms = {str(g): str(t) for g, t in value.get("terms", {}).items()}
    if terms and terms.keys() != set(groups):
        raise ValueError(f"{language}.{name}.terms: wanted one for each of {list(groups)}")
    if len(groups) < 2:
        raise ValueError(f"{language}.{name}.groups: wanted two or more")
    refuse = frozenset(value.get("refuse", ()))
    return Attribute(name, language, groups, names, forms, terms, refuse, bool(value.get("agreement")))


def _form(value: Mapping[str, Any]) -> Form:
    given = [str(word) for word in value["words"]]
    read = tuple(word for word in given if not word.startswith("~"))
    words = tuple(word.removeprefix("~") for word in given)
    return Form(words, read, value.get("before_noun"), frozenset(value.get("after", ())))
