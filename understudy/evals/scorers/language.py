"""Words of English and Russian text, and what they are worth: content words, light stems, which script.

The stems are cut endings, not lemmas: enough to see `звёзды` in `звёздами` and `course` in `courses`, and no more.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from pathlib import Path

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_CYRILLIC = re.compile(r"[\u0400-\u04ff]")


@lru_cache(maxsize=65_536)
def is_russian(word: str) -> bool:
    """Whether a word is written in Cyrillic letters."""
    return bool(_CYRILLIC.search(word))


@lru_cache(maxsize=65_536)
def folded(word: str) -> str:
    """Lower case, straight apostrophe, `ё` as `е`: how people write is not always how dictionaries do."""
    return word.casefold().replace("’", "'").replace("ё", "е")


_ENDINGS = """
а я о е у ю ы и ь й ой ей ом ем ам ям ами ями ах ях ов ев ый ий ая яя ое ее ые ие ого его ому ему ым им ых их ыми ими
ую юю ия ии ию ией ием иями иях иям ть л ла ло ли ешь ет ете ут ют ишь ит ите ат ят ал ала ало али ил ила ило или ела
ели ыл ать ять ить еть ует уют ает яет ают яют ется ются ится атся ятся ться тся лся лась лось лись ость ости остью
остей ении ение ения ению ением
"""
_ENDINGS_RU = tuple(sorted(_ENDINGS.split(), key=lambda e: (-len(e), e)))
_ENDINGS_EN = ("'s", "ies", "ing", "ed", "es", "ly", "s")


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """A folded word without its longest known ending; four letters stay of a Latin word, three of a Cyrillic one."""
    if is_russian(word):
        for suffix in ("ся", "сь"):
            if len(word) > 5 and word.endswith(suffix):
                word = word[:-2]
        return next((word[: -len(e)] for e in _ENDINGS_RU if word.endswith(e) and len(word) - len(e) >= 3), word)
    for ending in _ENDINGS_EN:
        if word.endswith(ending) and len(word) - len(ending) >= (2 if ending == "'s" else 3):
            word = word[: -len(ending)]
            word += "y" if ending == "ies" else ""
            break
    return word.removesuffix("e") if len(word) > 4 else word


@cache
def stop_words() -> frozenset[str]:
    """Words of both languages that carry no content of their own."""
    return frozenset((Path(__file__).parent / "lexicon" / "stop.txt").read_text("utf-8").split())


def content(text: str) -> list[str]:
    """Stems of the words that are no stop words, in order, with repetitions."""
    stop = stop_words()
    return [stem(w) for w in map(folded, WORD.findall(text)) if w not in stop]
