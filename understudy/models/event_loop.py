"""One event loop in a thread of its own, so that code without async can have many requests in flight.

Requests that share one thread take the interpreter from nobody: with a thread each, 32 at once were a quarter slower.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class EventLoop:
    """Runs coroutines for any number of threads, also ones that have a running loop (notebooks)."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="service", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], stop: Callable[[], None] = lambda: None) -> T:
        """The coroutine's value, or what it raised. Raises RuntimeError when the loop is closed meanwhile.

        When the waiting thread is interrupted (Ctrl-C), `stop` is called on the loop and the work may come to its end;
        interrupted once more, it is cancelled.
        """
        ended = threading.Event()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            if not tasks:
                tasks.append(self._loop.create_task(work))
                tasks[0].add_done_callback(lambda _: ended.set())

        try:
            self._loop.call_soon_threadsafe(start)
            ended.wait()
        except BaseException:
            # The interrupt may have come before the first call reached the loop.
            self._loop.call_soon_threadsafe(start)
            self._loop.call_soon_threadsafe(stop)
            try:
                ended.wait()
            except BaseException:
                self._loop.call_soon_threadsafe(lambda: tasks[0].cancel())
                ended.wait()
            if not tasks[0].cancelled():
                tasks[0].exception()  # looked at, so that asyncio prints nothing of it
            raise
        if tasks[0].cancelled():
            raise RuntimeError("closed while requests were in flight")
        return tasks[0].result()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run without waiting, from whatever thread; what it raises is nobody's. Does nothing when closed."""

        def start() -> None:
            self._loop.create_task(work).add_done_callback(lambda task: task.cancelled() or task.exception())

        try:
            self._loop.call_soon_threadsafe(start)
        except RuntimeError:
            work.close()

    def close_after(self, last: Coroutine[Any, Any, Any]) -> None:
        """Cancel what is under way, run `last`, and end the thread."""
        asyncio.run_coroutine_threadsafe(_end_all(), self._loop).result()
        self.run(last)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _end_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
