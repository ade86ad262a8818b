"""How examples are read here: the form in which texts are compared, an example's category, question and key."""

from __future__ import annotations

import unicodedata
from typing import Any

from understudy.core.records import Example


def normalised(text: str) -> str:
    """The form in which prompts are compared: case, punctuation and white space folded."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(c if c.isalnum() else " " for c in folded).split())


def category_of(meta: dict[str, Any]) -> str:
    """The category of an example or of a row of scores; empty when it has none."""
    return str(meta.get("category") or "")


def prompt_key(example: Example) -> str:
    """Normalised text of an example's prompt; `earlier` is a set of these."""
    return normalised("\n".join(m["content"] for m in example.prompt if m["role"] != "system"))


def question_of(example: Example) -> str:
    """What is asked: the question about the context, or the last turn of the prompt."""
    return str(example.meta.get("question") or example.prompt[-1]["content"])
