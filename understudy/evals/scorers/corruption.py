"""Sentences broken on purpose, the way small models break them: to train and to check the acceptability scorer."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

_WORD = re.compile(r"[^\W\d_]{2,}")
_RU = "а я о е у ю ы и ой ей ом ем ам ям ами ями ах ях ый ий ая ое ые ого ему ть л ла ли ет ут ит ат"
_EN = "s ed ing er est ly es ion ness"
ENDINGS = {"ru": _RU.split(), "en": _EN.split()}


def shuffled(sentence: str, draw: random.Random, language: str) -> str:
    """All words in another order; the last mark stays last."""
    words = sentence.split()
    end = words[-1][-1] if words and words[-1][-1] in ".!?…" else ""
    bare = [*words[:-1], words[-1].rstrip(".!?…")] if words else []
    mixed = bare[:]
    for _ in range(10):
        draw.shuffle(mixed)
        if mixed != bare:
            break
    return " ".join(mixed) + end


def swapped(sentence: str, draw: random.Random, language: str) -> str:
    """Two neighbours change places, at up to three places."""
    words = sentence.split()
    for _ in range(max(1, min(3, len(words) // 5))):
        if len(words) > 2:
            i = draw.randrange(len(words) - 2)
            words[i], words[i + 1] = words[i + 1], words[i]
    return " ".join(words)


def dropped(sentence: str, draw: random.Random, language: str) -> str:
    """A fifth of the words is missing, one at least."""
    words = sentence.split()
    gone = set(draw.sample(range(len(words)), max(1, len(words) // 5))) if len(words) > 1 else set()
    return " ".join(w for i, w in enumerate(words) if i not in gone)


def repeated(sentence: str, draw: random.Random, language: str) -> str:
    """A fragment of one to four words comes two to four times."""
    words = sentence.split()
    length = draw.randint(1, min(4, max(1, len(words))))
    i = draw.randint(0, max(0, len(words) - length))
    return " ".join(words[:i] + words[i : i + length] * draw.randint(2, 4) + words[i + length :])


def misinflected(sentence: str, draw: random.Random, language: str) -> str:
    """A third of the longer words gets another ending: broken agreement and forms that do not exist."""
    places = [m for m in _WORD.finditer(sentence) if len(m[0]) >= 4]
    chosen = draw.sample(places, max(1, len(places) // 3)) if places else []
    for match in sorted(chosen, key=lambda m: -m.start()):
        word = match[0]
        cut = 2 if len(word) > 5 else 1
        other = word[:-cut] + draw.choice([e for e in ENDINGS[language] if not word.endswith(e)])
        sentence = sentence[: match.start()] + other + sentence[match.end() :]
    return sentence


def truncated(sentence: str, draw: random.Random, language: str) -> str:
    """The end is missing, from a random place in the second half; often within a word."""
    cut = draw.randint(len(sentence) // 2, max(len(sentence) // 2, len(sentence) - 3))
    return sentence[:cut].rstrip(" ,;:.!?…")


def garbled(sentence: str, draw: random.Random, language: str) -> str:
    """A third of the longer words has its inner letters in another order: words that are none."""
    places = [m for m in _WORD.finditer(sentence) if len(m[0]) >= 5]
    chosen = draw.sample(places, max(1, len(places) // 3)) if places else []
    for match in chosen:
        inner = list(match[0][1:-1])
        draw.shuffle(inner)
        sentence = sentence[: match.start() + 1] + "".join(inner) + sentence[match.end() - 1 :]
    return sentence


CORRUPTIONS: dict[str, Callable[[str, random.Random, str], str]] = {
    f.__name__: f for f in (shuffled, swapped, dropped, repeated, misinflected, truncated, garbled)
}


def corrupt(sentence: str, kind: str, seed: int, language: str) -> str | None:
    """The sentence broken in that way, the same for a seed; None where that leaves it as it was."""
    broken = CORRUPTIONS[kind](sentence, random.Random(f"{seed} {kind} {sentence}"), language)
    return broken if broken != sentence and broken.strip() else None
