"""Seeded makers of names, numbers, codes and times that no training row and no evaluation row share.

Made-up words, numbers of three digits or more, decimals and codes belong by their checksum to one of two worlds:
15 of 16 are for training, 1 of 16 is held for evaluation. So "unseen" needs no list of what was seen.
"""

from __future__ import annotations

import random
import zlib


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


HELD_SHARE = 16  # one word in sixteen is held for evaluation

ADJECTIVES = _words(
    "amber blue bright broad calm clear cold copper dark early east fair fast fine first golden grand green grey "
    "happy high iron late light little long low new noble north old open pale plain quick quiet red round royal "
    "sharp silver small soft south steady still sunny tall upper warm west white wide wild young applied general "
    "modern local central common simple social natural public creative digital advanced practical"
)
NOUNS = _words(
    "anchor apple arch arrow barn basket bay bell birch boat bottle bridge brook candle castle cedar clock cloud "
    "compass corner cradle crown door drum eagle falcon feather field finch flame forest fountain fox gate glass "
    "harbor hill horn house island ivy jewel key kite ladder lake lamp lantern leaf lion maple market meadow mill "
    "mirror moon moss mountain needle nest oak orchard otter owl paper pearl pepper pine pond quill rain reed ridge "
    "ring river road robin rose sail sand shell shore sparrow spring star stone storm swan table thistle tide tower "
    "train tree valley violet wagon water wheel willow wind window wing wolf wood wool yard tools works systems "
    "design music history method theory power motion energy space studies science language sound colour game data"
)
OPINIONS = _words(
    "calm bright noisy friendly slow fast cold warm kind strict useful dull lively clean dusty safe crowded cheap "
    "dear pretty plain clear helpful patient fair odd rare modern simple strong weak loud quiet fresh tidy pleasant "
    "boring funny gentle rough smart busy lovely hard easy great poor good bad long short engaging confusing"
)
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words("January February March April May June July August September October November December")
UNITS = _words("crowns marks coins dollars euros points metres litres degrees kilos miles grams hours minutes")
# Words of the product's example domains: a made-up word must not hit one by chance.
FORBIDDEN = frozenset(
    _words(
        "university universities college school professor professors teacher teachers teach teaches taught student "
        "students course courses review reviews rating ratings rate rates exam exams credit credits lecture lectures "
        "class classes semester grade grades horoscope horoscopes zodiac aries taurus gemini leo virgo libra scorpio "
        "sagittarius capricorn aquarius pisces wikipedia"
    )
)
_ONSETS = _words(
    "b c d f g h j k l m n p qu r s t v w x y z bl br ch cl cr dr fl fr gl gr pl pr sh sk sl sp st str th tr"
)
_VOWELS = _words("a e i o u a e i o u ai ea ee ia ie io oa oo ou y")
_CODAS = ["", "", "", *_words("b ck d f g k l m n p r s t x z ld ll mp nd ng nk nt rd rn rt ss st th")]
_ENDS = _words("er or in an el en on us ia ton ley man son berg well ford ing ment tion ity ance ive ous ful")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_PIECES = tuple(
    word[start : start + size]
    for word in (*ADJECTIVES, *NOUNS, *OPINIONS)
    for size in (2, 3, 4)
    for start in range(0, max(len(word) - size + 1, 0))
)


def is_held(text: str) -> bool:
    """True for the one text in `HELD_SHARE` that only evaluation rows may hold."""
    return zlib.crc32(text.lower().encode()) % HELD_SHARE == 0


class Names:
    """Writes values from one random stream; `held=True` writes the words and numbers kept for evaluation."""

    def __init__(self, rng: random.Random, held: bool = False) -> None:
        self.rng = rng
        self.held = held

    def word(self) -> str:
        """A made-up lower-case word: syllables, letters, or pieces of real words."""
        rng = self.rng
        while True:
            way = rng.random()
            if way < 0.75:
                parts = [
                    rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice((1, 2, 2)))
                ]
                if rng.random() < 0.4:
                    parts.append(rng.choice(_ENDS))
            else:
                parts = [rng.choice(_PIECES) for _ in range(2)]
            word = "".join(parts)
            if 3 <= len(word) <= 9 and word not in FORBIDDEN and is_held(word) == self.held:
                return word

    def cap(self) -> str:
        """A made-up word as a name is written."""
        word = self.word().capitalize()
        return word.upper() if len(word) <= 4 and self.rng.random() < 0.1 else word

    def person(self) -> str:
        """Two name words, or one."""
        return self.cap() if self.rng.random() < 0.1 else f"{self.cap()} {self.cap()}"

    def title(self) -> str:
        """The name of a thing, two or three words; most have a made-up one."""
        rng = self.rng
        adjective, noun = rng.choice(ADJECTIVES).capitalize(), rng.choice(NOUNS).capitalize()
        way = rng.random()
        if way < 0.35:
            return f"{adjective} {self.cap()}"
        if way < 0.6:
            return f"{self.cap()} {noun}"
        if way < 0.7:
            return f"{adjective} {self.cap()} {noun}"
        while True:
            name = f"{adjective} {rng.choice(NOUNS).capitalize()}"
            if is_held(name) == self.held:
                return name

    def decimal(self) -> str:
        """A decimal such as 3.75 or 41.5."""
        while True:
            whole = self.rng.randint(0, self.rng.choice((9, 9, 99, 400)))
            text = (
                f"{whole}.{self.rng.randint(0, 99):02d}"
                if self.rng.random() < 0.6
                else f"{whole}.{self.rng.randint(0, 9)}"
            )
            if is_held(text) == self.held:
                return text

    def code(self) -> str:
        """A room-like code such as B12, K204 or TR19."""
        rng = self.rng
        while True:
            letters = "".join(rng.choice(_LETTERS).upper() for _ in range(rng.choice((1, 1, 1, 2))))
            text = f"{letters}{rng.randint(1, rng.choice((99, 99, 999)))}"
            if is_held(text) == self.held:
                return text

    def clock(self) -> str:
        """A time of day."""
        rng = self.rng
        hour = rng.choice(("{:02d}", "{}", "{}")).format(rng.randint(0, 23))
        return f"{hour}:{rng.choice(('00', '15', '30', '45', '10', '20', '50', '05'))}"
