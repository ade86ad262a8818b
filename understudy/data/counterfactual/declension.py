"""Russian names by case: nominative, genitive, dative, accusative, instrumental, prepositional.

Rules for given names and surnames in the singular (A. Zaliznyak's regular types and the few usual exceptions). Gender
is `f` or `m`; a word that no rule bends stays as it is, as foreign surnames of women do.
"""

from __future__ import annotations

import re

CASES = ("nom", "gen", "dat", "acc", "ins", "prep")
_STEMS = {"павел": "павл", "лев": "льв", "пётр": "петр", "петр": "петр"}
_MEN_IN_A = frozenset({"никита", "илья", "лука", "фома", "кузьма", "савва", "данила"})
_FEMININE = re.compile(r"(?:ов|ев|ёв|ин|ын)а$|ая$|яя$")
_MASCULINE = re.compile(r"(?:ов|ев|ёв|ин|ын|[^аяоуиеэы]ий|ый|ой)$")
BEFORE = {
    **dict.fromkeys(("у", "от", "для", "без", "до", "из", "после", "около", "кроме", "против"), "gen"),
    **dict.fromkeys(("к", "ко", "благодаря", "согласно"), "dat"),
    **dict.fromkeys(("про", "через"), "acc"),
    **dict.fromkeys(("с", "со", "над", "под", "перед", "между"), "ins"),
    **dict.fromkeys(("о", "об", "обо", "при"), "prep"),
}
"""Prepositions that leave one case to a person's name."""


def gender_of(given: str, surname: str = "") -> str:
    """`f` or `m` by the surname's ending where it tells, else by the given name's."""
    last = surname.lower()
    if _FEMININE.search(last):
        return "f"
    if _MASCULINE.search(last):
        return "m"
    name = given.lower()
    return "f" if name[-1:] in ("а", "я") and name not in _MEN_IN_A else "m"


def decline_given(name: str, gender: str) -> tuple[str, ...]:
    """The six cases of a given name."""
    lower = name.lower()
    if lower.endswith(("а", "я")):
        return _first_declension(name)
    if gender == "f":
        if not lower.endswith("ь"):
            return (name,) * 6
        stem = name[:-1]
        return name, stem + "и", stem + "и", name, name + "ю", stem + "и"
    if lower.endswith("ий"):
        stem = name[:-1]
        return name, stem + "я", stem + "ю", stem + "я", stem + "ем", stem + "и"
    if lower.endswith(("й", "ь")):
        stem = name[:-1]
        return name, stem + "я", stem + "ю", stem + "я", stem + "ем", stem + "е"
    if lower.endswith(("о", "е", "и", "у", "ы", "э", "ю")):
        return (name,) * 6
    short = _STEMS.get(lower)
    stem = (name[0] + short[1:]) if short else name
    return name, stem + "а", stem + "у", stem + "а", stem + ("ем" if stem[-1] in "жшчщц" else "ом"), stem + "е"


def decline_surname(name: str, gender: str) -> tuple[str, ...]:
    """The six cases of a surname."""
    lower = name.lower()
    if lower.endswith(("ых", "их")):  # Черных, Долгих: a genitive already
        return (name,) * 6
    if gender == "f":
        if lower.endswith(("ая", "яя")):
            stem = name[:-2]
            return name, stem + "ой", stem + "ой", stem + "ую", stem + "ой", stem + "ой"
        if _FEMININE.search(lower):
            stem = name[:-1]
            return name, stem + "ой", stem + "ой", stem + "у", stem + "ой", stem + "ой"
        return _first_declension(name) if lower.endswith(("а", "я")) else (name,) * 6
    if lower.endswith(("ий", "ый", "ой")):
        stem = name[:-2]
        soft = lower.endswith("ий") or stem[-1:] in "кгх"
        return name, stem + "ого", stem + "ому", stem + "ого", stem + ("им" if soft else "ым"), stem + "ом"
    if re.search(r"(?:ов|ев|ёв|ин|ын)$", lower):
        return name, name + "а", name + "у", name + "а", name + "ым", name + "е"
    return decline_given(name, "m")


def counterpart(surname: str, gender: str) -> str:
    """The surname as a person of `gender` bears it: Петров and Петрова, Белый and Белая."""
    lower = surname.lower()
    if gender == "f":
        if re.search(r"(?:ов|ев|ёв|ин|ын)$", lower):
            return surname + "а"
        return surname[:-2] + "ая" if re.search(r"(?:[^аяоуиеэы]ий|ый|ой)$", lower) else surname
    if re.search(r"(?:ов|ев|ёв|ин|ын)а$", lower):
        return surname[:-1]
    if lower.endswith("ая"):
        return surname[:-2] + ("ий" if surname[-3:-2].lower() in "кгх" else "ый")
    return surname


def _first_declension(name: str) -> tuple[str, ...]:
    """Анна, Ольга, Мария, Наталья; Никита and Илья too."""
    stem, last = name[:-1], name[-1].lower()
    if last == "а":
        soft = stem[-1:].lower()
        gen = "и" if soft in "гкхжчшщ" else "ы"
        return name, stem + gen, stem + "е", stem + "у", stem + ("ей" if soft in "жчшщц" else "ой"), stem + "е"
    dative = "и" if stem[-1:].lower() == "и" else "е"
    return name, stem + "и", stem + dative, stem + "ю", stem + "ей", stem + dative
