"""One prompt for a service LLM: how large it is, what names it in the cache, and the fields that are sent."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from understudy.config import ServiceConfig
from understudy.core.records import canonical, digest
from understudy.models.base import Conversation, Sampling
from understudy.models.providers import JsonMode, fitted

TURN_TOKENS = 16
"""Tokens that a chat template may put around one turn."""
BYTES_PER_TOKEN = 4
"""Of English text, about; only the pace goes by it."""


@dataclass(frozen=True)
class Prompt:
    """What is sent: a chat, how its answer is drawn, and the JSON schema of the answer, if it has one."""

    conversation: Conversation
    sampling: Sampling
    form: dict[str, Any] | None = None

    @cached_property
    def size(self) -> int:
        """Bytes: no tokenizer makes more tokens of a text than it has bytes, but for the marks around each turn."""
        turns = sum(TURN_TOKENS + len(m["content"].encode("utf-8", "replace")) for m in self.conversation)
        return turns + (len(canonical(self.form)) if self.form else 0)

    @property
    def most(self) -> tuple[int, int]:
        """Tokens of prompt and reply, at most."""
        return self.size, self.sampling.max_new_tokens

    @property
    def tokens(self) -> int:
        """Of prompt and reply together, about."""
        return self.size // BYTES_PER_TOKEN + self.sampling.max_new_tokens

    def with_note(self, note: str) -> Prompt:
        last = self.conversation[-1]
        return replace(self, conversation=[*self.conversation[:-1], {**last, "content": last["content"] + note}])


def fields(cfg: ServiceConfig, prompt: Prompt, token_field: str, mode: JsonMode) -> dict[str, Any]:
    sampling = prompt.sampling
    params: dict[str, Any] = {"model": cfg.model, "messages": prompt.conversation}
    if cfg.temperature is not None:
        params["temperature"] = sampling.temperature
    params[token_field] = sampling.max_new_tokens
    if sampling.top_p < 1.0:
        params["top_p"] = sampling.top_p
    if sampling.temperature > 0:
        params["seed"] = sampling.seed
    if sampling.stop:
        params["stop"] = list(sampling.stop)
    if prompt.form and mode == "schema":
        form = {"name": "reply", "schema": prompt.form, "strict": True}
        params["response_format"] = {"type": "json_schema", "json_schema": form}
    elif prompt.form and mode == "object":
        params["response_format"] = {"type": "json_object"}
    taken = fitted(cfg, params)
    # The SDK lets names that are not OpenAI's pass only in here.
    own = {name: taken.pop(name) for name in taken.keys() - params.keys()}
    return taken | ({"extra_body": own} if own else {})


def identity(cfg: ServiceConfig, url: str, prompt: Prompt) -> dict[str, Any]:
    """What the answer depends on; its digest is the cache key. A simulated service's port is no part of it."""
    sampling = prompt.sampling
    decoding = asdict(sampling) | {"stop": list(sampling.stop)}
    decoding["seed"] = sampling.seed if sampling.temperature > 0 else None
    decoding |= {"temperature": None} if cfg.temperature is None else {}
    origin: dict[str, Any] = {"provider": cfg.provider, "model": cfg.model}
    origin |= {"wrong_rate": cfg.wrong_rate} if cfg.provider == "simulated" else {}
    origin |= {"endpoint": digest(url, 16)} if cfg.provider != "simulated" else {}
    origin |= {"form": prompt.form} if prompt.form and cfg.json_mode != "text" else {}
    return {**origin, "messages": prompt.conversation, "sampling": decoding}
