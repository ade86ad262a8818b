"""Requests and tokens per minute, on a clock that the test moves, and against a real server."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_service import Opened, chat, error, serving

from understudy.config import ServiceConfig
from understudy.models.pace import Pace
from understudy.models.service import ServiceModel


@given(st.lists(st.integers(0, 5000), min_size=2, max_size=60), st.integers(1, 6000), st.integers(100, 10**6))
def test_no_minute_holds_more_requests_or_tokens_than_it_may(sizes: list[int], requests: int, tokens: int) -> None:
    pace = Pace(requests, tokens, clock=lambda: 0.0)
    starts = [pace.wait_s(size) for size in sizes]
    assert starts == sorted(starts)
    for i, begin in enumerate(starts):
        inside = [j for j, at in enumerate(starts) if begin <= at < begin + 60 - 1e-6]
        assert len(inside) <= requests
        # A request larger than what is left of the minute may end it; without the last one the limit holds.
        assert sum(sizes[j] for j in inside if j >= i) - sizes[inside[-1]] <= tokens


def test_what_was_expected_too_high_is_given_back() -> None:
    pace = Pace(None, 600, clock=lambda: 0.0)
    assert pace.wait_s(300) == 0.0
    pace.correct(-290)
    assert pace.wait_s(0) == pytest.approx(1.0)  # ten tokens at ten a second


def test_without_limits_nobody_waits() -> None:
    pace = Pace(None, None)
    assert [pace.wait_s(10**6) for _ in range(1000)] == [0.0] * 1000


@pytest.mark.slow
def test_the_rate_that_a_server_sees_is_the_one_that_was_set(opened: Opened) -> None:
    cfg = ServiceConfig(provider="openai", model="m", requests_per_minute=1200, concurrency=16, timeout_s=1.0)
    with serving(lambda request, before: chat("a")) as (server, url):
        model = opened(ServiceModel(cfg, base_url=url))
        model.ask([[{"role": "user", "content": "first"}]], model.sampling())
        begin = time.monotonic()
        answers = model.ask([[{"role": "user", "content": str(i)}] for i in range(40)], model.sampling())
        took = time.monotonic() - begin
    assert all(not isinstance(a, Exception) for a in answers)  # two seconds of waiting, with a deadline of one
    assert 40 / 20 * 0.95 <= took <= 40 / 20 * 1.25


def test_a_pause_that_the_provider_asks_of_one_request_is_kept_by_all(opened: Opened) -> None:
    times: list[float] = []

    def script(request: object, before: int) -> object:
        times.append(time.monotonic())
        return error(429, retry_after="0.5") if len(times) == 2 else chat("a")

    cfg = ServiceConfig(provider="openai", model="m", concurrency=1)
    with serving(script) as (_, url):  # type: ignore[arg-type]
        model = opened(ServiceModel(cfg, base_url=url))
        model.ask([[{"role": "user", "content": str(i)}] for i in range(4)], model.sampling())
    assert len(times) == 5 and times[2] - times[1] >= 0.5
