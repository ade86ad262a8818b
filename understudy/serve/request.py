"""What a chat request may say: strict JSON in, a `ChatRequest` out, an `ApiError` in OpenAI's shape for all else.

Nothing is coerced (`true` is no integer, `"3"` is no number) and nothing that would change the answer is ignored.
Left out, `temperature` and `top_p` are the release's decoding settings (greedy unless the release says otherwise),
not OpenAI's 1: the numbers of the verdict hold for what is served.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from understudy.core.records import Message
from understudy.data.clean import context_turn
from understudy.models.base import Conversation, Sampling
from understudy.traffic import Feedback

MAX_MESSAGES = 2048
MAX_CHOICES = 8
MAX_STOP_CHARS = 1000
MAX_COMMENT_CHARS = 4000
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_NEVER = object()
_HARMLESS: dict[str, object] = {
    "logprobs": False,
    "logit_bias": {},
    "response_format": {"type": "text"},
    "tool_choice": "none",
    "function_call": "none",
    "modalities": ["text"],
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "store": False,
    "tools": _NEVER,
    "functions": _NEVER,
    "audio": _NEVER,
    "top_logprobs": _NEVER,
}
"""Known fields that are served only at the value that changes nothing."""
_IGNORED = {"user": str, "metadata": dict, "service_tier": str, "safety_identifier": str, "prompt_cache_key": str}
"""Fields that never change an answer."""


class ApiError(Exception):
    """An error as OpenAI's clients read it."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.headers: dict[str, str] = {}

    @property
    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def overloaded() -> ApiError:
    error = ApiError(503, "overloaded", "Too many requests are waiting.")
    error.headers["retry-after"] = "2"
    return error


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request. `choices` holds one Sampling per answer; `given` the checked fields as they came."""

    model: str
    conversation: Conversation
    choices: tuple[Sampling, ...]
    stream: bool
    include_usage: bool
    given: Mapping[str, Any]


def _refuse(param: str | None, message: str, code: str = "invalid_value") -> NoReturn:
    raise ApiError(400, code, message, param)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object repeats a key")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is out of range")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def parse_body(raw: bytes) -> dict[str, Any]:
    """The request's JSON object; refuses bad UTF-8, NaN, infinities, repeated keys and bottomless nesting."""
    try:
        body = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_float=_finite, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        _refuse(None, "The body is not valid JSON in UTF-8.", "invalid_json")
    if not isinstance(body, dict):
        _refuse(None, "The body must be a JSON object.", "invalid_json")
    return body


def parse_chat(body: dict[str, Any], defaults: Sampling) -> ChatRequest:
    """Check every field of a chat completion request. `defaults` is the release's decoding."""
    given = {key: value for key, value in body.items() if value is not None}
    as_given = dict(given)
    model = given.pop("model", None)
    if model is None:
        _refuse("model", "`model` is required.", "missing_required_parameter")
    model = _text(model, "model")
    conversation = _messages(given.pop("messages", None))
    stream = _boolean(given.pop("stream", False), "stream")
    include_usage = _stream_options(given.pop("stream_options", None), stream)
    sampling, n = _sampling(given, defaults)
    _reject_rest(given)
    return ChatRequest(model, conversation, _choices(sampling, n), stream, include_usage, as_given)


_ASKED = ("model", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop", "user", "metadata")
"""Fields of a chat that a question may carry."""


def parse_ask(body: dict[str, Any], defaults: Sampling) -> ChatRequest:
    """A question, perhaps about a `context`, as the chat that the model was trained on."""
    given = {key: value for key, value in body.items() if value is not None}
    texts = {name: _text(given.pop(name), name) for name in ("question", "context") if name in given}
    if not texts.get("question", "").strip():
        _refuse("question", "`question` is required.", "missing_required_parameter")
    for key in given:
        if key not in _ASKED:
            name = key[:64].encode("ascii", "replace").decode()
            _refuse(name, "This field is not supported here; /v1/chat/completions has more.", "unsupported_parameter")
    about = texts.get("context", "").strip()
    turn = context_turn(about, texts["question"]) if about else texts["question"]
    chat = {"model": "understudy", **given, "messages": [{"role": "user", "content": turn}]}
    return parse_chat(chat, defaults)


def parse_feedback(body: dict[str, Any], authorization: str) -> Feedback:
    """Check a rating: `request_id` (or the completion's id), `rating` up or down, and perhaps a `comment`."""
    given = {key: value for key, value in body.items() if value is not None}
    found = {name: _text(given.pop(name), name) for name in ("request_id", "rating", "comment") if name in given}
    for name in ("request_id", "rating"):
        if name not in found:
            _refuse(name, f"`{name}` is required.", "missing_required_parameter")
    if found["rating"] not in ("up", "down"):
        _refuse("rating", "`rating` must be up or down.")
    if len(found.get("comment", "")) > MAX_COMMENT_CHARS:
        _refuse("comment", f"A comment has at most {MAX_COMMENT_CHARS} characters.")
    _reject_rest(given)
    return Feedback(**found, key=authorization.partition(" ")[2].strip() or None)


def _choices(sampling: Sampling, n: int) -> tuple[Sampling, ...]:
    return tuple(replace(sampling, seed=(sampling.seed + i) % 2**31) for i in range(n))


def _sampling(given: dict[str, Any], defaults: Sampling) -> tuple[Sampling, int]:
    limits = {key: given.pop(key) for key in ("max_tokens", "max_completion_tokens") if key in given}
    for key, value in limits.items():
        _integer(value, key, 1, 10**9)
    if len(set(limits.values())) > 1:
        _refuse("max_tokens", "`max_tokens` and `max_completion_tokens` differ.")
    temperature = _number(given.pop("temperature", defaults.temperature), "temperature", 0, 2)
    top_p = _number(given.pop("top_p", defaults.top_p), "top_p", 0, 1)
    if top_p == 0:
        _refuse("top_p", "`top_p` must be above 0.")
    seed = _integer(given.pop("seed", secrets.randbelow(2**31)), "seed", -(2**63), 2**63 - 1)
    sampling = Sampling(
        max_new_tokens=next(iter(limits.values()), defaults.max_new_tokens),
        temperature=temperature,
        top_p=top_p,
        seed=seed % 2**31,
        stop=_stop(given.pop("stop", None)) or defaults.stop,
    )
    return sampling, _integer(given.pop("n", 1), "n", 1, MAX_CHOICES)


def _reject_rest(given: dict[str, Any]) -> None:
    for key, value in given.items():
        if key in _IGNORED:
            if not isinstance(value, _IGNORED[key]):
                _refuse(key, f"`{key}` has the wrong type.", "invalid_type")
        elif key not in _HARMLESS or not _same(value, _HARMLESS[key]):
            name = key[:64].encode("ascii", "replace").decode()
            _refuse(name, "This field, or its value, is not supported here.", "unsupported_parameter")


def _same(value: object, allowed: object) -> bool:
    return isinstance(value, bool) == isinstance(allowed, bool) and value == allowed


def _text(value: Any, param: str) -> str:
    if not isinstance(value, str):
        _refuse(param, f"`{param}` must be a string.", "invalid_type")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        _refuse(param, f"`{param}` holds half of a surrogate pair.")
    return value


def _boolean(value: Any, param: str) -> bool:
    if not isinstance(value, bool):
        _refuse(param, f"`{param}` must be true or false.", "invalid_type")
    return value


def _integer(value: Any, param: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        _refuse(param, f"`{param}` must be an integer.", "invalid_type")
    if not low <= value <= high:
        _refuse(param, f"`{param}` must lie between {low} and {high}.")
    return value


def _number(value: Any, param: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(param, f"`{param}` must be a number.", "invalid_type")
    if not low <= value <= high:
        _refuse(param, f"`{param}` must lie between {low} and {high}.")
    return float(value)


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list):
        _refuse("stop", "`stop` must be a string or a list of strings.", "invalid_type")
    if len(stops) > 4:
        _refuse("stop", "`stop` holds at most 4 strings.")
    for text in stops:
        if not 0 < len(_text(text, "stop")) <= MAX_STOP_CHARS:
            _refuse("stop", f"A stop string has 1 to {MAX_STOP_CHARS} characters.")
    return tuple(stops)


def _stream_options(value: Any, stream: bool) -> bool:
    if value is None:
        return False
    if not stream:
        _refuse("stream_options", "`stream_options` needs `stream: true`.")
    if not isinstance(value, dict):
        _refuse("stream_options", "`stream_options` must be an object.", "invalid_type")
    unknown = set(value) - {"include_usage", "include_obfuscation"}
    if unknown or value.get("include_obfuscation"):
        _refuse("stream_options", "Only `include_usage` is supported.", "unsupported_parameter")
    return _boolean(value.get("include_usage", False), "stream_options.include_usage")


def _messages(value: Any) -> Conversation:
    if value is None:
        _refuse("messages", "`messages` is required.", "missing_required_parameter")
    if not isinstance(value, list):
        _refuse("messages", "`messages` must be a list.", "invalid_type")
    if not 1 <= len(value) <= MAX_MESSAGES:
        _refuse("messages", f"`messages` holds 1 to {MAX_MESSAGES} messages.")
    conversation = [_message(item, f"messages[{i}]") for i, item in enumerate(value)]
    if not any(message["role"] == "user" for message in conversation):
        _refuse(f"messages[{len(value) - 1}].role", "There is no user message to answer.")
    return conversation


def _message(value: Any, param: str) -> Message:
    if not isinstance(value, dict):
        _refuse(param, "A message must be an object.", "invalid_type")
    role = value.get("role")
    if not isinstance(role, str) or role not in ROLES:
        code = "unsupported_parameter" if role in ("tool", "function") else "invalid_value"
        _refuse(f"{param}.role", "The role must be system, developer, user or assistant.", code)
    # A reply that is sent back carries `tool_calls: null` and its like: null says nothing.
    extra = [key for key in value if key not in ("role", "content") and value[key] not in (None, [])]
    if extra:
        name = extra[0][:64].encode("ascii", "replace").decode()
        _refuse(f"{param}.{name}", "This field of a message is not supported here.", "unsupported_parameter")
    return {"role": ROLES[role], "content": _content(value.get("content"), f"{param}.content")}


def _content(value: Any, param: str) -> str:
    if isinstance(value, str):
        return _text(value, param)
    if not isinstance(value, list) or not value:
        _refuse(param, "The content must be a string or a list of text parts.", "invalid_type")
    texts = []
    for i, part in enumerate(value):
        if not isinstance(part, dict) or part.get("type") != "text" or set(part) != {"type", "text"}:
            _refuse(f"{param}[{i}]", "Only text parts are supported.", "unsupported_parameter")
        texts.append(_text(part["text"], f"{param}[{i}].text"))
    return "".join(texts)
