"""Requests and tokens per minute: each request is given its place in time before it is sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

MINUTE = 60.0


class Pace:
    """Thread-safe. Requests start evenly spaced, so that no window of a provider, however short, sees a burst."""

    def __init__(
        self, requests: float | None, tokens: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._per_request = MINUTE / requests if requests else 0.0
        self._per_token = MINUTE / tokens if tokens else 0.0
        self._next_request = self._next_token = 0.0
        self._lock = threading.Lock()

    def wait_s(self, tokens: int) -> float:
        """Seconds until a request of so many tokens may start; its place is taken."""
        with self._lock:
            now = self._clock()
            start = max(now, self._next_request, self._next_token)
            self._next_request = start + self._per_request
            self._next_token = start + tokens * self._per_token
            return start - now

    def correct(self, tokens: int) -> None:
        """The last request took so many tokens more (or fewer, below 0) than was thought."""
        with self._lock:
            self._next_token += tokens * self._per_token

    def hold(self, seconds: float) -> None:
        """Nobody starts before that: what a provider asks of one request it means for all."""
        with self._lock:
            until = self._clock() + seconds
            self._next_request = max(self._next_request, until)
