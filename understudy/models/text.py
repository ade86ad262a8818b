"""One answer under way: its tokens, when it ends, and the text that is safe to show; the same for every engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from understudy.data.chat import ChatTemplate


class Text:
    """Takes tokens one by one and gives out text that no later token changes. `stop`: texts that end the answer."""

    def __init__(self, template: ChatTemplate, ends: frozenset[int], stop: tuple[str, ...]) -> None:
        self._template, self._ends, self._stop = template, ends, tuple(s for s in stop if s)
        self.ids: list[int] = []
        self.finish_reason = ""
        self._clean, self._from, self._to, self._shown = "", 0, 0, 0
        self._cut: int | None = None

    def add(self, token: int, room: int) -> None:
        """Take one token; an end token is counted and not shown."""
        self.ids.append(token)
        if token in self._ends:
            self.finish_reason = "stop"
            return
        if self._stop and self._find_stop():
            self.finish_reason = "stop"
        elif len(self.ids) >= room:
            self.finish_reason = "length"

    def take(self) -> str:
        """Text that became safe since the last call."""
        self._advance()
        hold = max((len(s) for s in self._stop), default=1) - 1
        end = self._cut if self._cut is not None else max(self._shown, len(self._clean) - hold)
        piece, self._shown = self._clean[self._shown : end], max(self._shown, end)
        return piece

    def rest(self) -> str:
        """What is left when the answer has ended."""
        return self.whole()[self._shown :]

    def whole(self) -> str:
        text = self._template.decode(self._content())
        return text if self._cut is None else text[: self._cut]

    def _content(self) -> list[int]:
        return self.ids[:-1] if self.ids and self.ids[-1] in self._ends else self.ids

    def _advance(self) -> None:
        """Decode from the last safe token on, so that a long answer is not decoded again and again.

        A piece that ends in U+FFFD may be half a character and waits (the scheme of text-generation-inference).
        """
        ids = self._content()
        before = self._template.decode(ids[self._from : self._to])
        after = self._template.decode(ids[self._from :])
        if len(after) > len(before) and not after.endswith("\ufffd"):
            self._clean += after[len(before) :]
            self._from, self._to = self._to, len(ids)

    def _find_stop(self) -> bool:
        self._advance()
        found = [at for at in (self._clean.find(s) for s in self._stop) if at >= 0]
        self._cut = min(found) if found else None
        return bool(found)


def end_ids(template: ChatTemplate, path: Path) -> frozenset[int]:
    """Tokens that end an answer: the template's, and `eos_token_id` of generation_config.json and config.json."""
    ids = list(template.end_ids)
    for name in ("generation_config.json", "config.json"):
        file = path / name
        value = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None
        ids += value if isinstance(value, list) else [] if value is None else [value]
    return frozenset(ids)
