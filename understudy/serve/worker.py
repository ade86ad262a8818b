"""One thread generates, all answers under way together; the event loop only waits.

A Job carries its events from the thread to the loop. A cancelled job stops at its next token; when the engine fails,
the answers under way report it and the thread goes on. A queue with a bound turns overload into an honest 503.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from understudy.models.base import Conversation, Delta, Model, Sampling
from understudy.models.engine import Running

log = logging.getLogger("understudy.serve")

Admit = Callable[[Conversation, Sampling], Sampling]
"""Checks a prompt against the context before any generation; returns the sampling to use, or raises."""
FLUSH_S = 0.02
"""Tokens of so long go out together, but for an answer's first, which goes at once: one wake-up of the loop for all."""


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
        self.loop = asyncio.get_running_loop()
        self.begun: set[int] = set()
        """The choices whose first piece is out; the thread's."""
        self._events: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue()
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def put(self, event: Piece | BaseException | None) -> None:
        """On the event loop; None ends the job."""
        self._events.put_nowait(event)

    async def pieces(self) -> AsyncIterator[Piece]:
        """The job's pieces; raises what the generation raised."""
        while (event := await self._events.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event


Event = Piece | BaseException | None


class Outbox:
    """What the thread has for the jobs, handed over to their loop a few times a second, an answer's first at once."""

    def __init__(self) -> None:
        self._held: list[tuple[Job, Event]] = []
        self._texts: dict[tuple[Job, int], int] = {}
        self._flushed = time.monotonic()
        self._urgent = False

    def put(self, job: Job, event: Event) -> None:
        if not isinstance(event, Piece):
            self._urgent = True
            self._held.append((job, event))
            return
        place = (job, event.index)
        at = self._texts.get(place)
        if event.delta.finish_reason:
            self._urgent = True
        elif event.index not in job.begun:
            self._urgent = True
            job.begun.add(event.index)
        elif at is not None:
            before = self._held[at][1]
            assert isinstance(before, Piece)
            self._held[at] = (job, replace(before, delta=Delta(before.delta.text + event.delta.text)))
            return
        else:
            self._texts[place] = len(self._held)
        self._held.append((job, event))

    def flush(self, *, now: bool = False) -> None:
        """Hand over what waits, when something of it is urgent or it has waited long enough."""
        if not self._held or not (now or self._urgent or time.monotonic() - self._flushed >= FLUSH_S):
            return
        held, self._held, self._texts, self._urgent = self._held, [], {}, False
        self._flushed = time.monotonic()
        for loop in {job.loop for job, _ in held}:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                loop.call_soon_threadsafe(_deliver, [(job, event) for job, event in held if job.loop is loop])


def _deliver(held: list[tuple[Job, Event]]) -> None:
    for job, event in held:
        job.put(event)


@dataclass(slots=True)
class _Asked:
    """One answer under way: whose it is, and the choices that it stands for (greedy ones are equal)."""

    job: Job
    indices: list[int]
    sampling: Sampling


class Worker:
    """The thread and its bounded queue."""

    def __init__(self, model: Model, admit: Admit, queue_size: int = 64) -> None:
        self.model, self.admit, self.failures = model, admit, 0
        self._queue: queue.Queue[Job | None] = queue.Queue(queue_size)
        self._thread = threading.Thread(target=self._run, name="understudy-generate", daemon=True)
        self._out = Outbox()
        self._live: dict[int, _Asked] = {}
        self._waiting: deque[_Asked] = deque()
        self._left: dict[Job, int] = {}
        self._keys = 0
        self._open = True

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    @property
    def ready(self) -> bool:
        """Whether a job would be taken on."""
        return self._thread.is_alive() and self._open and not self._queue.full()

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
        running = self._engine()
        while self._open or self._live or self._waiting:
            self._take(running)
            try:
                self._step(running)
            except Exception as e:
                self._failed(e)
                running = self._engine()
            self._out.flush(now=not self._live)

    def _engine(self) -> Running:
        made = getattr(self.model, "running", None)
        running: Running = made() if made else OneByOne(self.model)
        return running

    def _take(self, running: Running) -> None:
        """Begin what waits while there is room; wait for a job when nothing is under way."""
        while running.busy < running.most:
            if self._waiting:
                self._begin(running, self._waiting.popleft())
            elif not self._open or not self._admit_next():
                return

    def _admit_next(self) -> bool:
        """Check the next job and line its answers up; False when nothing waits and something is under way."""
        if not self._live:
            self._out.flush(now=True)  # nobody else does while this thread waits
        try:
            job = self._queue.get(block=not self._live)
        except queue.Empty:
            return False
        if job is None:
            self._open = False
        elif not job.cancelled:
            try:
                lines = [(of, self.admit(job.conversation, job.choices[of[0]])) for of in distinct(job.choices)]
            except Exception as e:
                self._tell(job, e)
            else:
                self._waiting.extend(_Asked(job, indices, sampling) for indices, sampling in lines)
                self._left[job] = len(lines)
        return True

    def _begin(self, running: Running, asked: _Asked) -> None:
        if asked.job.cancelled or asked.job not in self._left:  # another of its answers has failed
            self._left.pop(asked.job, None)
            return
        self._keys += 1
        try:
            running.add(self._keys, asked.job.conversation, asked.sampling)
        except Exception as e:
            self._left.pop(asked.job)
            self._tell(asked.job, e)
        else:
            self._live[self._keys] = asked

    def _step(self, running: Running) -> None:
        for key, asked in list(self._live.items()):
            if asked.job.cancelled or asked.job not in self._left:
                running.cancel(key)
                del self._live[key]
                self._left.pop(asked.job, None)
        if not self._live:
            return
        for key, delta in running.step():
            asked = self._live[key]
            for index in asked.indices if delta.text or delta.finish_reason else ():
                self._out.put(asked.job, Piece(index, delta))
            if delta.finish_reason:
                del self._live[key]
                self._left[asked.job] -= 1
                if not self._left[asked.job]:
                    del self._left[asked.job]
                    self._out.put(asked.job, None)

    def _failed(self, e: Exception) -> None:
        """Whatever was under way has failed."""
        jobs = {asked.job: None for asked in self._live.values()}
        self._live = {}
        for job in jobs:
            self._left.pop(job, None)
            self._tell(job, e)

    def _tell(self, job: Job, e: Exception) -> None:
        if not hasattr(e, "status"):
            self.failures += 1
            log.error("generation failed", exc_info=e)
        self._out.put(job, e)


def distinct(choices: Sequence[Sampling]) -> list[list[int]]:
    """The choices that have to be generated, each with all that it stands for: greedy ones are equal."""
    greedy = [i for i, sampling in enumerate(choices) if sampling.temperature == 0]
    drawn = [[i] for i, sampling in enumerate(choices) if sampling.temperature > 0]
    return ([greedy] if greedy else []) + drawn


class OneByOne:
    """`engine.Running` over the stream of a model that can do no more."""

    most = 1

    def __init__(self, model: Model) -> None:
        self._model = model
        self._key = -1
        self._deltas: Iterator[Delta] | None = None

    @property
    def busy(self) -> int:
        return int(self._deltas is not None)

    def add(self, key: int, conversation: Conversation, sampling: Sampling) -> None:
        self._key, self._deltas = key, self._cut(conversation, sampling)

    def step(self) -> list[tuple[int, Delta]]:
        delta = next(self._deltas, None) if self._deltas else None
        if delta is None or delta.finish_reason:
            self._deltas = None
        return [(self._key, delta)] if delta else []

    def cancel(self, key: int) -> None:
        deltas, self._deltas = self._deltas, None
        close: Any = getattr(deltas, "close", None)
        if close:
            close()

    def _cut(self, conversation: Conversation, sampling: Sampling) -> Iterator[Delta]:
        """The stream up to the first stop text."""
        cut = StopFilter(sampling.stop)
        stream: Any = self._model.stream(conversation, sampling)
        try:
            for delta in stream:
                text = cut.push(delta.text)
                if delta.finish_reason is None:
                    yield Delta(text)
                    continue
                yield Delta(text + cut.flush())
                reason = "stop" if cut.hit else delta.finish_reason
                yield Delta("", reason, delta.prompt_tokens, delta.completion_tokens)
                return
            raise RuntimeError("the model ended its stream without a finish reason")
        finally:
            if hasattr(stream, "close"):
                stream.close()
