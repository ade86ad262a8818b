"""Who answers a request: the rented service first where the policy says so, the local understudy when it fails.

A request changes sides only while nothing of its answer was flushed to the caller; afterwards a lost service ends it
with the one honest error `upstream_lost`. An `Answering` names who serves it as soon as its first piece is there.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import AsyncGenerator
from contextlib import aclosing

from understudy.serve.breaker import Breaker, Permit
from understudy.serve.request import ApiError, ChatRequest, overloaded
from understudy.serve.upstream import Upstream, UpstreamFailed
from understudy.serve.worker import Job, Piece, Worker

log = logging.getLogger("understudy.serve")

SERVICE, UNDERSTUDY = "service", "understudy"


class Answering:
    """One request on its way: its pieces, who answers, and why the service did not."""

    def __init__(self, router: Router, asked: ChatRequest) -> None:
        self._router, self.asked = router, asked
        self.side = ""
        """`service` or `understudy`, from the first piece on."""
        self.failover = ""
        """Why the service did not answer: a code of UpstreamFailed, or `breaker_open`."""
        self._job: Job | None = None

    @property
    def served_by(self) -> str:
        """The model that answers, as the reply names it."""
        return self._router.model_of(self.side)

    def cancel(self) -> None:
        if self._job is not None:
            self._job.cancel()

    async def pieces(self) -> AsyncGenerator[Piece]:
        """The answer. Raises ApiError; `upstream_lost` only after a piece was given out."""
        if self._router.takes(self.asked):
            permit = self._router.breaker.acquire()
            if permit is None:
                self.failover = "breaker_open"
            else:
                async with aclosing(self._from_service(permit)) as pieces:
                    async for piece in pieces:
                        yield piece
                if self.side:
                    return
        async with aclosing(self._from_understudy()) as pieces:
            async for piece in pieces:
                yield piece

    async def _from_service(self, permit: Permit) -> AsyncGenerator[Piece]:
        """The service's pieces; none at all when it failed before the first of them could be given out."""
        upstream = self._router.upstream
        assert upstream is not None
        held: list[Piece] = []
        try:
            async with aclosing(upstream.pieces(self.asked)) as pieces:
                async for piece in pieces:
                    if self.asked.stream:
                        self.side = SERVICE
                        yield piece
                    else:
                        # One body goes out at the end, so until then the understudy can still take over.
                        held.append(piece)
            self.side = SERVICE
            permit.succeed()
        except UpstreamFailed as e:
            permit.fail(e.retry_after_s)
            log.warning("the service failed (%s: %s)", e.code, e.what)
            self.failover = e.code
            if self.side:
                raise ApiError(502, "upstream_lost", "The service broke off in the middle of the answer.") from None
            return
        except ApiError:
            # The service is well: it refused this request.
            self.side = SERVICE
            permit.succeed()
            raise
        finally:
            permit.release()
        for piece in held:
            yield piece

    async def _from_understudy(self) -> AsyncGenerator[Piece]:
        worker = self._router.worker
        self._job = Job(self.asked.conversation, self.asked.choices)
        try:
            worker.submit(self._job)
        except queue.Full:
            raise overloaded() from None
        self.side = UNDERSTUDY
        try:
            async for piece in self._job.pieces():
                yield piece
        except ApiError as e:
            if not self.failover:
                raise
            raise self._neither(e) from None

    def _neither(self, refused: ApiError) -> ApiError:
        """The service is down and the understudy refuses (a prompt beyond its context): nobody's fault here."""
        error = ApiError(503, "upstream_unavailable", f"The service is down; the understudy cannot: {refused.message}")
        error.headers["retry-after"] = str(max(1, round(self._router.breaker.retry_after_s)))
        # Both sides were tried: the client's own repeats would triple the load of a system that is failing.
        error.headers["x-should-retry"] = "false"
        return error


class Router:
    """The policy, the service with its breaker, and the understudy's worker."""

    def __init__(self, worker: Worker, understudy: str, upstream: Upstream | None) -> None:
        self.worker, self.upstream = worker, upstream
        self.breaker = Breaker(upstream.budget.failures, upstream.budget.cool_down_s) if upstream else Breaker()
        self._models = {UNDERSTUDY: understudy, SERVICE: upstream.cfg.model if upstream else "", "": understudy}

    @property
    def models(self) -> list[str]:
        """Every model that can answer here, the understudy first."""
        return list(dict.fromkeys(name for name in self._models.values() if name))

    def model_of(self, side: str) -> str:
        return self._models[side]

    def takes(self, asked: ChatRequest) -> bool:
        """Whether the service is asked first; a caller who names the understudy's version gets just that."""
        return self.upstream is not None and asked.model != self._models[UNDERSTUDY]

    def answer(self, asked: ChatRequest) -> Answering:
        return Answering(self, asked)
