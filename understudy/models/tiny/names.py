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
            if way < 0.55:
                parts = [
                    rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
                    for _ in range(rng.choice((1, 1, 1, 2, 2, 2)))
                ]
                if rng.random() < 0.3:
                    parts.append(rng.choice(_ENDS))
            elif way < 0.65:
                parts = [rng.choice(_LETTERS) for _ in range(rng.randint(3, 5))]
            else:
                parts = [rng.choice(_PIECES) for _ in range(rng.choice((1, 2, 2, 2)))]
            word = "".join(parts)
            if 3 <= len(word) <= 9 and word not in FORBIDDEN and is_held(word) == self.held:
                return word

    def cap(self) -> str:
        """A made-up word as a name is written."""
        word = self.word().capitalize()
        return word.upper() if len(word) <= 4 and self.rng.random() < 0.1 else word

    def plain(self) -> str:
        """A real or a made-up lower-case word."""
        return self.rng.choice(NOUNS) if self.rng.random() < 0.4 else self.word()

    def person(self) -> str:
        """One to three name words, sometimes an initial."""
        way = self.rng.random()
        if way < 0.15:
            return self.cap()
        if way < 0.25:
            return f"{self.rng.choice(_LETTERS).upper()}. {self.cap()}"
        if way < 0.32:
            return f"{self.cap()} {self.rng.choice(_LETTERS).upper()}. {self.cap()}"
        if way < 0.38:
            return f"{self.cap()} {self.cap()}-{self.cap()}"
        return f"{self.cap()} {self.cap()}"

    def title(self) -> str:
        """The name of a thing, one to four words; at least one word is made up nine times in ten."""
        rng = self.rng
        way = rng.random()
        adjective, noun = rng.choice(ADJECTIVES).capitalize(), rng.choice(NOUNS).capitalize()
        if way < 0.2:
            name = self.cap()
        elif way < 0.35:
            name = f"{adjective} {self.cap()}"
        elif way < 0.5:
            name = f"{self.cap()} {noun}"
        elif way < 0.6:
            name = f"{self.cap()} {self.cap()}"
        elif way < 0.7:
            name = f"{noun} and {self.cap()}" if rng.random() < 0.5 else f"{noun} of {self.cap()}"
        elif way < 0.8:
            name = f"{adjective} {self.cap()} {noun}"
        elif way < 0.9:
            name = f"{self.cap()} for {noun}" if rng.random() < 0.3 else f"{self.cap()} {adjective} {noun}"
        else:
            name = (
                f"{adjective} {noun} {rng.choice(NOUNS).capitalize()}" if rng.random() < 0.4 else f"{adjective} {noun}"
            )
            name = name if is_held(name) == self.held else f"{name} {self.cap()}"
        if rng.random() < 0.12:
            name += " " + rng.choice(("I", "II", "III", "IV", "1", "2", "3", str(rng.randint(10, 499))))
        return name

    def place(self) -> str:
        """A town or street name."""
        way = self.rng.random()
        if way < 0.5:
            return self.cap()
        if way < 0.75:
            return f"{self.cap()} {self.rng.choice(NOUNS).capitalize()}"
        return f"{self.rng.choice(ADJECTIVES).capitalize()} {self.cap()}"

    def number(self) -> str:
        """A whole number of one to four digits."""
        while True:
            digits = self.rng.choice((1, 2, 2, 2, 3, 3, 4))
            text = str(self.rng.randint(10 ** (digits - 1) + (digits == 1), 10**digits - 1))
            if digits < 3 or is_held(text) == self.held:
                return text

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
        """A room-like or serial code such as B12, K-204, 7F, TR 19 or QZX301."""
        rng = self.rng
        while True:
            letters = "".join(rng.choice(_LETTERS).upper() for _ in range(rng.choice((1, 1, 1, 2, 3))))
            digits = str(rng.randint(1, rng.choice((9, 99, 99, 999, 9999))))
            text = rng.choice(
                (
                    f"{letters}{digits}",
                    f"{letters}{digits}",
                    f"{letters}-{digits}",
                    f"{letters} {digits}",
                    f"{digits}{letters}",
                )
            )
            if is_held(text) == self.held:
                return text

    def clock(self) -> str:
        """A time of day."""
        rng = self.rng
        hour = rng.choice(("{:02d}", "{}")).format(rng.randint(0, 23))
        return f"{hour}:{rng.choice('00123345')}{rng.choice('0005')}"

    def when(self) -> str:
        """A day, a time, a date, or a day and a time, with its preposition."""
        rng = self.rng
        way = rng.random()
        if way < 0.35:
            return f"on {rng.choice(DAYS)} at {self.clock()}"
        if way < 0.55:
            return f"at {self.clock()}"
        if way < 0.65:
            return f"on {rng.choice(DAYS)}s"
        if way < 0.75:
            return f"on {rng.randint(1, 28)} {rng.choice(MONTHS)}"
        if way < 0.85:
            return f"in {rng.choice(MONTHS)} {rng.randint(1900, 2049)}"
        return f"on {rng.choice(DAYS)} from {self.clock()} to {self.clock()}"

    def amount(self) -> str:
        """A decimal, mostly with a unit."""
        return f"{self.decimal()} {self.rng.choice(UNITS)}" if self.rng.random() < 0.7 else self.decimal()

    def listing(self) -> str:
        """Two or three items joined as in a sentence."""
        named = self.rng.random() < 0.3
        items = [self.title() if named else self.plain() for _ in range(self.rng.choice((2, 2, 3)))]
        return " and ".join(items) if len(items) == 2 else f"{items[0]}, {items[1]} and {items[2]}"

    def opinion(self) -> str:
        """One or two adjectives, sometimes made up."""
        rng = self.rng
        words = [self.word() if rng.random() < 0.2 else rng.choice(OPINIONS) for _ in range(2)]
        way = rng.random()
        if way < 0.3:
            return words[0]
        if way < 0.55:
            return f"very {words[0]}"
        return f"{words[0]} but {words[1]}" if way < 0.6 else f"{words[0]} and {words[1]}"
