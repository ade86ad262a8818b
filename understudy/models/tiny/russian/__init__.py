"""Seeded writer of the Russian pretraining text: questions from a context, copying, look-up, and short free texts.

At level 0 rows mostly copy; at level 1 about 40 % of them are a prompt and a free text (`prose.py`), most others are
questions (`questions.py`). Importing this loads only the standard library.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from understudy.models.tiny.names import is_held
from understudy.models.tiny.rows import Row, message
from understudy.models.tiny.russian import prose
from understudy.models.tiny.russian.names import RussianNames
from understudy.models.tiny.russian.prose import lexicon
from understudy.models.tiny.russian.questions import (
    KINDS,
    evaluation_rows,
    question_row,
    shots_row,
    shots_rows,
    write_scene,
)

__all__ = ["KINDS", "RussianNames", "evaluation_rows", "lexicon", "prose_rows", "shots_rows", "training_row"]


def prose_row(names: RussianNames) -> Row:
    """A prompt and a free text; one prompt in sixteen, by its checksum, is held for evaluation."""
    prompt, text, topic = prose.write(names.rng, names.person, lambda prompt: is_held(prompt) == names.held)
    return Row("prose", [message("user", prompt), message("assistant", text)], values=(topic,))


def prose_rows(seed: int, count: int) -> list[Row]:
    """Free texts whose prompts no training row can hold."""
    names = RussianNames(random.Random(f"{seed}-prose"), held=True)
    return [prose_row(names) for _ in range(count)]


def repeat_row(names: RussianNames, level: float) -> Row:
    """Text that the answer repeats."""
    rng = names.rng
    makers = (names.person, names.title, names.code, names.price, names.clock, names.word, names.day)
    if rng.random() < 0.6:
        text = rng.choice((" ", ", ", "\n")).join(rng.choice(makers)() for _ in range(rng.randint(3, 12)))
    else:
        text = write_scene(names, level).text
    prompt = f"Повтори текст.\n\n{text}" if rng.random() < 0.7 else f"{text}\n\nПовтори текст."
    return Row("repeat", [message("user", prompt), message("assistant", text)])


def lookup_row(names: RussianNames, level: float) -> Row:
    """Pairs of a made-up key and a value; the turns ask for keys."""
    rng = names.rng
    keys = list(dict.fromkeys(names.cap() for _ in range(rng.randint(2, 4 + round(4 * level)))))
    maker = rng.choice((names.title, names.code, names.person, names.clock, names.price))
    pairs = {key: maker() for key in keys}
    context = "\n".join(f"{key}: {value}" for key, value in pairs.items())
    messages: list[dict[str, str]] = []
    for key in rng.sample(keys, rng.randint(1, len(keys))):
        user = f"{key}?" if messages else f"{context}\n\n{key}?"
        messages += [message("user", user), message("assistant", f"{key}: {pairs[key]}")]
    return Row("lookup", messages)


def listing_row(names: RussianNames, level: float) -> Row:
    """Names the things of a scene, one a line."""
    scene = write_scene(names, level)
    answer = "\n".join(f"- {t.name}" for t in scene.things)
    return Row("listing", [message("user", f"{scene.text}\n\nПеречисли названия."), message("assistant", answer)])


def training_row(names: RussianNames, level: float) -> Row:
    """One row of the mixture: mostly copying at level 0, free texts and questions at level 1."""
    rng = names.rng
    draw = rng.random()
    shares: tuple[tuple[float, Callable[[], Row]], ...] = (
        (0.15 + 0.25 * level, lambda: prose_row(names)),
        (0.4 - 0.36 * level, lambda: repeat_row(names, level)),
        (0.2 - 0.17 * level, lambda: lookup_row(names, level)),
        (0.06 * level, lambda: shots_row(names, level, rng.choice((2, 3, 4, 5, 6)), unusual=rng.random() < 0.6)),
        (0.02, lambda: listing_row(names, level)),
    )
    for share, write in shares:
        if draw < share:
            return write()
        draw -= share
    return question_row(names, level, turns=rng.choice((2, 3, 4, 5, 6)))
