"""Questions about a context, probes and metrics of the endpoint, over real HTTP."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from endpoint import HTTP, NAME, Scripted, Server, ask, full
from prometheus_client.parser import text_string_to_metric_families
from test_serve import refused

from understudy.models.base import Delta, Sampling
from understudy.serve.guard import Access
from understudy.serve.worker import Job, Outbox, Piece


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(Scripted()) as running:
        yield running


def question(server: Server, accept: str = "application/json", **body: Any) -> httpx2.Response:
    return HTTP.post(f"{server.url}/v1/ask", json=body, headers={"accept": accept})


def test_a_question_is_asked_as_the_model_was_trained_and_answered_in_few_words(server: Server) -> None:
    reply = question(server, question="Who?", context=" Ada teaches. ", max_tokens=3)
    assert reply.status_code == 200 and reply.headers["x-understudy-served-by"] == NAME
    told = reply.json()
    assert told["object"] == "answer" and told["model"] == NAME and told["answer"] == "Ada teaches.\n\nQuestion: Who?"
    assert told["usage"]["total_tokens"] > 0 and told["id"] == f"answer-{reply.headers['x-request-id']}"
    assert server.model.asked[-1][0] == [{"role": "user", "content": "Ada teaches.\n\nQuestion: Who?"}]
    assert server.model.asked[-1][1].max_new_tokens == 3
    assert question(server, question="Who?").json()["answer"] == "Who?"


def test_who_accepts_only_text_gets_only_text(server: Server) -> None:
    reply = question(server, "text/plain", question="who is it", context="\n")
    assert (reply.text, reply.headers["content-type"]) == ("who is it", "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_required_parameter", "question"),
        ({"question": "  "}, "missing_required_parameter", "question"),
        ({"question": 3}, "invalid_type", "question"),
        ({"question": "a", "context": ["b"]}, "invalid_type", "context"),
        ({"question": "a", "stream": True}, "unsupported_parameter", "stream"),
        ({"question": "a", "n": 2}, "unsupported_parameter", "n"),
        ({"question": "a", "messages": []}, "unsupported_parameter", "messages"),
        ({"question": "a", "temperature": 3}, "invalid_value", "temperature"),
        ({"question": "a", "context": "word " * 70}, "context_length_exceeded", "messages"),
    ],
)
def test_bad_questions_are_400_with_the_field(server: Server, body: Any, code: str, param: str) -> None:
    refused(question(server, **body), 400, code, param)


def test_an_unknown_model_is_404(server: Server) -> None:
    refused(question(server, question="a", model="other"), 404, "model_not_found", "model")


def values(server: Server, **headers: str) -> dict[tuple[str, ...], float]:
    reply = HTTP.get(f"{server.url}/metrics", headers=headers)
    assert reply.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(reply.text)
    return {(s.name, *(s.labels[k] for k in sorted(s.labels))): s.value for family in families for s in family.samples}


def test_metrics_count_requests_tokens_times_and_hold_no_text() -> None:
    with Server(Scripted()) as fresh:
        for _ in range(3):
            fresh.post(ask("one two three"))
        fresh.post(ask("crash"))
        fresh.post(ask(temperature=9))
        found = values(fresh)
        assert found["understudy_requests_total", "", "understudy", "200"] == 3
        assert found["understudy_requests_total", "internal_error", "understudy", "500"] == 1
        assert found["understudy_requests_total", "invalid_value", "", "400"] == 1
        assert found["understudy_tokens_total", "completion", "understudy"] == 9
        assert found["understudy_request_seconds_count", "understudy"] == 4
        assert found["understudy_first_token_seconds_count", "understudy"] == 3
        assert found["understudy_waiting",] == 0 and found["understudy_failures",] == 1
        assert "one two" not in HTTP.get(f"{fresh.url}/metrics").text


def test_probes_need_no_key_and_metrics_do() -> None:
    with Server(Scripted(), access=Access(api_key="k")) as locked:
        assert HTTP.get(f"{locked.url}/healthz").json()["status"] == "ok"
        assert HTTP.get(f"{locked.url}/readyz").json() == {"status": "ready"}
        refused(HTTP.get(f"{locked.url}/metrics"), 401, "invalid_api_key")
        refused(question(locked, question="a"), 401, "invalid_api_key")
        assert ("understudy_waiting",) in values(locked, authorization="Bearer k")


def test_it_is_not_ready_while_it_would_refuse_the_next_request() -> None:
    with Server(Scripted(), queue_size=1) as busy:
        with full(busy):
            refused(HTTP.get(f"{busy.url}/readyz"), 503, "overloaded")
            assert busy.health()["status"] == "ok"
        assert HTTP.get(f"{busy.url}/readyz").status_code == 200


def test_who_leaves_in_the_middle_of_an_answer_is_forgotten() -> None:
    async def left() -> weakref.ref[Job]:
        job, out = Job([], [Sampling()]), Outbox()
        out.put(job, Piece(0, Delta("a")))
        out.flush(now=True)
        await asyncio.sleep(0.01)
        outboxes.append(out)
        return weakref.ref(job)

    outboxes: list[Outbox] = []
    gone = asyncio.run(left())
    gc.collect()
    assert gone() is None and outboxes
