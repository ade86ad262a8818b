"""One thread generates, in the order of arrival; the event loop only waits.

A Job carries its events from the thread to the loop. A cancelled job stops at its next piece; a failed one reports its
exception and the thread goes on. Torch runs one generation at a time best on few cores, and a queue with a bound turns
overload into an honest 503.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast

from understudy.models.base import Conversation, Delta, Model, Sampling

log = logging.getLogger("understudy.serve")

Admit = Callable[[Conversation, Sampling], Sampling]
"""Checks a prompt against the context before any generation; returns the sampling to use, or raises."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of choice `index`; the last one of a choice carries `finish_reason` and the counts."""

    index: int
    delta: Delta


class StopFilter:
    """Cuts text before the first stop string, which may straddle pieces; what might begin one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops, self.held, self.hit = tuple(stops), "", False

    def push(self, text: str) -> str:
        if self.hit or not self.stops:
            return "" if self.hit else text
        self.held += text
        found = [at for at in (self.held.find(stop) for stop in self.stops) if at >= 0]
        if found:
            self.hit, ready = True, self.held[: min(found)]
            self.held = ""
            return ready
        keep = max(self._overlap(stop) for stop in self.stops)
        ready, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
        return ready

    def flush(self) -> str:
        ready, self.held = self.held, ""
        return ready

    def _overlap(self, stop: str) -> int:
        longest = min(len(stop) - 1, len(self.held))
        return next((k for k in range(longest, 0, -1) if self.held.endswith(stop[:k])), 0)


class Job:
    """One request: `choices` answers to one conversation. Made on the event loop, filled by the worker's thread."""

    def __init__(self, conversation: Conversation, choices: Sequence[Sampling]) -> None:
        self.conversation, self.choices = conversation, tuple(choices)
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue()
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def emit(self, event: Piece | BaseException | None) -> None:
        """From the worker's thread; None ends the job."""
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:
            self.cancel()

    async def pieces(self) -> AsyncIterator[Piece]:
        """The job's pieces; raises what the generation raised."""
        while (event := await self._events.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event


class Worker:
    """The thread and its bounded queue."""

    def __init__(self, model: Model, admit: Admit, queue_size: int = 64) -> None:
        self.model, self.admit, self.failures = model, admit, 0
        self._queue: queue.Queue[Job | None] = queue.Queue(queue_size)
        self._thread = threading.Thread(target=self._run, name="understudy-generate", daemon=True)

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Raises queue.Full when too many requests wait."""
        self._queue.put_nowait(job)

    def close(self, timeout_s: float = 30.0) -> None:
        """Finish what is queued, then stop."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            if job.cancelled:
                continue
            try:
                self._answer(job)
                job.emit(None)
            except Exception as e:
                if not hasattr(e, "status"):
                    self.failures += 1
                    log.exception("generation failed")
                job.emit(e)

    def _answer(self, job: Job) -> None:
        kept: list[Delta] = []
        for index, wanted in enumerate(job.choices):
            if kept and wanted.temperature == 0:
                # Greedy choices are equal: generated once.
                for delta in kept:
                    job.emit(Piece(index, delta))
                continue
            kept = []
            self._generate(job, index, self.admit(job.conversation, wanted), kept)
            if job.cancelled:
                return

    def _generate(self, job: Job, index: int, sampling: Sampling, kept: list[Delta]) -> None:
        def send(delta: Delta) -> None:
            kept.append(delta)
            job.emit(Piece(index, delta))

        cut, last = StopFilter(sampling.stop), None
        stream = self.model.stream(job.conversation, sampling)
        with closing(cast(Any, stream)) if hasattr(stream, "close") else _Open():
            for delta in stream:
                if job.cancelled:
                    return
                text = cut.push(delta.text)
                if delta.finish_reason is not None:
                    last, text = delta, text + cut.flush()
                if text:
                    send(Delta(text))
        if last is None:
            raise RuntimeError("the model ended its stream without a finish reason")
        reason = "stop" if cut.hit else last.finish_reason
        send(Delta("", reason, last.prompt_tokens, last.completion_tokens))


class _Open:
    """A stream that needs no closing (an iterator that is no generator)."""

    def __enter__(self) -> None: ...

    def __exit__(self, *exc: object) -> None: ...
