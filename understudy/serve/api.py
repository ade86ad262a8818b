"""The OpenAI-compatible endpoint: chat completions, questions about a context, model list, health, metrics.

`create_app` builds the application around the understudy that is always there and, by policy, the rented service that
is asked first; `server.serve` runs it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from understudy.models.base import Conversation, Model, Sampling
from understudy.serve.breaker import CLOSED
from understudy.serve.completion import AnswerOnly, Completion
from understudy.serve.guard import Access, Guard, respond
from understudy.serve.metrics import CONTENT_TYPE, Metrics
from understudy.serve.request import (
    ApiError,
    ChatRequest,
    overloaded,
    parse_ask,
    parse_body,
    parse_chat,
    parse_feedback,
)
from understudy.serve.router import Router
from understudy.serve.trace import Trace
from understudy.serve.upstream import Upstream
from understudy.serve.worker import Admit, Worker
from understudy.traffic import TrafficLog

Parse = Callable[[dict[str, Any], Sampling], ChatRequest]
BODY_TIMEOUT_S = 30.0
FEEDBACK_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Understudy:
    """The model that is always there. `served_by` is `<name> v<version>`, `defaults` the release's decoding."""

    model: Model
    served_by: str
    context_tokens: int
    defaults: Sampling = Sampling()


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process takes on."""

    max_body_bytes: int = 1_000_000
    queue_size: int = 64


class Service:
    """The handlers and what they share."""

    def __init__(self, router: Router, understudy: Understudy, traffic: TrafficLog | None) -> None:
        self.router, self.understudy, self.traffic = router, understudy, traffic
        self.metrics = Metrics()
        self.metrics.watch("waiting", "Requests that wait for the understudy", lambda: router.worker.waiting)
        self.metrics.watch("failures", "Generations that failed", lambda: router.worker.failures)
        if router.upstream:
            self.metrics.watch(
                "breaker_open", "1 while the service is left alone", lambda: router.breaker.state != CLOSED
            )
            self.metrics.watch("breaker_opened", "How often it was", lambda: router.breaker.opened)
        name = understudy.served_by
        self.names = {"understudy", name.rpartition(" v")[0] or name, *router.models}
        self.created = int(time.time())

    async def chat(self, request: Request) -> Response:
        asked, trace = await self._asked(request, parse_chat)
        return Completion(self.router.answer(asked), trace, f"chatcmpl-{request.state.request_id}")

    async def ask(self, request: Request) -> Response:
        """A question, perhaps with a context, and its answer; as bare text where the caller accepts nothing else."""
        asked, trace = await self._asked(request, parse_ask)
        bare = request.headers.get("accept", "").partition(",")[0].strip().startswith("text/plain")
        return AnswerOnly(self.router.answer(asked), trace, f"answer-{request.state.request_id}", bare=bare)

    async def _asked(self, request: Request, parse: Parse) -> tuple[ChatRequest, Trace]:
        trace = Trace(self.traffic, self.metrics, request)
        try:
            asked = parse(parse_body(await _body(request)), self.understudy.defaults)
            trace.asked(asked)
            self._known(asked.model, "model")
        except ApiError as e:
            trace.ended(error=e)
            raise
        return asked, trace

    async def feedback(self, request: Request) -> Response:
        """A person's rating of an answer, stored with its row."""
        feedback = parse_feedback(parse_body(await _body(request)), request.headers.get("authorization", ""))
        if self.traffic is None:
            raise ApiError(404, "not_found", "This server keeps no traffic log.")
        try:
            stored = await asyncio.wait_for(asyncio.wrap_future(self.traffic.rate(feedback)), FEEDBACK_TIMEOUT_S)
        except Exception:
            raise ApiError(503, "overloaded", "The traffic log cannot be written now.") from None
        if stored is None:
            raise ApiError(404, "request_not_found", "There is no such request of this key.", "request_id")
        return JSONResponse({"object": "feedback", "request_id": feedback.request_id, "stored": stored})

    def _known(self, model: str, param: str | None) -> None:
        if model not in self.names:
            raise ApiError(404, "model_not_found", f"This server serves {_quoted(self.router.models)}.", param)

    def _card(self, model: str) -> dict[str, Any]:
        return {"id": model, "object": "model", "created": self.created, "owned_by": "understudy"}

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._card(name) for name in self.router.models]})

    async def model(self, request: Request) -> Response:
        model = request.path_params["id"]
        self._known(model, "model")
        return JSONResponse(self._card(model if model in self.router.models else self.understudy.served_by))

    async def health(self, request: Request) -> Response:
        worker, breaker = self.router.worker, self.router.breaker
        state: dict[str, Any] = {"status": "ok", "served_by": self.understudy.served_by}
        state |= {"waiting": worker.waiting, "failures": worker.failures}
        if self.router.upstream:
            state["service"] = {"model": self.router.models[-1], "breaker": breaker.state, "opened": breaker.opened}
        if self.traffic:
            state["traffic"] = self.traffic.counts()
        return JSONResponse(state)

    async def ready(self, request: Request) -> Response:
        """Whether another request would be taken on now."""
        if self.router.worker.ready:
            return JSONResponse({"status": "ready"})
        raise overloaded()

    async def measured(self, request: Request) -> Response:
        return Response(self.metrics.text(), headers={"content-type": CONTENT_TYPE})


async def _body(request: Request) -> bytes:
    try:
        return await asyncio.wait_for(request.body(), BODY_TIMEOUT_S)
    except TimeoutError:
        raise ApiError(408, "request_timeout", "The body did not arrive in time.") from None


def _quoted(models: list[str]) -> str:
    return " and ".join(f"`{model}`" for model in models)


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
    understudy: Understudy,
    *,
    upstream: Upstream | None = None,
    traffic: TrafficLog | None = None,
    access: Access | None = None,
    limits: Limits | None = None,
) -> ASGIApp:
    """The ASGI application. With an `upstream` the rented service answers first, and the understudy when it fails.

    `traffic` is written to while the caller keeps its context open.
    """
    limits = limits or Limits()
    worker = Worker(understudy.model, context_check(understudy.model, understudy.context_tokens), limits.queue_size)
    router = Router(worker, understudy.served_by, upstream)
    service = Service(router, understudy, traffic)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        worker.start()
        async with upstream or nullcontext():
            yield
        await asyncio.to_thread(worker.close)

    routes = [
        Route("/v1/chat/completions", service.chat, methods=["POST"]),
        Route("/v1/feedback", service.feedback, methods=["POST"]),
        Route("/v1/models", service.models, methods=["GET"]),
        Route("/v1/models/{id:path}", service.model, methods=["GET"]),
        Route("/v1/ask", service.ask, methods=["POST"]),
        Route("/healthz", service.health, methods=["GET"]),
        Route("/readyz", service.ready, methods=["GET"]),
        Route("/metrics", service.measured, methods=["GET"]),
    ]
    handlers: Any = {HTTPException: _shaped, ApiError: _shaped, Exception: _shaped}
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Guard(app, access or Access(), limits.max_body_bytes)
