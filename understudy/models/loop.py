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
        """The coroutine's value, or what it raised.

        When the waiting thread is interrupted (Ctrl-C), `stop` is called on the loop and the work may come to its end;
        interrupted once more, it is cancelled.
        """
        ended = threading.Event()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            tasks.append(self._loop.create_task(work))
            tasks[0].add_done_callback(lambda _: ended.set())

        self._loop.call_soon_threadsafe(start)
        try:
            ended.wait()
        except BaseException:
            self._loop.call_soon_threadsafe(stop)
            try:
                ended.wait()
            except BaseException:
                self._loop.call_soon_threadsafe(lambda: tasks[0].cancel())
                ended.wait()
            raise
        return tasks[0].result()

    def close(self) -> None:
        """End the thread. Work that is still under way never ends."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
