"""Whether a text is in the language of the seeds: by its letters, and by the little words that any sentence has.

No list of languages: the commonest words of seeds and documents are their language's little words.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

COMMON = 100
"""The commonest words of a language make up about half of any text in it (Zipf's law)."""
ENOUGH = 1_000
"""Words from which on the commonest ones are known."""
LONG = 12
"""Words of a text from which on it must have some of the common ones; a word with a capital does not count."""
LEAST = 0.08
"""Share of common words below which a text is in another language; a related language shares about that many."""
STRANGE = 0.5
"""Share of letters of a script that no seed is written in."""

_WORD = re.compile(r"[^\W\d_]+")


class Language:
    """What the seeds are written in; `background` are more texts of the language."""

    def __init__(self, seeds: Sequence[str], background: Sequence[str] = ()) -> None:
        letters = Counter(script for text in seeds for script in _scripts(text))
        self.scripts = {script for script, count in letters.items() if count >= 0.02 * letters.total()}
        words = Counter(w for text in (*seeds, *background) for w in _words(text))
        self.common = frozenset(w for w, _ in words.most_common(COMMON)) if words.total() >= ENOUGH else frozenset()

    def odd(self, text: str) -> str:
        """What is strange about a text; empty when nothing is."""
        scripts = Counter(_scripts(text))
        strange = sum(count for script, count in scripts.items() if script not in self.scripts)
        if self.scripts and strange > STRANGE * scripts.total():
            return f"{strange} of {scripts.total()} letters are {scripts.most_common(1)[0][0]}: {text[:60]}"
        words = [w for w in _WORD.findall(text) if w.islower()]
        known = sum(w in self.common for w in words)
        if self.common and len(words) >= LONG and known < LEAST * len(words):
            return f"{known} of {len(words)} words are common in the seeds and documents: {text[:60]}"
        return ""


def _scripts(text: str) -> list[str]:
    """The script of each letter, as the first word of its Unicode name."""
    return [unicodedata.name(c, "UNKNOWN").split()[0] for c in text if c.isalpha()]


def _words(text: str) -> list[str]:
    return [w.casefold() for w in _WORD.findall(text)]
