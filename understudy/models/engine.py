"""What every engine that runs a model folder shares: its template, its context, its end tokens, and who it is.

An engine answers chats (`Model`), says how likely it finds given answers, and runs many answers at once for a server.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from understudy.core.records import Example, digest
from understudy.data.chat import ChatTemplate
from understudy.errors import DataError
from understudy.models.base import Answer, Conversation, Delta, Sampling
from understudy.models.text import end_ids

UNBOUND = 1_000_000
"""Context of a model whose config.json names none."""


class Running(Protocol):
    """Answers under way at once; for one thread. A key is the caller's."""

    most: int
    """How many answers can be under way."""

    @property
    def busy(self) -> int:
        """How many answers are under way."""
        ...

    def add(self, key: int, conversation: Conversation, sampling: Sampling) -> None:
        """Begin an answer. Raises DataError context_length_exceeded."""
        ...

    def step(self) -> list[tuple[int, Delta]]:
        """Go one token on with all; what is new to show, per key. The last delta of a key has a finish_reason."""
        ...

    def cancel(self, key: int) -> None:
        """Give up an answer; nothing more of it comes."""
        ...


class Encoder:
    """Template, tokenizer, context and end tokens of a model folder."""

    def __init__(self, path: Path) -> None:
        self.template = ChatTemplate.load(path)
        self.ends = end_ids(self.template, path)
        config = json.loads((path / "config.json").read_text("utf-8"))
        self.context = int(config.get("max_position_embeddings") or UNBOUND)
        self._identity = {"model": path.resolve().name, "digest": _digest(path)}

    @property
    def identity(self) -> dict[str, str]:
        """`model` is the folder's name, `digest` the sha256 over weights, config, tokenizer and template."""
        return dict(self._identity)

    def prompt_tokens(self, conversation: Conversation) -> int:
        return len(self.template.encode_prompt(conversation))

    def prompt(self, conversation: Conversation, index: int = 0) -> list[int]:
        """Token ids of a prompt that leaves room for an answer. Raises DataError context_length_exceeded."""
        ids = self.template.encode_prompt(conversation)
        if len(ids) + 1 > self.context:
            what = f"the prompt needs {len(ids) + 1} tokens, the model's context has {self.context}"
            raise DataError("context_length_exceeded", f"conversation {index + 1}", what, "shorten the prompt")
        return ids

    def reference(self, example: Example) -> tuple[list[int], int]:
        """Token ids, and how many of them at the end are the last answer (text behind its closing token cut off)."""
        if example.answer is None:
            return [], 0
        ids, mask = self.template.encode(example.messages)
        end = max(i for i, m in enumerate(mask) if m) + 1
        start = end
        while start > 0 and mask[start - 1]:
            start -= 1
        return (ids[:end], end - start) if end <= self.context else ([], 0)


class Engine(Encoder, ABC):
    """A model folder, and what computes its answers."""

    @abstractmethod
    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        """One answer per conversation, in order. Raises DataError context_length_exceeded before any work is done."""

    @abstractmethod
    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[Delta]:
        """The answer piece by piece; a piece never ends within a character or within what may become a stop text."""

    @abstractmethod
    def reference_losses(self, examples: Sequence[Example]) -> list[tuple[float, int]]:
        """Per example: summed negative log-likelihood (nats) of the last answer with its closing token, token count.

        An example without an answer, or longer than the context with it, gives (0.0, 0).
        """


def _digest(path: Path) -> str:
    """sha256 over the names and digests of the files that decide an answer."""
    chosen = [f for f in path.iterdir() if f.suffix in {".safetensors", ".json", ".jinja", ".txt", ".model"}]
    lines = []
    for file in sorted(chosen):
        with open(file, "rb") as f:
            lines.append(f"{file.name} {hashlib.file_digest(f, 'sha256').hexdigest()}\n")
    return digest("".join(lines))
