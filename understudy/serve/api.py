"""The OpenAI-compatible endpoint over one Model: chat completions, model list, health.

`create_app` builds the application; `serve` proves a release's files against its digests, loads it and runs it until
SIGTERM, which lets running answers finish.
"""

from __future__ import annotations

import asyncio
import json
import queue
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from understudy.models.base import Conversation, Model, Sampling
from understudy.serve.guard import Access, Guard, respond
from understudy.serve.request import ApiError, ChatRequest, parse_body, parse_chat
from understudy.serve.worker import Admit, Job, Piece, Worker

BODY_TIMEOUT_S = 30.0


class Service:
    """The handlers and what they share."""

    def __init__(self, worker: Worker, served_by: str, defaults: Sampling) -> None:
        self.worker, self.served_by, self.defaults = worker, served_by, defaults
        self.names = {"understudy", served_by.rpartition(" v")[0] or served_by, served_by}
        self.created = int(time.time())

    async def chat(self, request: Request) -> Response:
        try:
            raw = await asyncio.wait_for(request.body(), BODY_TIMEOUT_S)
        except TimeoutError:
            raise ApiError(408, "request_timeout", "The body did not arrive in time.") from None
        asked = parse_chat(parse_body(raw), self.defaults)
        self._known(asked.model, "model")
        job = Job(asked.conversation, asked.choices)
        try:
            self.worker.submit(job)
        except queue.Full:
            error = ApiError(503, "overloaded", "Too many requests are waiting.")
            error.headers["retry-after"] = "2"
            raise error from None
        return Completion(self, asked, job, f"chatcmpl-{request.state.request_id}")

    def _known(self, model: str, param: str | None) -> None:
        if model not in self.names:
            raise ApiError(404, "model_not_found", f"This server serves `{self.served_by}`.", param)

    def _card(self) -> dict[str, Any]:
        return {"id": self.served_by, "object": "model", "created": self.created, "owned_by": "understudy"}

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def model(self, request: Request) -> Response:
        self._known(request.path_params["id"], "model")
        return JSONResponse(self._card())

    async def health(self, request: Request) -> Response:
        state = {"status": "ok", "served_by": self.served_by}
        return JSONResponse({**state, "waiting": self.worker.waiting, "failures": self.worker.failures})


class Completion(Response):
    """A chat completion on its way; the job is cancelled when the client goes."""

    def __init__(self, service: Service, asked: ChatRequest, job: Job, completion_id: str) -> None:
        self.service, self.asked, self.job = service, asked, job
        self.background = None
        self.head = {"id": completion_id, "created": int(time.time()), "model": service.served_by}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.create_task(self._stream(send) if self.asked.stream else self._whole(scope, receive, send))
        gone = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            self.job.cancel()
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        texts = [""] * len(self.asked.choices)
        reasons: list[str | None] = [None] * len(texts)
        usage = Usage()
        async for piece in self.job.pieces():
            texts[piece.index] += piece.delta.text
            reasons[piece.index] = piece.delta.finish_reason
            usage.add(piece)
        choices = [
            {"index": i, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": reason}
            for i, (text, reason) in enumerate(zip(texts, reasons, strict=True))
        ]
        body = {**self.head, "object": "chat.completion", "choices": choices, "usage": usage.to_json()}
        await JSONResponse(body)(scope, receive, send)

    async def _stream(self, send: Send) -> None:
        events = self.job.pieces()
        # An error before the first piece is still a real 4xx or 5xx.
        first = await anext(events)
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            async for event in self._events(first, events):
                await _send_event(send, event)
            await _send_event(send, "[DONE]")
        except Exception as e:
            error = e if isinstance(e, ApiError) else ApiError(500, "internal_error", "The generation failed.")
            # No [DONE]: clients then know that the answer is not whole.
            await _send_event(send, error.body)
        await send({"type": "http.response.body", "body": b""})

    async def _events(self, first: Piece, rest: AsyncIterator[Piece]) -> AsyncIterator[dict[str, Any]]:
        usage, begun = Usage(), set[int]()

        async def pieces() -> AsyncIterator[Piece]:
            yield first
            async for piece in rest:
                yield piece

        async for piece in pieces():
            if piece.index not in begun:
                begun.add(piece.index)
                yield self._chunk(piece.index, {"role": "assistant", "content": ""}, None)
            usage.add(piece)
            if piece.delta.text:
                yield self._chunk(piece.index, {"content": piece.delta.text}, None)
            if piece.delta.finish_reason:
                yield self._chunk(piece.index, {}, piece.delta.finish_reason)
        if self.asked.include_usage:
            yield {**self.head, "object": "chat.completion.chunk", "choices": [], "usage": usage.to_json()}

    def _chunk(self, index: int, delta: dict[str, str], reason: str | None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = {**self.head, "object": "chat.completion.chunk", "choices": [choice]}
        return {**chunk, "usage": None} if self.asked.include_usage else chunk


class Usage:
    """Token counts over the choices; the prompt counts once."""

    def __init__(self) -> None:
        self.prompt = self.completion = 0

    def add(self, piece: Piece) -> None:
        if piece.delta.finish_reason:
            self.prompt = piece.delta.prompt_tokens
            self.completion += piece.delta.completion_tokens

    def to_json(self) -> dict[str, int]:
        total = self.prompt + self.completion
        return {"prompt_tokens": self.prompt, "completion_tokens": self.completion, "total_tokens": total}


async def _send_event(send: Send, event: object) -> None:
    text = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
    await send({"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def context_check(model: Model, context_tokens: int) -> Admit:
    """Refuses a prompt that fills the context and cuts the answer's limit to what is left of it.

    Counts with the model's own `prompt_tokens(conversation)`; a model without one refuses by itself.
    """
    count = getattr(model, "prompt_tokens", None)

    def admit(conversation: Conversation, sampling: Sampling) -> Sampling:
        if sampling.max_new_tokens > context_tokens:
            raise _over("max_tokens", f"`max_tokens` is above the context of {context_tokens} tokens.")
        if count is None:
            return sampling
        prompt = int(count(conversation))
        if prompt >= context_tokens:
            raise _over("messages", f"The prompt has {prompt} tokens; the context has {context_tokens}.")
        return replace(sampling, max_new_tokens=min(sampling.max_new_tokens, context_tokens - prompt))

    return admit


def _over(param: str, message: str) -> ApiError:
    return ApiError(400, "context_length_exceeded", message, param)


async def _shaped(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        codes = {404: "not_found", 405: "method_not_allowed"}
        message = f"{request.method} on this path is not served."
        error = ApiError(error.status_code, codes.get(error.status_code, "http_error"), message)
    return _Refusal(error if isinstance(error, ApiError) else ApiError(500, "internal_error", "The server failed."))


class _Refusal(Response):
    def __init__(self, error: ApiError) -> None:
        self.error, self.background = error, None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, self.error)


def create_app(
    model: Model,
    *,
    served_by: str,
    context_tokens: int,
    max_body_bytes: int = 1_000_000,
    defaults: Sampling | None = None,
    access: Access | None = None,
    queue_size: int = 64,
) -> ASGIApp:
    """The ASGI application. `served_by` is `<registered name> v<version>`; `defaults` is the release's decoding."""
    worker = Worker(model, context_check(model, context_tokens), queue_size)
    service = Service(worker, served_by, defaults or Sampling())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        worker.start()
        yield
        await asyncio.to_thread(worker.close)

    routes = [
        Route("/v1/chat/completions", service.chat, methods=["POST"]),
        Route("/v1/models", service.models, methods=["GET"]),
        Route("/v1/models/{id:path}", service.model, methods=["GET"]),
        Route("/health", service.health, methods=["GET"]),
    ]
    handlers: Any = {HTTPException: _shaped, ApiError: _shaped, Exception: _shaped}
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Guard(app, access or Access(), max_body_bytes, {"x-understudy-served-by": served_by})
