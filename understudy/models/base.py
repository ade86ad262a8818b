"""The one protocol that teacher, judge, service and student share: conversations in, answers out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from understudy.core.records import Message

Conversation = list[Message]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to decode. `temperature` 0 is greedy; `max_new_tokens` counts the model's own tokens."""

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """One generated answer; token counts are the serving tokenizer's.

    `finish_reason` is `stop` or `length`; of a service also `content_filter` or `refused`, then without text.
    """

    text: str
    finish_reason: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed answer; the last one carries `finish_reason` and the counts."""

    text: str
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Model(Protocol):
    """Anything that answers chats."""

    @property
    def identity(self) -> dict[str, str]:
        """What answered: model id, version or digest; goes into artifacts and reports."""
        ...

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        """One answer per conversation, in order."""
        ...

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[Delta]:
        """The answer in pieces; joined, they equal `generate`'s text."""
        ...
