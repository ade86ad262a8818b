"""Measures the free texts of an exported base: length, real words, variety, how much is copied, whether it is on topic.

The texts of the writer itself, for the same prompts, stand beside the model's: they say what the figures can reach.
"""

from __future__ import annotations

import itertools
import random
import re
import statistics
from typing import Any

from understudy.models.tiny import BASES
from understudy.models.tiny.intervals import share
from understudy.models.tiny.languages import LANGUAGES, Language
from understudy.models.tiny.rows import Row

RUN_WORDS = 8  # a shorter common run of words is no copy: sentences of one template share as many
COPY_WORDS = 25  # about half of a text
TRAINING_TEXTS = 20_000


def sample(model: Any, tokenizer: Any, rows: list[Row], seed: int, batch_size: int = 50) -> list[str]:
    """Texts at temperature 0.8 and top_p 0.95 for each row's prompt."""
    import torch

    torch.manual_seed(seed)
    found: list[str] = []
    for start in range(0, len(rows), batch_size):
        prompts = [
            tokenizer.apply_chat_template(row.messages[:-1], add_generation_prompt=True, tokenize=False)
            for row in rows[start : start + batch_size]
        ]
        batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
        with torch.inference_mode():
            out = model.generate(
                **batch, max_new_tokens=400, do_sample=True, temperature=0.8, top_p=0.95, top_k=0
            )  # (batch, seq) int64
        new = out[:, batch["input_ids"].shape[1] :]
        found += [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
    return found


def words(text: str) -> list[str]:
    """Words in lower case."""
    return re.findall(r"[^\W\d_]+", text.lower())


def distinct(texts: list[str], size: int = 2) -> float:
    """Different runs of `size` words as a share of all (distinct-n, Li et al. 2016), over all texts together."""
    runs = [run for text in texts for run in zip(*(words(text)[at:] for at in range(size)), strict=False)]
    return round(len(set(runs)) / max(len(runs), 1), 4)


def longest_runs(texts: list[str], others: list[str], shortest: int = RUN_WORDS) -> list[int]:
    """Words of the longest run that each text shares with any of the others; 0 where it is under `shortest`."""
    split = [words(text) for text in texts]
    places: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for index, own in enumerate(split):
        for at in range(len(own) - shortest + 1):
            places.setdefault(tuple(own[at : at + shortest]), []).append((index, at))
    longest = [0] * len(texts)
    for other in map(words, others):
        for start in range(len(other) - shortest + 1):
            for index, at in places.get(tuple(other[start : start + shortest]), ()):
                size, own = shortest, split[index]
                while at + size < len(own) and start + size < len(other) and own[at + size] == other[start + size]:
                    size += 1
                longest[index] = max(longest[index], size)
    return longest


def figures(texts: list[str], rows: list[Row], training: list[str], lexicon: frozenset[str]) -> dict[str, Any]:
    """The measures of one set of texts."""
    real = total = 0
    for text, row in zip(texts, rows, strict=True):
        known = lexicon | set(words(row.messages[0]["content"]))
        found = words(text)
        real, total = real + sum(word in known for word in found), total + len(found)
    runs = longest_runs(texts, training)
    on_topic = sum(all(value in text.lower() for value in row.values) for text, row in zip(texts, rows, strict=True))
    return {
        "250 to 550 characters": share(sum(250 <= len(text) <= 550 for text in texts), len(texts)),
        "names its topic": share(on_topic, len(texts)),
        "words that are real": share(real, total),
        f"shares {COPY_WORDS} words in a row with a training text": share(
            sum(run >= COPY_WORDS for run in runs), len(texts)
        ),
        "distinct_2": distinct(texts),
        "median_longest_run_words": statistics.median(runs),
    }


def measure(model: Any, tokenizer: Any, language: Language, seed: int, count: int) -> dict[str, Any]:
    """Figures of the model's texts and of the writer's own on `count` prompts that training cannot hold."""
    assert language.prose_rows and language.lexicon  # called for languages with free texts only
    rows = language.prose_rows(seed, count)
    texts = sample(model, tokenizer, rows, seed)
    stream = (row for row in language.training_rows(seed + 1) if row.kind == "prose")
    training = [row.messages[-1]["content"] for row in itertools.islice(stream, TRAINING_TEXTS)]
    known = language.lexicon()
    picked = random.Random(seed).sample(range(count), min(count, 4))
    return {
        "n": count,
        "training_texts": TRAINING_TEXTS,
        "model": figures(texts, rows, training, known),
        "writer": figures([row.messages[-1]["content"] for row in rows], rows, training, known),
        "samples": [{"prompt": rows[at].messages[0]["content"], "text": texts[at]} for at in picked],
    }


def vocabularies(language: Language, own: Any, rows: int = 6000) -> dict[str, Any]:
    """Tokens for 1000 characters of each language: with its own vocabulary, and with one shared vocabulary.

    The shared one is learned on as many rows of either language, at this language's size and at the sizes' sum.
    """
    from understudy.models.tiny import tokenizer

    english = tokenizer.load(BASES["tiny"])
    codes = {"en": LANGUAGES["en"], language.code: language}
    text = [line for one in codes.values() for line in one.tokenizer_text(2, rows)]
    unseen = {
        code: [turn["content"] for row in itertools.islice(one.training_rows(77), 500) for turn in row.messages]
        for code, one in codes.items()
    }

    def cost(code: str, tokens: Any) -> float:
        ids = sum(len(found.ids) for found in tokens.encode_batch(unseen[code]))
        return round(1000 * ids / sum(map(len, unseen[code])), 1)

    sizes = (own.get_vocab_size(), own.get_vocab_size() + english.get_vocab_size())
    joint = {size: tokenizer.train(text, size, letters_first=True) for size in sizes}
    return {
        "own": {"en": cost("en", english), language.code: cost(language.code, own)},
        "own_size": {"en": english.get_vocab_size(), language.code: own.get_vocab_size()},
        "joint": {str(size): {code: cost(code, tokens) for code in codes} for size, tokens in joint.items()},
    }
