"""A rented language model behind the OpenAI protocol: one retry loop, one deadline, a cache of every full request.

A reply counts only with choices and a finish_reason. The first request goes alone, so that a wrong key or model costs
one call. Answers come in input order; the same request in one batch is sent once. Keys never enter errors or files.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from understudy.config import ServiceConfig
from understudy.core.records import digest
from understudy.errors import RemoteError
from understudy.models.account import Account, cost
from understudy.models.base import Answer, Conversation, Delta, Sampling
from understudy.models.cache import ReplyCache, adopt
from understudy.models.event_loop import EventLoop
from understudy.models.pace import Pace
from understudy.models.prompt import Prompt, fields, identity
from understudy.models.providers import JsonMode, endpoint, fitted, json_mode
from understudy.models.reply import Failure, Reply, failure_of, parse_all, reply_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.resources.chat import AsyncCompletions

T = TypeVar("T")

BODY_LIMIT = 16_000_000
"""Bytes of one reply; more is a fault of the server, not an answer."""
ATTEMPT_SHARE = 0.6
"""Share of the remaining deadline that one attempt may take while another could follow."""
REFUSALS = {"REPLY_FILTERED": "content_filter", "REQUEST_REFUSED": "refused"}
"""Failures of one prompt alone, and the finish_reason of its empty answer."""
MAX_REFUSED = 0.05
"""Share of refused prompts above which the service, not a prompt, is at fault; judged from 20 prompts on."""
MONEY_S = 0.05
"""A request that waits for money looks so often whether another one has left some."""
_REASK = "\n\nYour last reply could not be used: {problem}. Reply with the asked JSON object and nothing else."


class ServiceModel:
    """A Model over HTTP. Thread-safe; `calls` counts what was sent, read from the cache, retried and spent."""

    def __init__(
        self,
        cfg: ServiceConfig,
        *,
        base_url: str | None = None,
        cache: Path | None = None,
        role: str = "service",
        account: Account | None = None,
    ) -> None:
        self.cfg = cfg
        self.backoff_s = 0.5
        names = ("requests", "cached", "retries", "failed", "refused", "prompt_bytes", "prompt_tokens")
        self.calls: dict[str, float] = dict.fromkeys((*names, "completion_tokens", "cost"), 0)
        self._role = role
        self._where = f"{role} {cfg.model}"
        if cache:
            adopt(cache)
        self._cache = ReplyCache(cache)
        self._account = account
        self._pace = Pace(cfg.requests_per_minute, cfg.tokens_per_minute)
        self._endpoint = endpoint(cfg, role, base_url)
        self._loop: EventLoop | None = None
        self._client: AsyncOpenAI | None = None
        self._lock = threading.Lock()
        self._versions: list[str] = []
        self._reached = False
        self._token_field = "max_tokens"
        self._json_mode = json_mode(cfg)
        self._failures_in_a_row = 0
        self._asked = 0

    def __repr__(self) -> str:
        return f"ServiceModel({self._where!r}, provider={self.cfg.provider!r})"

    @property
    def identity(self) -> dict[str, str]:
        """Model id, the version that answers reported (none before the first, several when it moved), and provider."""
        return {"model": self.cfg.model, "version": ", ".join(self._versions), "provider": self.cfg.provider}

    def provenance(self, template: str = "") -> dict[str, Any]:
        """What answered in this step, in full, for artifacts and the model card; `template`: the prompt's digest.

        `versions` lists every version that a reply reported, in the order of the requests.
        """
        drawn = {"temperature": self.cfg.temperature, "max_tokens": self.cfg.max_tokens, "top_p": self.sampling().top_p}
        known: dict[str, Any] = {"model": self.cfg.model, "provider": self.cfg.provider, "sampling": drawn}
        return known | {"versions": list(self._versions)} | ({"template": template} if template else {})

    def close(self) -> None:
        """Requests of other threads that are in flight are cancelled."""
        with self._lock:
            loop, client, self._loop, self._client = self._loop, self._client, None, None
        if loop is not None and client is not None:
            loop.close_after(client.close())
        self._cache.close()
        if self._account:
            self._account.close()

    def sampling(self) -> Sampling:
        """Decoding as the configuration has it, for teacher and judge."""
        drawn = 1.0 if self.cfg.temperature is None else self.cfg.temperature
        return Sampling(max_new_tokens=self.cfg.max_tokens, temperature=drawn)

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        """One answer per conversation, in order. The first failed request raises; finished ones stay in the cache.

        A prompt that the service refuses is answered with an empty text; that raises only when every prompt so far
        was refused, or more than 5 % of at least 20.
        """
        answers = self._ask([Prompt(c, sampling) for c in conversations], stop_at_failure=True)
        refused = [a for a in answers if isinstance(a, RemoteError)]
        self._asked += len(answers)
        self._count(refused=len(refused))
        total = self.calls["refused"]
        if refused and (total == self._asked or (self._asked >= 20 and total > MAX_REFUSED * self._asked)):
            first = refused[0]
            what = f"{total} of {self._asked} prompts were refused, the first one: {first.what}"
            raise RemoteError(first.code, self._where, what, first.fix or "mend the prompts, or use another service")
        return [Answer("", REFUSALS[a.code]) if isinstance(a, RemoteError) else a for a in answers]

    def ask(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer | RemoteError]:
        """Like `generate`, with each failed request in its place. Raises when no request can succeed."""
        return self._ask([Prompt(c, sampling) for c in conversations], stop_at_failure=False)

    def ask_json(
        self,
        conversations: Sequence[Conversation],
        schema: type[T] | Callable[[Any], T],
        sampling: Sampling | Sequence[Sampling] | None = None,
        *,
        form: dict[str, Any] | None = None,
    ) -> list[T | RemoteError]:
        """One parsed object per conversation, in order, or the RemoteError (`BAD_JSON` after one re-ask).

        `schema` is a pydantic model, or a function that returns the parsed value or raises ValueError; `form` is the
        JSON schema that the service is held to where it can be. `sampling` is one for all, or one for each.
        """
        validate: Callable[[Any], Any] = schema
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            validate, form = schema.model_validate, form or schema.model_json_schema()
        if sampling is None or isinstance(sampling, Sampling):
            sampling = [sampling or self.sampling()] * len(conversations)
        prompts = [Prompt(c, s, form) for c, s in zip(conversations, sampling, strict=True)]
        results: list[Any] = list(self._ask(prompts, stop_at_failure=False))
        problems = parse_all(results, validate)
        if problems:
            again = [prompts[i].with_note(_REASK.format(problem=problem)) for i, problem in problems]
            second: list[Any] = list(self._ask(again, stop_at_failure=False))
            still = dict(parse_all(second, validate))
            for j, (i, _) in enumerate(problems):
                results[i] = second[j]
                if j in still:
                    what = f"the reply is not the asked JSON, twice: {still[j]}"
                    results[i] = RemoteError("BAD_JSON", self._where, what, "use a model that follows the prompt")
                    # Kept, the two replies would fail every rerun in the same way.
                    for prompt in (prompts[i], again[j]):
                        self._cache.forget(digest(identity(self.cfg, self._endpoint.url, prompt)))
        return results

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[Delta]:
        """The answer in pieces, not retried and not cached. An end without finish_reason raises `STREAM_CUT`."""
        usage = fitted(self.cfg, {"stream_options": {"include_usage": True}})
        params = self._fields(Prompt(conversation, sampling)) | usage
        finish, counts, failure = None, (0, 0), None
        self._count(requests=1)
        loop = self._open()
        chunks = None
        try:
            chunks = loop.run(self._completions.create(**params, stream=True, timeout=self.cfg.timeout_s))
            while chunk := loop.run(_following(chunks)):
                if chunk.usage:
                    counts = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
                if not chunk.choices:
                    continue
                finish = chunk.choices[0].finish_reason or finish
                if chunk.choices[0].delta.content:
                    yield Delta(chunk.choices[0].delta.content)
        except Exception as e:
            failure = failure_of(e)
        finally:
            # Not waited for: a generator that nobody ended is collected on whatever thread, also on the loop's own.
            if chunks is not None:
                loop.spawn(chunks.close())
        if failure is None and not finish:
            failure = Failure("STREAM_CUT", "the stream ended without a finish_reason", retry=True)
        if failure is not None:
            raise self._error(failure, 1)
        self._count(prompt_tokens=counts[0], completion_tokens=counts[1])
        yield Delta("", "length" if finish == "length" else "stop", *counts)

    def _ask(self, prompts: Sequence[Prompt], *, stop_at_failure: bool) -> list[Answer | RemoteError]:
        requests = [identity(self.cfg, self._endpoint.url, p) for p in prompts]
        keys = [digest(r) for r in requests]
        found: dict[str, Reply | RemoteError] = {}
        todo: dict[str, tuple[Prompt, dict[str, Any]]] = {}
        for key, request, prompt in zip(keys, requests, prompts, strict=True):
            if key in found or key in todo:
                continue
            if cached := self._cache.load(key):
                self._count(cached=1)
                found[key] = cached
            else:
                todo[key] = (prompt, request)
        if todo:
            stop = asyncio.Event()
            self._open().run(self._send_all(todo, found, stop, stop_at_failure), stop.set)
        failed = [r for r in found.values() if isinstance(r, RemoteError) and r.code not in REFUSALS]
        if stop_at_failure and failed:
            raise next((r for r in failed if r.code != "NOT_SENT"), failed[0])
        reported = (r.version for k in keys if isinstance(r := found[k], Reply) and r.version)
        with self._lock:
            self._versions = list(dict.fromkeys([*self._versions, *reported]))
        return [r if isinstance(r := found[k], RemoteError) else r.answer for k in keys]

    async def _send_all(
        self,
        todo: dict[str, tuple[Prompt, dict[str, Any]]],
        found: dict[str, Reply | RemoteError],
        stop: asyncio.Event,
        stop_at_failure: bool,
    ) -> None:
        """Enter into `found` what became of every request. `stop`: requests in flight end, and no other is sent."""
        waiting = deque(todo)

        async def send(key: str) -> None:
            try:
                found[key] = await self._one(key, *todo[key], stop)
            except BaseException:
                stop.set()
                raise
            if stop_at_failure and isinstance(result := found[key], RemoteError) and result.code not in REFUSALS:
                stop.set()

        async def work() -> None:
            while waiting and not stop.is_set():
                await send(waiting.popleft())

        if not self._reached:
            await send(waiting.popleft())
        workers = [work() for _ in range(min(self.cfg.concurrency, len(waiting)))]
        for ended in await asyncio.gather(*workers, return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended
        unsent = self._error(Failure("NOT_SENT", "stopped before it was sent"), 0)
        found.update(dict.fromkeys(waiting, unsent))

    async def _one(self, key: str, prompt: Prompt, request: dict[str, Any], stop: asyncio.Event) -> Reply | RemoteError:
        """One request with its retries. Raises when the failure concerns every request."""
        deadline = math.inf
        failure = Failure("NOT_SENT", "stopped before it was sent")
        attempt = 0
        while attempt < self.cfg.max_attempts:
            # Waiting for a place in time or for money is our own wish, so it is no part of the deadline.
            begun = time.monotonic()
            if await _stopped(stop, self._pace.wait_s(prompt.tokens)):
                break
            ticket = await self._reserve(prompt, stop)
            if ticket is None:
                break
            deadline = min(deadline + time.monotonic() - begun, time.monotonic() + self.cfg.timeout_s)
            attempt += 1
            left = deadline - time.monotonic()
            share = 1.0 if attempt == self.cfg.max_attempts else ATTEMPT_SHARE
            try:
                reply = await self._once(prompt, max(left * share, 0.001), ticket, stop)
            except Failure as e:
                failure = e
            else:
                self._cache.store(key, request, reply)
                self._reached, self._failures_in_a_row = True, 0
                return reply
            pause = self._pause(key, attempt, failure)
            if not failure.retry or attempt == self.cfg.max_attempts or time.monotonic() + pause >= deadline:
                break
            if failure.code == "RATE_LIMITED" and failure.wait_s:
                self._pace.hold(failure.wait_s)
            self._count(retries=1)
            await _stopped(stop, pause)
        return self._given_up(failure, attempt)

    def _given_up(self, failure: Failure, attempts: int) -> RemoteError:
        """The error of a request that got no answer. Raises when no other one can get one either."""
        error = self._error(failure, attempts)
        if failure.code == "NOT_SENT":
            return error
        with self._lock:
            self.calls["failed"] += 1
            # Refused prompts may stand together in a set; they say nothing of a service that has answered others.
            self._failures_in_a_row += failure.code not in REFUSALS or not self._reached
            down = self._failures_in_a_row >= max(10, 2 * self.cfg.concurrency)
        if failure.fatal:
            raise error
        if down:
            what = f"{self._failures_in_a_row} requests in a row failed, the last one: {failure.code}: {error.what}"
            raise RemoteError("SERVICE_DOWN", self._where, what, _RERUN)
        return error

    def _pause(self, key: str, attempt: int, failure: Failure) -> float:
        """Seconds before the next attempt: what the server asks for, else exponential with jitter of its own."""
        jitter = int(digest([key, attempt], 8), 16) / 0xFFFFFFFF
        if failure.wait_s is not None:
            return failure.wait_s + 0.1 * self.backoff_s * jitter
        return min(self.backoff_s * 2.0 ** (attempt - 1), 20.0) * (0.5 + 0.5 * jitter)

    async def _reserve(self, prompt: Prompt, stop: asyncio.Event) -> str | None:
        """A ticket for what the request may cost, which may wait for other requests; None when the batch was stopped.

        Raises ResourceError BUDGET_SPENT.
        """
        if not self._account:
            return ""
        most = cost(self.cfg.price, *prompt.most)
        while (ticket := self._account.reserve(self._role, most)) is None:
            if await _stopped(stop, MONEY_S):
                break
        return ticket

    async def _once(self, prompt: Prompt, limit_s: float, ticket: str, stop: asyncio.Event) -> Reply:
        """One attempt; more than one request only where the endpoint does not know a field."""
        while True:  # each turn asks for less, so that there are at most four
            sent = self._token_field, self._json_mode
            try:
                return await self._paid(prompt, limit_s, ticket)
            except Failure as failure:
                if not self._adapt(failure, sent) or (again := await self._reserve(prompt, stop)) is None:
                    raise
                ticket = again

    def _adapt(self, failure: Failure, sent: tuple[str, JsonMode]) -> bool:
        """Whether the endpoint refused a field that can be put in another way, or that another request has put so."""
        named = failure.what
        with self._lock:
            if sent[0] == "max_tokens" and "max_tokens" in named and "max_completion_tokens" in named:
                self._token_field = "max_completion_tokens"  # newer OpenAI models refuse max_tokens
                return True
            if failure.code != "REQUEST_REFUSED" or "response_format" not in named or sent[1] == "text":
                return False
            if self._json_mode == sent[1]:
                self._json_mode = "object" if sent[1] == "schema" and "json_object" in named else "text"
            return True

    async def _paid(self, prompt: Prompt, limit_s: float, ticket: str) -> Reply:
        """One request, whose price was reserved in the account before; what it cost replaces that."""
        price, most = self.cfg.price, prompt.most
        self._count(requests=1)
        used = most  # whoever gives no account of a request may have charged for all of it
        try:
            reply = reply_of(await self._post(self._fields(prompt), limit_s))
            answer = reply.answer
            used = (answer.prompt_tokens, answer.completion_tokens)
            if not any(used):
                used = (prompt.size, len(answer.text.encode("utf-8", "replace")))
            else:
                # Bytes beside tokens: how a service counts is learnt from that.
                self._count(prompt_bytes=prompt.size, prompt_tokens=used[0], completion_tokens=used[1])
            return reply
        except Exception as e:
            failure = failure_of(e)
            used = (0, 0) if failure.free else failure.used if any(failure.used) else most
            raise failure from None
        finally:
            paid = cost(price, *used)
            self._count(cost=paid)
            self._pace.correct(sum(used) - prompt.tokens)
            if self._account:
                self._account.settle(ticket, self._role, paid, *used)

    async def _post(self, params: dict[str, Any], limit_s: float) -> bytes:
        """The reply's bytes, within `limit_s` as a whole: the SDK's own timeout starts anew with every piece."""
        body = bytearray()
        create = self._completions.with_streaming_response.create
        try:
            async with asyncio.timeout(limit_s), create(**params, timeout=None) as response:
                async for piece in response.iter_bytes():
                    body += piece
                    if len(body) > BODY_LIMIT:
                        raise Failure("BODY_LIMIT", f"the reply is longer than {BODY_LIMIT} bytes")
        except TimeoutError:
            raise Failure("TIMEOUT", f"the reply was not complete after {limit_s:.1f} s", retry=True) from None
        return bytes(body)

    def _fields(self, prompt: Prompt) -> dict[str, Any]:
        return fields(self.cfg, prompt, self._token_field, self._json_mode)

    def _open(self) -> EventLoop:
        """Starts the client, whose import takes a second, which is not the first request's."""
        with self._lock:
            if self._loop is None:
                self._client = self._connect()
                self._loop = EventLoop()
            return self._loop

    def _connect(self) -> AsyncOpenAI:
        import openai

        # A proxy from the environment must not get requests to this machine.
        remote = self.cfg.provider != "simulated" and not self._endpoint.local
        http = openai.DefaultAsyncHttpxClient(trust_env=remote)
        url, key = self._endpoint.url, self._endpoint.key
        # A token is renewed in time, in a thread of its own.
        api_key = key or "none" if isinstance(key, str) else partial(asyncio.to_thread, key)
        return openai.AsyncOpenAI(api_key=api_key, base_url=url, max_retries=0, http_client=http)

    @property
    def _completions(self) -> AsyncCompletions:
        assert self._client is not None, "used before it was opened"
        return self._client.chat.completions

    def _count(self, **by: float) -> None:
        with self._lock:
            for name, count in by.items():
                self.calls[name] += count

    def _error(self, failure: Failure, attempts: int) -> RemoteError:
        what = self._endpoint.hide(failure.what)[:400] + (f" (after {attempts} attempts)" if attempts > 1 else "")
        fix = _FIXES.get(failure.code, "")
        if failure.code == "REQUEST_REFUSED" and "temperature" in what and self.cfg.temperature is not None:
            fix = f"newest models often refuse the field: write {self._role}.temperature: null"
        return RemoteError(failure.code, self._where, what, fix)


async def _following(chunks: AsyncIterator[T]) -> T | None:
    return await anext(chunks, None)


async def _stopped(stop: asyncio.Event, seconds: float) -> bool:
    """Waits so long, or until the batch is stopped."""
    if seconds > 0 and not stop.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)
    return stop.is_set()


_RERUN = "rerun later: answered requests are cached"
_FIXES = {
    "KEY_REFUSED": "check the key and what it may use",
    "MODEL_NOT_FOUND": "check `model` and `base_url`",
    "QUOTA_GONE": "check the provider's plan and billing",
    "RATE_LIMITED": f"lower `concurrency`, raise `timeout_s`, or {_RERUN}",
    "TIMEOUT": f"raise `timeout_s`, or {_RERUN}",
    "CONNECTION": f"check `base_url` and the network, or {_RERUN}",
}
