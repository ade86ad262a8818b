"""What a service LLM's reply means: an answer, a failure with a name, or the JSON that it holds.

A reply counts only with choices and a finish_reason. Lone surrogates, which no file can hold, become U+FFFD here.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from understudy.core.records import canonical, well_formed
from understudy.models.base import Answer

T = TypeVar("T")

_ONE_FOR_ALL = "fp_ollama"
"""The fingerprint that Ollama gives to every model."""
_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}


@dataclass
class Failure(Exception):
    """One failed attempt. `fatal`: no other request can succeed either; `free`: the provider did nothing for it."""

    code: str
    what: str
    retry: bool = False
    fatal: bool = False
    wait_s: float | None = None
    free: bool = False
    used: tuple[int, int] = (0, 0)
    """Tokens of prompt and reply, where the provider said how many."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the cache keeps of one reply."""

    answer: Answer
    version: str


def failure_of(e: Exception) -> Failure:
    """What an exception of the SDK or of the transport means; anything else is a fault of ours and goes on."""
    import openai

    if isinstance(e, Failure):
        return e
    if isinstance(e, openai.APIStatusError):
        return _status(e.status_code, e.response.headers, str(e.code or e.type or ""), e.message)
    if isinstance(e, openai.APITimeoutError) or "Timeout" in type(e).__name__:
        return Failure("TIMEOUT", "no complete reply in time", retry=True)
    if isinstance(e, openai.APIConnectionError):
        unsent = "ConnectError" in type(e.__cause__).__name__
        return Failure("CONNECTION", repr(e.__cause__ or e), retry=True, free=unsent)
    if isinstance(e, openai.APIError):
        return Failure("UPSTREAM_ERROR", e.message, retry=True)
    if isinstance(e, (OSError, json.JSONDecodeError)) or type(e).__module__.startswith(("http", "h11")):
        return Failure("CONNECTION", repr(e), retry=True)
    raise e


def _status(status: int, headers: Any, code: str, message: str) -> Failure:
    what = f"HTTP {status}: {message}"
    if status in (401, 403):
        return Failure("KEY_REFUSED", what, fatal=True, free=True)
    if status == 404:
        return Failure("MODEL_NOT_FOUND", what, fatal=True, free=True)
    if status == 402 or (status == 429 and code in _QUOTA_CODES):
        return Failure("QUOTA_GONE", what, fatal=True, free=True)
    told = {"true": True, "false": False}.get(headers.get("x-should-retry", ""))
    retry = told if told is not None else status in (408, 409, 429) or status >= 500
    name = "RATE_LIMITED" if status == 429 else "SERVER_ERROR" if status >= 500 or retry else "REQUEST_REFUSED"
    return Failure(name, what, retry=retry, wait_s=_retry_after(headers), free=True)


def _retry_after(headers: Any) -> float | None:
    """Seconds that the server asks for (`retry-after-ms`, `retry-after` in seconds or as a date); None when junk."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        text = headers.get(name)
        try:
            seconds = float(text) / unit
        except (TypeError, ValueError):
            continue
        return seconds if seconds >= 0 else None  # NaN compares false
    try:
        until = parsedate_to_datetime(headers.get("retry-after")).timestamp()
    except (TypeError, ValueError):
        return None
    try:  # the server's clock, where it shows it: ours may be off by hours
        now = parsedate_to_datetime(headers.get("date")).timestamp()
    except (TypeError, ValueError):
        now = time.time()
    return until - now if until >= now else None


def reply_of(body: bytes) -> Reply:
    """The answer in a 200's body, or the Failure that hides in it."""
    try:
        data = json.loads(body)
        if isinstance(data, dict) and data.get("error") and not data.get("choices"):
            raise Failure("UPSTREAM_ERROR", f"HTTP 200 with an error: {canonical(data['error'])}", retry=True)
        usage = data.get("usage") or {}
        counts = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        choice = data["choices"][0]
        finish, content = choice["finish_reason"], choice["message"]["content"]
        if isinstance(content, list):
            content = "".join(part["text"] for part in content if part["type"] == "text")
        fingerprint = data.get("system_fingerprint")
        version = well_formed(str((fingerprint if fingerprint != _ONE_FOR_ALL else "") or data.get("model") or ""))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as e:
        raise Failure("BAD_REPLY", f"HTTP 200 without an answer ({type(e).__name__}: {e})", retry=True) from None
    if not isinstance(finish, str) or not finish or finish == "error":
        raise Failure("BAD_REPLY", f"HTTP 200 with finish_reason {finish!r}", retry=True, used=counts)
    if finish == "content_filter":
        raise Failure("REPLY_FILTERED", "the provider's content filter withheld the answer", used=counts)
    if content is None and choice["message"].get("refusal"):
        raise Failure("REPLY_FILTERED", f"the model refused: {choice['message']['refusal']}", used=counts)
    if not isinstance(content, str):
        raise Failure("BAD_REPLY", f"HTTP 200 with content of type {type(content).__name__}", retry=True, used=counts)
    return Reply(Answer(well_formed(content), "length" if finish == "length" else "stop", *counts), version)


def parse_all(results: list[Any], validate: Callable[[Any], Any]) -> list[tuple[int, str]]:
    """Replace every Answer in place by what its text parses to; returns (index, problem) of those that do not."""
    problems = []
    for i, result in enumerate(results):
        if isinstance(result, Answer):
            try:
                results[i] = parse_json(result.text, validate)
            except ValueError as e:
                cut = "it was cut at max_tokens; " if result.finish_reason == "length" else ""
                problems.append((i, cut + str(e)))
    return problems


def _well_formed(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, list):
        return [_well_formed(item) for item in value]
    if isinstance(value, dict):
        return {well_formed(key): _well_formed(item) for key, item in value.items()}
    return value


def parse_json(text: str, validate: Callable[[Any], T]) -> T:
    """The first JSON value in `text` that `validate` takes: bare, fenced, or with prose around it. Else ValueError."""
    decoder = json.JSONDecoder(strict=False)
    problem = "it holds no JSON" if text.strip() else "it is empty"
    starts = [m.start() for m in re.finditer(r"[{\[]", text)]
    position = 0
    for start in starts[:200]:
        if start < position:
            continue
        try:
            value, position = decoder.raw_decode(text, start)
            value = _well_formed(value)
        except (ValueError, RecursionError) as e:
            problem = problem if start != starts[0] else f"broken JSON ({str(e)[:80]})"
            continue
        try:
            return validate(value)
        except ValidationError as e:
            first = e.errors(include_input=False, include_url=False)[0]
            problem = f"{'.'.join(map(str, first['loc'])) or 'reply'}: {first['msg']}"
        except ValueError as e:
            problem = str(e)
    raise ValueError(problem)
