"""A chat completion on its way to the client, whole or as server-sent events, from the pieces of an Answering."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from understudy.serve.request import ApiError
from understudy.serve.router import Answering
from understudy.serve.trace import Trace
from understudy.serve.worker import Piece


class Completion(Response):
    """One response; generation is cancelled on both sides when the client goes."""

    def __init__(self, answering: Answering, trace: Trace, completion_id: str) -> None:
        self.answering, self.asked, self.trace = answering, answering.asked, trace
        self.background = None
        self.id, self.created = completion_id, int(time.time())

    @property
    def head(self) -> dict[str, Any]:
        """What every chunk and body begins with; known once the first piece is there."""
        return {"id": self.id, "created": self.created, "model": self.answering.served_by}

    @property
    def headers_out(self) -> dict[str, str]:
        """Who served, and why the service did not."""
        why = {"x-understudy-failover": self.answering.failover} if self.answering.failover else {}
        return {"x-understudy-served-by": self.answering.served_by, **why}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.create_task(self._stream(send) if self.asked.stream else self._whole(scope, receive, send))
        gone = asyncio.create_task(_until_gone(receive))
        failed: BaseException | None = None
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                failed = work.result()
        except Exception as e:
            failed = e
            raise
        finally:
            left = not work.done()
            self.answering.cancel()
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
            self.trace.ended(self.answering, failed, gone=left)

    async def _pieces(self) -> AsyncGenerator[Piece]:
        async with aclosing(self.answering.pieces()) as pieces:
            async for piece in pieces:
                self.trace.piece(piece)
                yield piece

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        texts = [""] * len(self.asked.choices)
        reasons: list[str | None] = [None] * len(texts)
        usage = Usage()
        async with aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                texts[piece.index] += piece.delta.text
                reasons[piece.index] = piece.delta.finish_reason
                usage.add(piece)
        await self._whole_body(texts, reasons, usage)(scope, receive, send)

    def _whole_body(self, texts: list[str], reasons: list[str | None], usage: Usage) -> Response:
        choices = [
            {"index": i, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": reason}
            for i, (text, reason) in enumerate(zip(texts, reasons, strict=True))
        ]
        body = {**self.head, "object": "chat.completion", "choices": choices, "usage": usage.to_json()}
        return JSONResponse(body, headers=self.headers_out)

    async def _stream(self, send: Send) -> Exception | None:
        """Send the events; returns what broke the stream off, which the client has been told."""
        failed: Exception | None = None
        async with aclosing(self._pieces()) as pieces:
            # An error before the first piece is still a real 4xx or 5xx.
            first = await anext(pieces)
            head = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store", **self.headers_out}
            headers = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in head.items()]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            try:
                async for event in self._events(first, pieces):
                    await _send_event(send, event)
                await _send_event(send, "[DONE]")
            except Exception as e:
                failed = e
                error = e if isinstance(e, ApiError) else ApiError(500, "internal_error", "The generation failed.")
                # No [DONE]: clients then know that the answer is not whole.
                await _send_event(send, error.body)
        await send({"type": "http.response.body", "body": b""})
        return failed

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


class AnswerOnly(Completion):
    """The reply to a question of /v1/ask: its answer with few words around it, or the bare text."""

    def __init__(self, answering: Answering, trace: Trace, completion_id: str, *, bare: bool) -> None:
        super().__init__(answering, trace, completion_id)
        self.bare = bare

    def _whole_body(self, texts: list[str], reasons: list[str | None], usage: Usage) -> Response:
        if self.bare:
            return PlainTextResponse(texts[0], headers=self.headers_out)
        told = {"answer": texts[0], "finish_reason": reasons[0], "usage": usage.to_json()}
        return JSONResponse({**self.head, "object": "answer", **told}, headers=self.headers_out)


class Usage:
    """Token counts over the choices, as the side that answered counts them; the prompt counts once."""

    def __init__(self) -> None:
        self.prompt = self.completion = 0

    def add(self, piece: Piece) -> None:
        if piece.delta.finish_reason:
            self.prompt = piece.delta.prompt_tokens
            self.completion += piece.delta.completion_tokens

    def to_json(self) -> dict[str, int] | None:
        """None when the service sent no counts: nobody else knows its tokenizer."""
        if not self.prompt:
            return None
        total = self.prompt + self.completion
        return {"prompt_tokens": self.prompt, "completion_tokens": self.completion, "total_tokens": total}


async def _send_event(send: Send, event: object) -> None:
    text = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
    await send({"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
