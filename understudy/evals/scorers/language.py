"""Words of English and Russian text, and what they are worth: content words, light stems, which script.

The stems are cut endings, not lemmas: enough to see `звёзды` in `звёздами` and `course` in `courses`, and no more.
"""

from __future__ import annotations

import re
from functools import lru_cache

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_CYRILLIC = re.compile(r"[\u0400-\u04ff]")


def is_russian(word: str) -> bool:
    """Whether a word is written in Cyrillic letters."""
    return bool(_CYRILLIC.search(word))


@lru_cache(maxsize=65_536)
def folded(word: str) -> str:
    """Lower case, straight apostrophe, `ё` as `е`: how people write is not always how dictionaries do."""
    return word.casefold().replace("’", "'").replace("ё", "е")
