"""Declension tables of Russian nouns and adjectives, past tense, numerals and the vowels that prepositions take.

Cases are letters: n(ominative) g(enitive) d(ative) a(ccusative) i(nstrumental) p(repositional), l(ocative: `p` but
for a few nouns such as "в саду"). Only regular classes; what is irregular in a word is written in its entry (`noun`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CASES = "ngdaip"
_VELAR, _HUSH = "гкх", "жчшщ"
_HARD_M = (("", "а", "у", "", "ом", "е"), ("ы", "ов", "ам", "ы", "ами", "ах"))
_SOFT_M = (("ь", "я", "ю", "ь", "ем", "е"), ("и", "ей", "ям", "и", "ями", "ях"))
_GLIDE_M = (("й", "я", "ю", "й", "ем", "е"), ("и", "ев", "ям", "и", "ями", "ях"))
_HARD_F = (("а", "ы", "е", "у", "ой", "е"), ("ы", "", "ам", "ы", "ами", "ах"))
_SOFT_F = (("я", "и", "е", "ю", "ей", "е"), ("и", "ь", "ям", "и", "ями", "ях"))
_IYA_F = (("я", "и", "и", "ю", "ей", "и"), ("и", "й", "ям", "и", "ями", "ях"))
_SIGN_F = (("ь", "и", "и", "ь", "ью", "и"), ("и", "ей", "ям", "и", "ями", "ях"))
_HARD_N = (("о", "а", "у", "о", "ом", "е"), ("а", "", "ам", "а", "ами", "ах"))
_SOFT_N = (("е", "я", "ю", "е", "ем", "е"), ("я", "ей", "ям", "я", "ями", "ях"))
_IYE_N = (("е", "я", "ю", "е", "ем", "и"), ("я", "й", "ям", "я", "ями", "ях"))


@dataclass(frozen=True)
class Noun:
    """A noun's forms by case, singular and plural, its gender (m, f, n) and its preposition of place (в, на)."""

    singular: dict[str, str]
    plural: dict[str, str]
    gender: str
    animate: bool
    at: str = "в"

    def form(self, case: str, plural: bool = False) -> str:
        """One form, e.g. form("p") of "парк" is "парке"."""
        forms = self.plural if plural else self.singular
        return forms.get(case) or forms["p"]


def spell(text: str) -> str:
    """Spelling rules at the seam of stem and ending: no ы after к г х ж ч ш щ, no я ю after hushing sounds and ц."""
    text = re.sub(r"([гкхжчшщ])ы", r"\1и", text)
    text = re.sub(r"([жчшщц])я", r"\1а", text)
    return re.sub(r"([жчшщц])ю(?!$)|([жчшщц])ю$", lambda m: (m[1] or m[2]) + "у", text)


def _class(word: str, gender: str) -> tuple[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Stem and endings of a word."""
    last = word[-1]
    if gender == "m":
        return {"й": (word[:-1], _GLIDE_M), "ь": (word[:-1], _SOFT_M)}.get(last, (word, _HARD_M))
    if gender == "f":
        if word.endswith("ия"):
            return word[:-1], _IYA_F
        return word[:-1], {"а": _HARD_F, "я": _SOFT_F, "ь": _SIGN_F}[last]
    if word.endswith("ие"):
        return word[:-1], _IYE_N
    if last == "е" and word[-2] in _HUSH + "ц":
        return word[:-1], (("е", "а", "у", "е", "ем", "е"), _HARD_N[1])
    return word[:-1], {"о": _HARD_N, "е": _SOFT_N}[last]


def noun(entry: str, animate: bool = False) -> Noun:
    """Reads `word:gender[:option=value,...]`.

    Options: stem (other cases, of a masculine: "день:m:stem=дн"), gp (genitive plural), pl=а (plural in -а), loc
    (locative), at (preposition of place), i (stressed ending of the instrumental: ом, ём).
    """
    word, gender, *rest = entry.split(":")
    options = dict(part.split("=") for part in rest[0].split(",")) if rest else {}
    stem, (one, many) = _class(word, gender)
    stem = options.get("stem", stem)
    singular = {case: stem + ending for case, ending in zip(CASES, one, strict=True)}
    plural = {case: stem + ending for case, ending in zip(CASES, many, strict=True)}
    if stem[-1] in _HUSH + "ц":
        if one[4] in ("ом", "ой"):
            singular["i"] = stem + {"ом": "ем", "ой": "ей"}[one[4]]
        if gender == "m" and many[1] == "ов":
            plural["g"] = stem + ("ев" if stem[-1] == "ц" else "ей")
    if options.get("pl"):
        for case, ending in zip(CASES, ("а", "ов", "ам", "а", "ами", "ах"), strict=True):
            plural[case] = stem + ending
    plural["g"] = options.get("gp", plural["g"])
    singular["i"] = stem + options["i"] if "i" in options else singular["i"]
    singular["n"] = word
    if gender == "m" or (gender == "f" and word[-1] == "ь") or gender == "n":
        singular["a"] = word
    if animate:
        plural["a"] = plural["g"]
        singular["a"] = singular["g"] if gender == "m" else singular["a"]
    singular = {case: spell(text) for case, text in singular.items()}
    plural = {case: spell(text) for case, text in plural.items()}
    singular["l"] = options.get("loc", singular["p"])
    return Noun(singular, plural, gender, animate, options.get("at", "в"))


def adjective(word: str, of: Noun, case: str, plural: bool = False) -> str:
    """The form of an adjective that agrees with a noun."""
    stem, ending = word[:-2], word[-2:]
    case = "p" if case == "l" else case
    soft = ending == "ий" and stem[-1] == "н"
    front = soft or (ending == "ий" and stem[-1] in _HUSH)
    if case == "a" and (plural or of.gender == "m"):
        case = "g" if of.animate else "n"
    if plural:
        found = dict(zip(CASES, ("ые", "ых", "ым", "ые", "ыми", "ых"), strict=True))[case]
    elif of.gender == "f":
        hard = ("ая", "ой", "ой", "ую", "ой", "ой")
        found = dict(zip(CASES, ("ая", "ей", "ей", "ую", "ей", "ей") if front else hard, strict=True))[case]
        found = {"ая": "яя", "ую": "юю"}.get(found, found) if soft else found
    else:
        hard = ("ое", "ого", "ому", "ое", "ым", "ом")
        found = dict(zip(CASES, ("ее", "его", "ему", "ее", "ым", "ем") if front else hard, strict=True))[case]
        found = ending if of.gender == "m" and case == "n" else found
    if stem[-1] in _VELAR + _HUSH or soft:
        found = found.replace("ы", "и")
    return stem + found


def past(infinitive: str, of: Noun) -> str:
    """Past tense of a regular verb in -ть(ся), in the noun's gender."""
    reflexive = infinitive.endswith("ся")
    stem = infinitive.removesuffix("ся").removesuffix("ть")
    form = stem + {"m": "л", "f": "ла", "n": "ло"}[of.gender]
    return form + ("ся" if of.gender == "m" else "сь") if reflexive else form


def counted(number: int, one: str, few: str, many: str) -> str:
    """The form that a whole number asks for: 21 место, 24 места, 25 мест."""
    if number % 100 in range(11, 15):
        return many
    return one if number % 10 == 1 else few if number % 10 in (2, 3, 4) else many


def euphony(text: str) -> str:
    """Prepositions as they stand before some sounds: об, со, во, ко."""
    text = re.sub(r"\b([Оо]) (?=[«]?[аиоуэАИОУЭ])", r"\1б ", text)
    text = re.sub(r"\b([Сс]) (?=[сзшж][бвгджзклмнпрстфхцчшщ]|щ|вс|вз|вт|мн)", r"\1о ", text)
    text = re.sub(r"\b([Вв]) (?=[вф][бвгджзклмнпрстфхцчшщ]|дворе?\b)", r"\1о ", text)
    return re.sub(r"\b([Кк]) (?=вс|мн|дню)", r"\1о ", text)
