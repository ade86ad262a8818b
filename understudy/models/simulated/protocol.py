"""The OpenAI chat protocol as plain data: checked requests, answers, chunks and errors in the official shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from understudy.core.records import Message, digest

MODEL_ID = "simulated-1"
REVISION = 1
"""Raised when the same request would get another answer; part of the reported fingerprint."""
FINGERPRINT = f"simulated-{digest(f'{MODEL_ID}/{REVISION}', 12)}"
UNSUPPORTED = ("tools", "functions", "function_call", "audio", "modalities", "logit_bias", "logprobs", "top_logprobs")
DELIVERY = ("stream", "stream_options", "user", "metadata", "store")
"""Fields that change how an answer is delivered, not the answer; they are no part of the request hash."""
_PIECE = re.compile(r"\s*(?:\w+|[^\w\s])")


def words(text: str) -> int:
    """How the simulated service counts tokens: words and punctuation marks."""
    return len(_PIECE.findall(text))


class Refusal(Exception):
    """A request that gets a 4xx answer."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        self.status, self.message, self.param, self.code = status, message, param, code
        super().__init__(message)

    def body(self) -> dict[str, Any]:
        return error_body("invalid_request_error", self.message, self.param, self.code)


def error_body(kind: str, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True, slots=True)
class Request:
    """A checked chat request; `hash` is equal for requests that must get equal answers."""

    messages: list[Message]
    hash: str
    stream: bool
    include_usage: bool
    max_tokens: int | None
    stop: tuple[str, ...]
    n: int

    @property
    def last_user_turn(self) -> str:
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "user"), "")


def parse(body: Any) -> Request:
    """Raises Refusal with the parameter that is wrong."""
    if not isinstance(body, dict):
        raise Refusal(400, "the body must be a JSON object")
    for name in UNSUPPORTED:
        if body.get(name):
            raise Refusal(400, f"'{name}' is not supported", name, "unsupported_parameter")
    if body.get("tool_choice") not in (None, "none"):
        raise Refusal(400, "'tool_choice' is not supported", "tool_choice", "unsupported_parameter")
    model = body.get("model")
    if not isinstance(model, str):
        raise Refusal(400, "'model' must be a string", "model", "invalid_type")
    if model != MODEL_ID:
        raise Refusal(
            404, f"the model '{model}' does not exist; this service has '{MODEL_ID}'", "model", "model_not_found"
        )
    stream, options = body.get("stream") or False, body.get("stream_options")
    if not isinstance(stream, bool):
        raise Refusal(400, "'stream' must be true or false", "stream", "invalid_type")
    if options is not None and (not stream or not isinstance(options, dict)):
        raise Refusal(400, "'stream_options' goes with 'stream': true", "stream_options", "invalid_value")
    _numbers(body)
    return Request(
        messages=_messages(body.get("messages")),
        hash=digest({k: v for k, v in body.items() if k not in DELIVERY}, 32),
        stream=stream,
        include_usage=bool((options or {}).get("include_usage")),
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        stop=_stop(body.get("stop")),
        n=body.get("n") or 1,
    )


def _numbers(body: dict[str, Any]) -> None:
    limits = {"max_tokens": (1, 10**9), "max_completion_tokens": (1, 10**9), "n": (1, 8), "seed": (-(2**63), 2**63)}
    for name, (low, high) in limits.items():
        value = body.get(name)
        if value is not None and (type(value) is not int or not low <= value <= high):
            raise Refusal(400, f"'{name}' must be a whole number from {low} to {high}", name, "invalid_value")
    for name, top in (("temperature", 2), ("top_p", 1)):
        value = body.get(name)
        if value is not None and (type(value) not in (int, float) or not 0 <= value <= top):
            raise Refusal(400, f"'{name}' must be a number from 0 to {top}", name, "invalid_value")


def _messages(value: Any) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise Refusal(400, "'messages' must be a list with at least one message", "messages", "invalid_type")
    return [_message(m, f"messages[{i}]") for i, m in enumerate(value)]


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict) or value.get("role") not in ("system", "developer", "user", "assistant"):
        raise Refusal(
            400, f"'{where}' needs a role: system, developer, user or assistant", f"{where}.role", "invalid_value"
        )
    content = value.get("content")
    if isinstance(content, list):
        if not all(isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in content):
            raise Refusal(400, "only text parts are supported", f"{where}.content", "unsupported_parameter")
        content = "".join(p["text"] for p in content)
    if not isinstance(content, str):
        raise Refusal(400, f"'{where}.content' must be text", f"{where}.content", "invalid_type")
    return {"role": value["role"], "content": content}


def _stop(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or len(stops) > 4 or not all(isinstance(s, str) and s for s in stops):
        raise Refusal(400, "'stop' must be a non-empty string or at most four of them", "stop", "invalid_value")
    return tuple(stops)


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer ready to be sent; token counts are words and punctuation marks."""

    request: Request
    text: str
    finish_reason: str

    @classmethod
    def of(cls, request: Request, text: str) -> Completion:
        """Cut at the first stop string and at `max_tokens`."""
        ends = [text.find(s) for s in request.stop if s in text]
        text = text[: min(ends)] if ends else text
        pieces = _PIECE.findall(text)
        if request.max_tokens and len(pieces) > request.max_tokens:
            return cls(request, "".join(pieces[: request.max_tokens]), "length")
        return cls(request, text, "stop")

    @property
    def usage(self) -> dict[str, int]:
        prompt = sum(words(m["content"]) for m in self.request.messages)
        completion = words(self.text) * self.request.n
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def body(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.text, "refusal": None}
        choices = [
            {"index": i, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
            for i in range(self.request.n)
        ]
        return {**self._head("chat.completion"), "choices": choices, "usage": self.usage}

    def chunks(self) -> Iterator[dict[str, Any]]:
        """Stream events: the role, the text word by word, the finish reason, and the usage when asked for."""
        pieces = re.findall(r"\s*\S+\s*?(?=\s|$)|\s+$", self.text) or [self.text]
        for i in range(self.request.n):
            yield self._chunk(i, {"role": "assistant", "content": ""})
            for piece in pieces:
                yield self._chunk(i, {"content": piece})
            yield self._chunk(i, {}, self.finish_reason)
        if self.request.include_usage:
            yield {**self._head("chat.completion.chunk"), "choices": [], "usage": self.usage}

    def _chunk(self, index: int, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self.request.include_usage else {}
        return {**self._head("chat.completion.chunk"), "choices": [choice], **usage}

    def _head(self, kind: str) -> dict[str, Any]:
        # `created` is fixed, so that equal requests get equal bytes.
        return {
            "id": f"chatcmpl-{self.request.hash[:24]}",
            "object": kind,
            "created": 0,
            "model": MODEL_ID,
            "system_fingerprint": FINGERPRINT,
        }
