"""The circuit breaker: opens after failures in a row, lets exactly one probe through, never sticks."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from understudy.serve.breaker import CLOSED, HALF_OPEN, LONGEST_WAIT_S, OPEN, Breaker, Permit

FAILURES, COOL_DOWN = 3, 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Calls(RuleBasedStateMachine):
    """Requests come, finish and are given up in any order while time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker(FAILURES, COOL_DOWN, self.clock)
        self.out: list[Permit] = []
        """Calls on their way, of any age."""
        self.probe: Permit | None = None
        self.stale: dict[int, Permit] = {}  # by id, and held: a permit that is gone leaves its id to another
        self.in_a_row = 0
        self.opened_at: float | None = None

    @rule()
    def arrives(self) -> None:
        permit = self.breaker.acquire()
        cooled = self.opened_at is not None and self.clock.now >= self.opened_at + COOL_DOWN
        allowed = self.opened_at is None or (cooled and self.probe is None)
        assert (permit is not None) == allowed, "closed lets all through, open nobody, half-open one"
        if permit:
            self.out.append(permit)
            if self.opened_at is not None:
                self.probe = permit

    @precondition(lambda self: self.out)
    @rule(data=st.data(), verdict=st.sampled_from(["succeed", "fail", "release"]))
    def ends(self, data: st.DataObject, verdict: str) -> None:
        permit = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        getattr(permit, verdict)()
        # A permit counts once.
        data.draw(st.sampled_from([permit.succeed, permit.fail, permit.release]))()
        if id(permit) in self.stale:
            return
        if permit is self.probe:
            self.probe = None
            if verdict == "succeed":
                self._changed(None)
            elif verdict == "fail":
                self._changed(self.clock.now)
        elif verdict == "succeed":
            self.in_a_row = 0
        elif verdict == "fail":
            self.in_a_row += 1
            if self.in_a_row == FAILURES:
                self._changed(self.clock.now)

    def _changed(self, opened_at: float | None) -> None:
        """Calls that began before a change of state say nothing about the state after it."""
        self.opened_at, self.in_a_row = opened_at, 0
        self.stale |= {id(p): p for p in self.out}

    @rule(seconds=st.sampled_from([0.1, 4.0, COOL_DOWN, 60.0]))
    def passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def says_its_state(self) -> None:
        if self.opened_at is None:
            assert self.breaker.state == CLOSED
        elif self.probe is not None or self.clock.now >= self.opened_at + COOL_DOWN:
            assert self.breaker.state == HALF_OPEN
        else:
            assert self.breaker.state == OPEN and self.breaker.retry_after_s > 0


TestCalls = Calls.TestCase


def test_a_hundred_flaps_open_and_close_a_hundred_times() -> None:
    clock = Clock()
    breaker = Breaker(FAILURES, COOL_DOWN, clock)
    for flap in range(1, 101):
        for _ in range(FAILURES):
            permit = breaker.acquire()
            assert permit
            permit.fail()
        assert (breaker.opened, breaker.state, breaker.acquire()) == (flap, OPEN, None)
        clock.now += COOL_DOWN
        probe = breaker.acquire()
        assert probe and breaker.acquire() is None
        probe.succeed()
        assert breaker.state == CLOSED


def test_a_service_that_asks_for_more_time_gets_it_within_reason() -> None:
    for asked, granted in [(60.0, 60.0), (1.0, COOL_DOWN), (LONGEST_WAIT_S + 1, COOL_DOWN), (float("nan"), COOL_DOWN)]:
        breaker = Breaker(1, COOL_DOWN, Clock())
        permit = breaker.acquire()
        assert permit
        permit.fail(asked)
        assert breaker.retry_after_s == granted
