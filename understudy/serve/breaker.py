"""A circuit breaker for one event loop: closed, open, half-open with exactly one probe.

The ready-made async breakers let every waiting request through at half-open (50 of 50 in purgatory 0.7.2 and
aiobreaker 1.2.0). Here a caller takes a Permit or goes elsewhere at once; nobody waits, so there is no stampede.
Times are monotonic seconds. No method awaits, so the event loop makes each of them atomic.
"""

from __future__ import annotations

import time
from collections.abc import Callable

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"
LONGEST_WAIT_S = 120.0
"""A Retry-After beyond this is not believed."""


class Permit:
    """Leave for one call. Exactly one of `succeed`, `fail` and `release` counts; later ones do nothing."""

    def __init__(self, breaker: Breaker, generation: int) -> None:
        self._breaker: Breaker | None = breaker
        self._generation = generation

    def succeed(self) -> None:
        """The answer was whole."""
        if breaker := self._take():
            breaker._succeeded()

    def fail(self, retry_after_s: float = 0.0) -> None:
        """The service failed; `retry_after_s` is what it asked for."""
        if breaker := self._take():
            breaker._failed(retry_after_s)

    def release(self) -> None:
        """No verdict: the client went. A probe's place is free for the next request."""
        if breaker := self._take():
            breaker._released()

    def _take(self) -> Breaker | None:
        """The breaker, unless this permit is used up or dates from before the last change of state."""
        breaker, self._breaker = self._breaker, None
        return breaker if breaker and breaker.generation == self._generation else None


class Breaker:
    """Opens after `failures` failed calls in a row; after `cool_down_s` one probe decides."""

    def __init__(
        self, failures: int = 3, cool_down_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.failures, self.cool_down_s, self._clock = failures, cool_down_s, clock
        self.generation = 0
        """Grows with each change of state, so that a verdict on an older state is not taken for one on this."""
        self.opened = 0
        """How often it has opened."""
        self._in_a_row = 0
        self._open_until: float | None = None
        self._probing = False

    @property
    def state(self) -> str:
        if self._open_until is None:
            return CLOSED
        return HALF_OPEN if self._probing or self._clock() >= self._open_until else OPEN

    @property
    def retry_after_s(self) -> float:
        """Seconds until a probe may go; 0 when one may go now."""
        return max(0.0, (self._open_until or 0.0) - self._clock()) if self._open_until is not None else 0.0

    def acquire(self) -> Permit | None:
        """Leave for one call, or None: do not call."""
        if self._open_until is not None:
            if self._probing or self._clock() < self._open_until:
                return None
            self._probing = True
        return Permit(self, self.generation)

    def _succeeded(self) -> None:
        self._in_a_row = 0
        if self._open_until is not None:
            self._open_until, self._probing = None, False
            self.generation += 1

    def _failed(self, retry_after_s: float) -> None:
        self._in_a_row += 1
        if self._open_until is not None or self._in_a_row >= self.failures:
            asked = retry_after_s if 0 <= retry_after_s <= LONGEST_WAIT_S else 0.0  # NaN compares false
            self._open_until = self._clock() + max(self.cool_down_s, asked)
            self._in_a_row, self._probing = 0, False
            self.generation += 1
            self.opened += 1

    def _released(self) -> None:
        self._probing = False
