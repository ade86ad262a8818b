"""Leaks to plant: each kind turns a protected example into a training row that shows it in another guise."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable

from understudy.core.records import Document, Example, Record

FILLER = (
    "The library keeps longer hours in winter and lends umbrellas at the desk.",
    "A new bicycle shed stands behind the canteen since last autumn.",
    "Lost gloves are kept for thirty days and then given to the theatre club.",
    "The notice board by the stairs is cleared on the first of each month.",
)
LOOKALIKES = str.maketrans("aeopcxyiABEKMHOPCTX", "аеорсхуіАВЕКМНОРСТХ")
INVISIBLE = ("\u200b", "\u00ad", "\u2060", "\ufeff")


def page(e: Example) -> str:
    """The passage of an example; for one without, its whole exchange."""
    return str(e.meta.get("context") or "\n".join(turn["content"] for turn in e.messages))


def asked(e: Example) -> str:
    return f"{e.meta.get('question') or e.messages[-2]['content']} {e.answer}"


def exact(e: Example, rng: random.Random) -> str:
    return page(e)


def shouted(e: Example, rng: random.Random) -> str:
    return page(e).upper()


def respaced(e: Example, rng: random.Random) -> str:
    return page(e).replace(" ", " \u00a0\t").replace(". ", " ... ").replace(",", " ,;") + "!!"


def disguised(e: Example, rng: random.Random) -> str:
    """Look-alike letters of another script and characters that nobody sees."""
    text = page(e).translate(LOOKALIKES)
    return "".join(c + rng.choice(INVISIBLE) if rng.random() < 0.2 else c for c in text)


def decomposed(e: Example, rng: random.Random) -> str:
    return unicodedata.normalize("NFD", page(e))


def shuffled(e: Example, rng: random.Random) -> str:
    sentences = page(e).split(". ")
    rng.shuffle(sentences)
    return ". ".join(sentences)


def edited(e: Example, rng: random.Random, share: float = 0.06) -> str:
    """A near copy: `share` of the words, at least one, are other words, or are gone."""
    words = page(e).split()
    for at in rng.sample(range(len(words)), max(1, round(share * len(words)))):
        words[at] = rng.choice(("indeed", "perhaps", "seventeen", ""))
    return " ".join(words)


def embedded(e: Example, rng: random.Random) -> str:
    """Question and answer within a page about other things."""
    return " ".join([*FILLER[:2], asked(e), *FILLER[2:]])


TEXTS: dict[str, Callable[[Example, random.Random], str]] = {
    "exact copy, another id": exact,
    "case": shouted,
    "white space and punctuation": respaced,
    "look-alikes and invisible characters": disguised,
    "NFD": decomposed,
    "sentences in another order": shuffled,
    "near copy": edited,
    "question and answer inside a page": embedded,
}


def plant(kind: str, e: Example, seed: int) -> Record:
    """A training row that shows `e`: a document, or for `same page` and `same example` what the kind says."""
    rng = random.Random(f"{kind} {seed}")
    own = f"planted-{seed:03d}"
    if kind == "same page":
        return Document(own, " ".join(FILLER), {"url": f"HTTP://www.{e.meta['url']}/?utm_source=x#top"})
    if kind == "same example":
        messages = [{**turn, "content": respaced(Example("", [turn], {}), rng)} for turn in e.messages]
        return Example(own, messages, {})
    return Document(own, TEXTS[kind](e, rng), {})


KINDS = (*TEXTS, "same page", "same example")
