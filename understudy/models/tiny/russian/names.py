"""Seeded makers of Russian names, numbers, codes and times; held words are kept from training as in `tiny.names`.

Names stand in the nominative everywhere, so that copying is exact: a thing's name is in guillemets after the noun that
is declined (`на экскурсии «Тихая Лампа»`), and a person's name is always a subject.
"""

from __future__ import annotations

import functools

from understudy.models.tiny.names import Names, is_held
from understudy.models.tiny.russian.inflection import Noun, adjective, counted, noun
from understudy.models.tiny.russian.words import MONTHS, TITLE_ADJECTIVES, TITLE_NOUNS, forbidden, listed

WEEKDAYS = (
    "в понедельник", "во вторник", "в среду", "в четверг", "в пятницу", "в субботу", "в воскресенье",
)  # fmt: skip
_ONSETS = listed(
    "б в г д ж з к л м н п р с т ф х ц ч ш б в г д к л м н п р с т "
    "бл бр вл гл гр др зв кл кр пл пр св ск сл см сн ст тр хр"
)
_VOWELS = listed("а е и о у а е и о а я ю ё ы э")
_CODAS = ("", "", "", "", *listed("б в г д ж й к л м н п р с т ф х ц ш рт нт ль нь лк рд рн ст нд"))
_ENDS = listed("ов ев ин ский ия ан ер ель ик ина ова ор ун ич ко ма на ра енко ар ис она ета ист")
_LETTERS = "АБВГДЕЖЗИКЛМНПРСТУФХЦЧШЭЮЯ"


@functools.cache
def _titles() -> tuple[tuple[Noun, ...], tuple[str, ...]]:
    entries = (entry for entry in TITLE_NOUNS.split() if not entry.endswith((":p", "пламя:n")))
    return tuple(noun(entry) for entry in entries), tuple(TITLE_ADJECTIVES.split())


@functools.cache
def _pieces() -> tuple[str, ...]:
    words = (*(found.form("n") for found in _titles()[0]), *_titles()[1])
    return tuple(w[at : at + size] for w in words for size in (2, 3, 4) for at in range(max(len(w) - size + 1, 0)))


def _speakable(word: str) -> bool:
    return word[0] not in "ыьъ" and not any(pair in word for pair in ("жы", "шы", "чя", "щя", "чю", "ьь", "ьй"))


class RussianNames(Names):
    """Writes Russian values from one random stream; `held=True` writes the words and numbers kept for evaluation."""

    def word(self) -> str:
        """A made-up lower-case word: syllables, or pieces of real words."""
        rng = self.rng
        while True:
            if rng.random() < 0.75:
                parts = [
                    rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice((1, 2, 2)))
                ]
                if rng.random() < 0.4:
                    parts.append(rng.choice(_ENDS))
            else:
                parts = [rng.choice(_pieces()) for _ in range(2)]
            word = "".join(parts)
            if 3 <= len(word) <= 9 and _speakable(word) and not forbidden(word) and is_held(word) == self.held:
                return word

    def masculine(self) -> str:
        """A made-up word that ends in a hard consonant, so that it is declined as `стол` is."""
        while True:
            word = self.word()
            if word[-1] in "бвдзлмнпрстф":
                return word

    def title(self) -> str:
        """The name of a thing, two or three words in the nominative; most have a made-up one."""
        rng = self.rng
        nouns, adjectives = _titles()
        word, way = rng.choice(adjectives), rng.random()
        if way < 0.35:
            made = self.cap()
            gender = {"а": "f", "я": "f", "о": "n", "е": "n"}.get(made[-1].lower(), "m")
            return f"{adjective(word, Noun({}, {}, gender, False), 'n').capitalize()} {made}"
        if way < 0.6:
            return f"{self.cap()} {rng.choice(nouns).form('n').capitalize()}"
        while True:
            thing = rng.choice(nouns)
            shown, name = adjective(rng.choice(adjectives), thing, "n").capitalize(), thing.form("n").capitalize()
            if way < 0.7:
                return f"{shown} {self.cap()} {name}"
            if is_held(f"{shown} {name}") == self.held:
                return f"{shown} {name}"

    def decimal(self) -> str:
        """A decimal such as 3,75 or 41,5."""
        return super().decimal().replace(".", ",")

    def price(self) -> str:
        """A price with the noun that it asks for: 350 рублей, 12,5 рубля."""
        if self.rng.random() < 0.5:
            return f"{self.decimal()} рубля"
        while True:
            number = self.rng.randint(100, 9999)
            if is_held(str(number)) == self.held:
                return f"{number} {counted(number, 'рубль', 'рубля', 'рублей')}"

    def code(self) -> str:
        """A room-like code such as Б12, К204 or ТР19."""
        rng = self.rng
        while True:
            letters = "".join(rng.choice(_LETTERS) for _ in range(rng.choice((1, 1, 1, 2))))
            text = f"{letters}{rng.randint(1, rng.choice((99, 99, 999)))}"
            if is_held(text) == self.held:
                return text

    def day(self) -> str:
        """A weekday or a date, as it stands in a sentence."""
        rng = self.rng
        return rng.choice(WEEKDAYS) if rng.random() < 0.6 else f"{rng.randint(1, 30)} {rng.choice(MONTHS)}"
