"""A row of the pretraining text, in whichever language it is written."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One chat; assistant turns before number `supervise_from` carry no loss (their wording cannot be known)."""

    kind: str
    messages: list[dict[str, str]]
    supervise_from: int = 0
    values: tuple[str, ...] = field(default=())  # what the last answer must hold


def message(role: str, content: str) -> dict[str, str]:
    """One turn of a chat."""
    return {"role": role, "content": content}
