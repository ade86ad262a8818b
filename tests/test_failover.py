"""Service first, understudy on failure: real upstreams that break, the official client in front, a ledger of both."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from typing import Any

import httpx2
import openai
import pytest
from endpoint import NAME, SSE, Scripted, Server, Wire, ask, chunk, reset

from understudy.config import FailoverConfig, ServiceConfig
from understudy.models.simulated import SimulatedService
from understudy.models.simulated.faults import Faults
from understudy.serve.upstream import Upstream

MODEL = "simulated-1"
PATIENT = 1000
"""Failures that keep the breaker closed, where each request must meet the fault itself."""
SHORT_S = 0.3
"""A budget that a hanging service is to exceed; everywhere else a busy machine must not."""


def front(url: str, **budget: Any) -> Server:
    """The endpoint before the service at `url`."""
    times: dict[str, Any] = {"connect_s": 60.0, "first_token_s": 60.0, "gap_s": 60.0, "failures": PATIENT}
    cfg = ServiceConfig(provider="openai", model=MODEL, base_url=url)
    return Server(Scripted(), upstream=Upstream(cfg, FailoverConfig(**{**times, **budget})))


def served(server: Server, text: str, stream: bool) -> tuple[str, str, str]:
    """One request by the official client: the answer's text, its model, and why the service did not serve."""
    create = server.client().chat.completions.with_raw_response.create
    raw = create(**ask(text, stream=stream))
    by = raw.headers.get("x-understudy-failover", "")
    if not stream:
        reply = raw.parse()
        assert reply.choices[0].finish_reason == "stop"
        return reply.choices[0].message.content or "", reply.model, by
    chunks = list(raw.parse())
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices), chunks[0].model, by


def say(*parts: bytes, then: Callable[[socket.socket], None] | None = None) -> Callable[[socket.socket], None]:
    """Send an event stream of `parts`, then do something to the connection."""

    def script(connection: socket.socket) -> None:
        connection.sendall(SSE + b"".join(parts))
        if then:
            then(connection)

    return script


def http(status: str, body: bytes, kind: str = "application/json") -> Callable[[socket.socket], None]:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return lambda connection: connection.sendall(head.encode() + body)


def hang(connection: socket.socket) -> None:
    """Keep the connection open without a byte, until the other side leaves."""
    connection.settimeout(10)
    connection.recv(1)


ROLE = b'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}\n\n'
ERROR = b'{"error": {"message": "boom", "type": "server_error", "code": null}}'
DONE = b"data: [DONE]\n\n"
PINGS = b": ping\n\n" * 3

BEFORE: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "reset": (reset, "reset"),
    "closed": (lambda connection: None, "reset"),
    "hung headers": (hang, "slow_first_token"),
    "hung body": (say(PINGS, ROLE, then=hang), "slow_first_token"),
    "429": (http("429 Too Many Requests", ERROR), "rate_limited"),
    "500": (http("500 Internal Server Error", ERROR), "server_error"),
    "503 page": (http("503 Service Unavailable", b"<html>", "text/html"), "server_error"),
    "our key refused": (http("401 Unauthorized", ERROR), "key_refused"),
    "redirect": (http("302 Found", b""), "bad_reply"),
    "200 with an error": (http("200 OK", ERROR), "bad_reply"),
    "200 with a page": (http("200 OK", b"<html>", "text/html"), "bad_reply"),
    "error event": (say(b"data: " + ERROR + b"\n\n"), "server_error"),
    "malformed event": (say(ROLE, b'data: {"choices": [\n\n'), "bad_reply"),
    "a foreign choice": (say(b'data: {"choices": [{"index": 7, "delta": {"content": "x"}}]}\n\n'), "bad_reply"),
    "unknown finish": (say(chunk(None, "error")), "bad_reply"),
    "cut by reset": (say(ROLE, then=reset), "reset"),
    "clean early end": (say(ROLE), "cut"),
    "done without finish": (say(ROLE, DONE), "cut"),
    "bad gzip": (http("200 OK\r\ncontent-encoding: gzip", b"no gzip", "text/event-stream"), "bad_reply"),
}


@pytest.fixture(scope="module")
def broken() -> Iterator[tuple[Wire, Server]]:
    """An upstream whose script each test sets, and the endpoint before it."""
    with Wire(reset) as upstream, front(upstream.url) as server:
        yield upstream, server


@pytest.mark.parametrize("name", [name for name in BEFORE if "hung" not in name])
def test_a_fault_before_the_first_token_is_answered_by_the_understudy(name: str, broken: tuple[Wire, Server]) -> None:
    upstream, server = broken
    upstream.script, reason = BEFORE[name]
    before = upstream.requests
    with ThreadPoolExecutor(6) as pool:
        work = [pool.submit(served, server, f"hello {i}", bool(i % 2)) for i in range(6)]
        assert [w.result() for w in work] == [(f"hello {i}", NAME, reason) for i in range(6)]
    assert upstream.requests - before <= 6, "no request was sent to the service twice"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BEFORE if "hung" in name])
def test_a_service_that_hangs_is_given_its_time_and_no_more(name: str) -> None:
    script, reason = BEFORE[name]
    with Wire(script) as upstream, front(upstream.url, first_token_s=SHORT_S) as server:
        assert [served(server, "hello", s) for s in (True, False)] == [("hello", NAME, reason)] * 2


@pytest.mark.parametrize(
    "url, reason", [("http://127.0.0.1:1/v1", "refused"), ("http://no-such-host.invalid/v1", "dns")]
)
def test_a_service_that_cannot_be_reached_is_answered_by_the_understudy(url: str, reason: str) -> None:
    with front(url) as server:
        assert [served(server, "hello", stream) for stream in (True, False)] == [("hello", NAME, reason)] * 2


def test_a_broken_tls_handshake_is_answered_by_the_understudy() -> None:
    def no_tls(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with Wire(no_tls, reads=False) as plain, front(plain.url.replace("http:", "https:")) as server:
        assert served(server, "hello", True) == ("hello", NAME, "tls")


AFTER: dict[str, Callable[[socket.socket], None]] = {
    "reset": say(chunk("one "), then=reset),
    "clean end": say(chunk("one ")),
    "done without finish": say(chunk("one "), DONE),
    "error event": say(chunk("one "), b"data: " + ERROR + b"\n\n"),
    "malformed": say(chunk("one "), b"data: {\n\n"),
    "stall": say(chunk("one "), then=hang),
}


@pytest.mark.parametrize("name", [name for name in AFTER if name != "stall"])
def test_a_stream_lost_after_its_first_token_ends_with_one_honest_error(name: str, broken: tuple[Wire, Server]) -> None:
    broken[0].script = AFTER[name]
    lost(broken[1])


def test_a_stream_that_stalls_after_its_first_token_ends_with_one_honest_error() -> None:
    with Wire(AFTER["stall"]) as upstream, front(upstream.url, gap_s=SHORT_S) as server:
        lost(server)


def lost(server: Server) -> None:
    events = server.post(ask("hello", stream=True)).text.strip().split("\n\n")
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "upstream_lost"
    assert "[DONE]" not in "".join(events)
    assert [json.loads(e[6:])["model"] for e in events[:-1]] == [MODEL] * 2, "role and the first word"
    with pytest.raises(openai.APIError) as caught:
        list(server.client().chat.completions.create(**ask("hello", stream=True)))
    assert caught.value.code == "upstream_lost"
    assert served(server, "hello", False)[:2] == ("hello", NAME), "one body is whole or not sent at all"


@pytest.mark.slow
def test_a_whole_answer_counts_even_if_its_usage_or_end_is_lost() -> None:
    for script in (say(chunk("fine"), chunk(None, "stop"), then=reset), say(chunk("fine", "stop"), then=hang)):
        with Wire(script) as upstream, front(upstream.url) as server:
            assert [served(server, "hello", s) for s in (True, False)] == [("fine", MODEL, "")] * 2
            assert server.client().chat.completions.create(**ask()).usage is None, "nobody invents counts"


@pytest.mark.parametrize(
    "usage", ['{"prompt_tokens": 5}', '{"prompt_tokens": Infinity, "completion_tokens": -1}', "[5]"]
)
def test_counts_that_are_none_cost_no_answer(usage: str) -> None:
    event = f'data: {{"choices": [], "usage": {usage}}}\n\n'.encode()
    with Wire(say(chunk("fine"), chunk(None, "stop"), event, then=reset)) as upstream, front(upstream.url) as server:
        assert [served(server, "hello", s) for s in (True, False)] == [("fine", MODEL, "")] * 2


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[SimulatedService, Server]]:
    with SimulatedService() as service, front(service.base_url, failures=3) as server:
        yield service, server


def test_a_healthy_service_answers_and_is_named(pair: tuple[SimulatedService, Server]) -> None:
    service, server = pair
    for stream in (False, True):
        text, model, reason = served(server, "Who are you?", stream)
        assert text and (model, reason) == (MODEL, "")
    raw = server.post(ask())
    assert raw.headers["x-understudy-served-by"] == raw.json()["model"] == MODEL
    reply = server.client().chat.completions.create(**ask("one two", n=2, max_tokens=1, temperature=0.3))
    assert [c.index for c in reply.choices] == [0, 1] and reply.usage and reply.usage.completion_tokens == 2
    sent = service.requests[-1]
    assert (sent["model"], sent["n"], sent["max_tokens"], sent["temperature"]) == (MODEL, 2, 1, 0.3)
    assert sent["stream"] is True and "metadata" not in sent
    assert [m.id for m in server.client().models.list()] == [NAME, MODEL]
    assert server.client().models.retrieve(MODEL).id == MODEL


def test_who_names_a_version_of_the_understudy_gets_it(pair: tuple[SimulatedService, Server]) -> None:
    service, server = pair
    before = service.ledger.requests
    reply = server.client().chat.completions.create(**{**ask("hello"), "model": NAME})
    assert (reply.model, reply.choices[0].message.content) == (NAME, "hello")
    assert service.ledger.requests == before


def test_a_request_that_the_service_finds_wrong_is_passed_on_and_no_failure() -> None:
    wrong = b'{"error": {"message": "too hot", "type": "invalid_request_error", "param": "temperature", "code": "hot"}}'
    with Wire(http("400 Bad Request", wrong)) as upstream, front(upstream.url, failures=1) as server:
        for stream in (False, True, False):
            with pytest.raises(openai.BadRequestError, match="too hot") as caught:
                server.client().chat.completions.create(**ask(stream=stream))
            assert (caught.value.code, caught.value.param) == ("hot", "temperature")
        assert upstream.requests == 3 and server.health()["service"]["breaker"] == "closed"


def test_a_model_with_the_newer_name_of_the_limit_is_asked_again_with_it() -> None:
    seen: list[bytes] = []
    refusal = b'{"error": {"message": "use max_completion_tokens", "param": "max_tokens", "code": "unsupported"}}'

    def script(connection: socket.socket) -> None:
        seen.append(b"")
        (http("400 Bad Request", refusal) if len(seen) == 1 else say(chunk("fine", "stop"), DONE))(connection)

    with Wire(script) as upstream, front(upstream.url) as server:
        assert served(server, "hello", False)[0] == served(server, "hello", True)[0] == "fine"
        assert upstream.requests == 3


def test_neither_side_can_answer_is_said_honestly_and_not_to_be_repeated() -> None:
    with front("http://127.0.0.1:1/v1") as server:
        reply = server.post(ask("word " * 100))
        assert reply.status_code == 503 and reply.json()["error"]["code"] == "upstream_unavailable"
        assert reply.headers["x-should-retry"] == "false" and int(reply.headers["retry-after"]) >= 1
        assert "x-understudy-served-by" not in reply.headers


def test_the_async_client_is_served_by_both_sides() -> None:
    async def both(url: str) -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
            replies = [await client.chat.completions.create(**ask("hello"))]
            stream = await client.chat.completions.create(**ask("hello", stream=True))
            return [replies[0].model, (await anext(aiter(stream))).model]

    with SimulatedService() as service, front(service.base_url) as server:
        assert asyncio.run(both(server.url)) == [MODEL, MODEL]
        service.faults = Faults(outage=True)
        assert asyncio.run(both(server.url)) == [NAME, NAME]


def test_fifty_requests_at_half_open_reach_the_service_once() -> None:
    well = threading.Event()

    def script(connection: socket.socket) -> None:
        if upstream.requests <= 2:
            http("503 Service Unavailable", ERROR)(connection)
        else:
            well.wait(250)
            say(chunk("fine", "stop"), DONE)(connection)

    with Wire(script) as upstream, ExitStack() as stack:
        patient = {"first_token_s": 250.0, "gap_s": 250.0, "deadline_s": 250.0}
        server = stack.enter_context(front(upstream.url, failures=2, cool_down_s=0.2, **patient))
        pool = stack.enter_context(ThreadPoolExecutor(50))
        for _ in range(4):
            assert served(server, "hello", False)[:2] == ("hello", NAME)
        assert upstream.requests == 2, "open after two failures in a row: the service is left alone"
        while server.health()["service"]["breaker"] != "half_open":
            time.sleep(0.02)
        work = [pool.submit(served, server, f"q {i}", False) for i in range(50)]
        done = [w.result()[1] for _, w in zip(range(49), as_completed(work), strict=False)]
        assert done == [NAME] * 49 and upstream.requests == 3, "one probe; nobody else waits for it"
        well.set()
        assert sum(w.result()[1] == MODEL for w in work) == 1
        assert served(server, "after", False)[1] == MODEL, "the probe succeeded: the service is first again"


def test_a_client_that_goes_away_frees_the_service_and_the_probe() -> None:
    gone = threading.Event()

    def endless(connection: socket.socket) -> None:
        connection.sendall(SSE)
        try:
            while True:
                connection.sendall(chunk("word "))
                time.sleep(0.005)
        except OSError:
            gone.set()

    with Wire(endless) as upstream, front(upstream.url, failures=1) as server:
        with httpx2.Client(timeout=10) as client:
            body = json.dumps(ask("hello", stream=True)).encode()
            given = {"content-type": "application/json"}
            with client.stream("POST", f"{server.url}/v1/chat/completions", content=body, headers=given) as reply:
                next(reply.iter_bytes())
        assert gone.wait(20), "the service went on writing for nobody"
        assert server.health()["service"] == {"model": MODEL, "breaker": "closed", "opened": 0}


def test_nothing_is_lost_while_the_service_misbehaves_in_every_way() -> None:
    faults = Faults(rate_429=0.2, rate_500=0.2, rate_cut=0.2, rate_silence=0.1, silence_s=0.1)
    with ExitStack() as stack:
        service = stack.enter_context(SimulatedService(faults=faults))
        server = stack.enter_context(front(service.base_url, failures=3, cool_down_s=0.05))
        pool = stack.enter_context(ThreadPoolExecutor(16))

        def one(i: int) -> str:
            try:
                return served(server, f"question number {i}", bool(i % 2))[1]
            except openai.APIError as e:
                return str(e.code)

        ends = [w.result() for w in [pool.submit(one, i) for i in range(120)]]
    counted = {end: ends.count(end) for end in set(ends)}
    assert set(counted) <= {MODEL, NAME, "upstream_lost"} and sum(counted.values()) == 120
    assert counted[MODEL] and counted[NAME], "both sides worked"
    assert service.ledger.balanced
    assert counted.get("upstream_lost", 0) <= service.ledger.faults["cut"]
