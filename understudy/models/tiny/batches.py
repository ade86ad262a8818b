"""Turns rows into training batches in a process of its own, so that the training threads never wait for text.

A batch is a rectangle of rows of nearly one length, padded on the right under a causal mask: rows cannot see each
other, and no mask has to be built. Measured on 2 cores it trains 1.3 times the tokens/s of rows packed into
sequences of 512 with restarting positions (25,000 against 18,000; 2 layers of 128), for the same loss.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from understudy.models.tiny.languages import LANGUAGES
from understudy.models.tiny.rows import Row
from understudy.models.tiny.tokenizer import END, POSITIONS, START

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

POOL_ROWS = 1500  # rows sorted by length together: under 4 % padding, and every batch still mixes row kinds


@dataclass(frozen=True)
class Batch:
    """Rows of nearly one length; `loss_mask` is True where the token itself is to be predicted."""

    token_ids: np.ndarray[Any, Any]  # (batch, seq) int32
    loss_mask: np.ndarray[Any, Any]  # (batch, seq) bool
    tokens: int  # without padding


def segments(row: Row) -> list[tuple[str, bool]]:
    """The row as ChatML text, cut where the loss switches on and off."""
    parts: list[tuple[str, bool]] = []
    text, answers = "", 0
    for message in row.messages:
        text += f"{START}{message['role']}\n"
        if message["role"] == "assistant":
            if answers >= row.supervise_from:
                parts += [(text, False), (message["content"] + END, True)]
                text = ""
            else:
                text += message["content"] + END
            answers += 1
        else:
            text += message["content"] + END
        text += "\n"
    return parts


def encode(tokenizer: Tokenizer, rows: list[Row]) -> list[tuple[list[int], list[bool]]]:
    """Token ids and loss mask of each row; rows longer than the position limit are left out."""
    parts = [segments(row) for row in rows]
    flat = iter(tokenizer.encode_batch([text for row in parts for text, _ in row]))
    encoded = []
    for row in parts:
        ids: list[int] = []
        mask: list[bool] = []
        for _, supervised in row:
            piece = next(flat).ids
            ids += piece
            mask += [supervised] * len(piece)
        if ids and len(ids) <= POSITIONS:
            encoded.append((ids, mask))
    return encoded


def rectangles(encoded: list[tuple[list[int], list[bool]]], budget: int, rng: random.Random) -> Iterator[Batch]:
    """Batches of at most `budget` padded tokens (or one row), in random order."""
    import numpy as np

    ordered = sorted(encoded, key=lambda row: len(row[0]), reverse=True)
    groups: list[list[tuple[list[int], list[bool]]]] = []
    at = 0
    while at < len(ordered):
        rows = max(budget // len(ordered[at][0]), 1)
        groups.append(ordered[at : at + rows])
        at += rows
    rng.shuffle(groups)
    for group in groups:
        width = len(group[0][0])
        token_ids = np.zeros((len(group), width), dtype=np.int32)  # 0 is the pad id
        loss_mask = np.zeros((len(group), width), dtype=bool)
        for index, (ids, mask) in enumerate(group):
            token_ids[index, : len(ids)] = ids
            loss_mask[index, : len(ids)] = mask
        yield Batch(token_ids, loss_mask, sum(len(ids) for ids, _ in group))


def produce(tokenizer_file: str, language: str, seed: int, queue: Any, level: Any, budget: Any) -> None:
    """Body of the producer process: fills `queue` for ever; the trainer moves the shared `level` and `budget`."""
    import os

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(tokenizer_file)
    rng = random.Random(seed)
    writer = LANGUAGES[language]
    names = writer.names(rng)
    while True:
        rows = [writer.training_row(names, level.value) for _ in range(POOL_ROWS)]
        for batch in rectangles(encode(tokenizer, rows), int(budget.value), rng):
            queue.put(batch)
