"""The rented service as the primary: one streamed request, one deadline, a budget for connect, first token and gap.

Always streamed, also for a caller who wants one body: so a hung service is noticed at the first token, not at the end.
An answer counts only when every choice has a finish_reason. Nothing is retried here: the understudy is the retry.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from understudy.config import FailoverConfig, ServiceConfig
from understudy.core.records import well_formed
from understudy.models.base import Delta
from understudy.models.providers import endpoint, fitted
from understudy.models.reply import Failure
from understudy.serve.request import ApiError, ChatRequest
from understudy.serve.worker import Piece

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

ANSWER_LIMIT = 4_000_000
"""Characters of one answer; more is a fault of the service."""
ERROR_LIMIT = 64_000
"""Bytes of an error's body that are read."""
USAGE_WAIT_S = 0.5
"""How long the counts may take once every choice is finished."""
CALLERS_FAULT = (400, 413, 422)
"""Statuses that say that the request is wrong: passed on in shape. All others but 200 are the service's failures."""
FINISHED = {"stop": "stop", "length": "length", "content_filter": "content_filter"}
_FORWARDED = ("temperature", "top_p", "seed", "stop", "n")


@dataclass
class UpstreamFailed(Exception):
    """The service did not give a whole answer. `code`: refused, dns, tls, reset, connect_timeout, slow_first_token,
    stalled, deadline, rate_limited, server_error, key_refused, unreachable, bad_reply, cut."""

    code: str
    what: str
    retry_after_s: float = 0.0


class Upstream:
    """A client of the service for one event loop. Use inside `async with`."""

    def __init__(self, cfg: ServiceConfig, budget: FailoverConfig, base_url: str | None = None) -> None:
        """Raises ConfigError when a key is missing or its variable not set. `base_url` is a simulated service's."""
        self.cfg, self.budget = cfg, budget
        self._endpoint = endpoint(cfg, "service", base_url)
        self._url = f"{self._endpoint.url.rstrip('/')}/chat/completions"
        self._limit_field = "max_tokens"
        self._client: AsyncClient | None = None

    async def __aenter__(self) -> Upstream:
        import httpx2

        patience = httpx2.Timeout(None, connect=self.budget.connect_s, pool=self.budget.connect_s)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        headers = {"accept-encoding": "identity", "user-agent": "understudy"}
        # A proxy from the environment must not get requests to this machine.
        remote = self.cfg.provider != "simulated" and not self._endpoint.local
        self._client = httpx2.AsyncClient(timeout=patience, limits=limits, headers=headers, trust_env=remote)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def pieces(self, asked: ChatRequest) -> AsyncGenerator[Piece]:
        """The service's answer in pieces; the last one of each choice carries finish_reason and counts.

        Raises UpstreamFailed, or ApiError for a request that the service found wrong.
        """
        import httpx2

        loop = asyncio.get_running_loop()
        ends = loop.time() + self.budget.deadline_s
        first = loop.time() + self.budget.first_token_s
        response: Response | None = None
        try:
            async with asyncio.timeout_at(min(first, ends)):
                response = await self._send(asked)
            async with aclosing(self._read(response, len(asked.choices), min(first, ends), ends)) as pieces:
                async for piece in pieces:
                    yield piece
        except TimeoutError:
            late = "deadline" if loop.time() >= ends else "slow_first_token"
            raise UpstreamFailed(late, "no token in time") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError) as e:
            raise UpstreamFailed(_transport_fault(e), type(e).__name__) from None
        finally:
            if response is not None:
                await response.aclose()

    async def _send(self, asked: ChatRequest) -> Response:
        """The response's head. Raises UpstreamFailed or ApiError for a status other than 200."""
        assert self._client is not None, "used outside its context"
        headers = await self._authorization()
        for again in (False, True):
            request = self._client.build_request("POST", self._url, json=self._body(asked), headers=headers)
            response = await self._client.send(request, stream=True)
            if response.status_code == 200:
                return response
            try:
                raw = await _read_some(response)
            finally:
                await response.aclose()
            # Newer OpenAI models refuse max_tokens and name its successor.
            if again or response.status_code != 400 or b"max_completion_tokens" not in raw:
                raise _status_fault(response.status_code, response.headers, raw)
            self._limit_field = "max_completion_tokens"
        raise AssertionError

    async def _authorization(self) -> dict[str, str]:
        key = self._endpoint.key
        if not isinstance(key, str):
            try:
                key = await asyncio.to_thread(key)  # may ask a token server
            except Failure as e:
                raise UpstreamFailed("key_refused" if e.fatal else "unreachable", "no access token") from None
        return {"authorization": f"Bearer {key}"} if key else {}

    def _body(self, asked: ChatRequest) -> dict[str, Any]:
        """What the service is sent: the checked fields and nothing else; our model id, always as a stream."""
        limits = [asked.given[k] for k in ("max_tokens", "max_completion_tokens") if k in asked.given]
        drawn = {key: asked.given[key] for key in _FORWARDED if key in asked.given}
        if self.cfg.temperature is None:
            drawn.pop("temperature", None)
        else:
            drawn.setdefault("temperature", self.cfg.temperature)
        fields = {
            **drawn,
            self._limit_field: limits[0] if limits else self.cfg.max_tokens,
            "stream_options": {"include_usage": True},
        }
        messages = {"model": self.cfg.model, "messages": asked.conversation, "stream": True}
        return messages | fitted(self.cfg, fields)

    async def _read(self, response: Response, choices: int, first: float, ends: float) -> AsyncGenerator[Piece]:
        import httpx2

        answer = _Reading(choices)
        events = aiter(httpx2.EventSource(response))
        until = first
        while not answer.closed:
            try:
                async with asyncio.timeout_at(until):
                    event = await anext(events)
            except StopAsyncIteration:
                break
            except TimeoutError:
                if answer.finished:
                    break
                raise UpstreamFailed(*self._silence(answer, ends)) from None
            except (httpx2.HTTPError, OSError):
                # Every choice had ended: the answer is whole, only its counts are lost.
                if answer.finished:
                    break
                raise
            for piece in answer.take(event.data):
                yield piece
            now = asyncio.get_running_loop().time()
            gap = USAGE_WAIT_S if answer.finished else self.budget.gap_s if answer.begun else first - now
            until = min(now + gap, ends)
        for piece in answer.last_pieces():
            yield piece

    def _silence(self, answer: _Reading, ends: float) -> tuple[str, str]:
        if asyncio.get_running_loop().time() >= ends:
            return "deadline", f"the answer was not whole after {self.budget.deadline_s:g} s"
        if answer.begun:
            return "stalled", f"no token for {self.budget.gap_s:g} s"
        return "slow_first_token", f"no token within {self.budget.first_token_s:g} s"


class _Reading:
    """What has been read of one streamed answer."""

    def __init__(self, choices: int) -> None:
        self.reasons: list[str | None] = [None] * choices
        self.begun = self.closed = False
        self._length = 0
        self._usage = (0, 0)

    @property
    def finished(self) -> bool:
        return all(self.reasons)

    def take(self, data: str) -> list[Piece]:
        """The pieces of one event. Raises UpstreamFailed for anything that is no chunk of an answer."""
        if data.strip() == "[DONE]":
            self.closed = True
            return []
        try:
            chunk = json.loads(data)
            if chunk.get("error"):
                raise UpstreamFailed("server_error", "an error inside the stream")
            if isinstance(usage := chunk.get("usage"), dict):
                self._usage = (_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))
            found = [self._choice(choice) for choice in chunk["choices"]]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as e:
            raise UpstreamFailed("bad_reply", f"an event is no chunk ({type(e).__name__})") from None
        return [piece for piece in found if piece]

    def _choice(self, choice: dict[str, Any]) -> Piece | None:
        index = choice["index"]
        if type(index) is not int or not 0 <= index < len(self.reasons):
            raise ValueError("an index that was not asked for")
        if reason := choice.get("finish_reason"):
            self.reasons[index] = FINISHED[reason]
        text = (choice.get("delta") or {}).get("content")
        if not text:
            return None
        self._length += len(text)
        if not isinstance(text, str) or self._length > ANSWER_LIMIT:
            raise ValueError("content that is no text, or endless")
        self.begun = True
        return Piece(index, Delta(well_formed(text)))

    def last_pieces(self) -> list[Piece]:
        """The end of each choice; counts of all choices together stand with the first. UpstreamFailed when cut."""
        if not self.finished:
            raise UpstreamFailed("cut", "the stream ended without a finish_reason")
        prompt, completion = self._usage
        ends = [Delta("", reason, prompt, 0 if i else completion) for i, reason in enumerate(self.reasons)]
        return [Piece(i, delta) for i, delta in enumerate(ends)]


def _count(given: object) -> int:
    """Tokens as a service counts them; 0 for what is no such number, which costs nobody the answer."""
    return given if type(given) is int and 0 <= given < 2**31 else 0


async def _read_some(response: Response) -> bytes:
    raw = b""
    async for part in response.aiter_bytes():
        raw += part
        if len(raw) > ERROR_LIMIT:
            break
    return raw


def _status_fault(status: int, headers: Any, raw: bytes) -> Exception:
    if status in CALLERS_FAULT:
        return _passed_on(status, raw)
    code = {401: "key_refused", 403: "key_refused", 429: "rate_limited"}.get(status)
    code = code or ("server_error" if status >= 500 or status == 408 else "bad_reply")
    return UpstreamFailed(code, f"HTTP {status}", _seconds(headers))


def _passed_on(status: int, raw: bytes) -> ApiError:
    """The service's own words on what is wrong with the request, in shape and of bounded length."""
    try:
        told = json.loads(raw)["error"]
        message, code, param = (told.get(key) for key in ("message", "code", "param"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        message = code = param = None
    return ApiError(
        status,
        code[:64] if isinstance(code, str) and code else "invalid_value",
        well_formed(message)[:1000] if isinstance(message, str) else "The service refused the request.",
        param[:64] if isinstance(param, str) else None,
    )


def _seconds(headers: Any) -> float:
    try:
        seconds = float(headers.get("retry-after") or 0)
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) else 0.0


def _transport_fault(e: BaseException) -> str:
    """Which fault of the way to the service an exception tells of; the cause lies deep in the chain."""
    import httpx2

    kinds: list[tuple[type[BaseException], str]] = [
        (ssl.SSLError, "tls"),
        (socket.gaierror, "dns"),
        (ConnectionRefusedError, "refused"),
        (httpx2.ConnectTimeout, "connect_timeout"),
        (httpx2.PoolTimeout, "connect_timeout"),
        (httpx2.SSEError, "bad_reply"),
        (httpx2.DecodingError, "bad_reply"),
    ]
    seen: BaseException | None = e
    while seen is not None:
        for kind, name in kinds:
            if isinstance(seen, kind):
                return name
        # Several addresses that all failed come as a group.
        inner = seen.exceptions[0] if isinstance(seen, BaseExceptionGroup) else None
        seen = inner or seen.__cause__ or seen.__context__
    return "unreachable" if isinstance(e, httpx2.ConnectError) else "reset"
