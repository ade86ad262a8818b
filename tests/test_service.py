"""The service client against real HTTP: retries, deadline, cache, order, counts, and errors that hold no key."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from understudy.config import ServiceConfig
from understudy.config.models import Price
from understudy.core.records import digest
from understudy.errors import ConfigError, IntegrityError, RemoteError
from understudy.models.account import Account
from understudy.models.base import Answer, Sampling
from understudy.models.cache import kept
from understudy.models.providers import resolve_reference
from understudy.models.reply import parse_json
from understudy.models.service import ServiceModel

KEY = "sk-test-0123456789-not-to-be-seen"


@dataclass
class Reply:
    """What the scripted server sends. `cut`: close the socket without a reply; `delay`: seconds of silence before."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False
    drip: float = 0.0


def chat(text: str, finish: Any = "stop", **more: Any) -> Reply:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return Reply(
        {"id": "x", "object": "chat.completion", "model": "served-1", "choices": [choice], "usage": usage} | more
    )


def error(status: int, code: str = "", message: str = "no", **headers: str) -> Reply:
    named = {k.replace("_", "-"): v for k, v in headers.items()}
    return Reply({"error": {"message": message, "type": "t", "code": code, "param": None}}, status, named)


Opened = Callable[[ServiceModel], ServiceModel]
Script = Callable[[dict[str, Any], int], Reply]


class Scripted:
    """A chat completions server whose replies are a function of (request, how often it came before)."""

    def __init__(self, script: Script) -> None:
        self.script, self.hits, self.seen = script, 0, Counter[str]()
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        request = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self.lock:
            self.hits += 1
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
            self.requests.append(request)
            self.keys.add(handler.headers.get("authorization", ""))
            before = self.seen[digest(request)]
            self.seen[digest(request)] += 1
        try:
            self.send(handler, self.script(request, before))
        finally:
            with self.lock:
                self.busy -= 1

    def send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        time.sleep(reply.delay)
        if reply.cut:
            handler.close_connection = True
            return
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        handler.send_response_only(reply.status)  # without a Date of its own
        for name, value in {"content-type": "application/json", **reply.headers}.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        if not reply.drip:
            handler.wfile.write(body)
            return
        for i in range(len(body)):
            handler.wfile.write(body[i : i + 1])
            time.sleep(reply.drip)


@contextmanager
def serving(script: Script) -> Iterator[tuple[Scripted, str]]:
    scripted = Scripted(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each answer waits 40 ms

        def do_POST(self) -> None:
            try:
                scripted.answer(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield scripted, f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def client(url: str, cache: Path | None = None, **settings: Any) -> ServiceModel:
    model = ServiceModel(ServiceConfig(**{"timeout_s": 10.0, **settings}), base_url=url, cache=cache, role="teacher")
    model.backoff_s = 0.01
    OPENED.append(model)
    return model


OPENED: list[ServiceModel] = []


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def conversations(n: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": f"say {i}"}] for i in range(n)]


def echo(request: dict[str, Any], before: int) -> Reply:
    return chat("heard " + request["messages"][-1]["content"])


GREEDY = Sampling(max_new_tokens=16)


# Order, concurrency, counts


def test_answers_come_in_input_order_with_bounded_concurrency() -> None:
    def script(request: dict[str, Any], before: int) -> Reply:
        reply = echo(request, before)
        reply.delay = 0.001 * (int(digest(request, 4), 16) % 20)
        return reply

    with serving(script) as (server, url):
        answers = client(url, concurrency=4).generate(conversations(40), GREEDY)
    assert [a.text for a in answers] == [f"heard say {i}" for i in range(40)]
    assert 2 <= server.most_busy <= 4


def test_equal_requests_of_a_batch_are_sent_once() -> None:
    with serving(echo) as (server, url):
        answers = client(url).generate(conversations(1) * 5, GREEDY)
    assert len(answers) == 5 and server.hits == 1


def test_identity_and_tokens_are_what_the_server_reported() -> None:
    with serving(lambda r, n: chat("a", system_fingerprint="fp_9")) as (_, url):
        model = client(url, model="m-1")
        model.generate(conversations(3), GREEDY)
    assert model.identity == {"model": "m-1", "version": "fp_9", "provider": "simulated"}
    assert model.calls["prompt_tokens"] == 21 and model.calls["completion_tokens"] == 9


# Faults

# A fixed day: test names hold it, and each worker process must give them the same names.
LATER = 2_000_000_000.0


@pytest.mark.parametrize(
    "fault",
    [
        error(429, "rate_limit_exceeded", retry_after="0.05"),
        error(429, retry_after_ms="50"),
        # As a date, from a server whose clock is an hour ahead.
        error(429, retry_after=formatdate(LATER + 1, usegmt=True), date=formatdate(LATER, usegmt=True)),
        error(429, retry_after="junk"),
        error(429, retry_after="-5"),
        error(408),
        error(409),
        error(500),
        error(503, "overloaded"),
        Reply(b"<html>Bad gateway</html>", 502),
        Reply(cut=True),
        Reply({"error": {"message": "boiler out"}}),
        Reply({"choices": []}),
        Reply({"id": "x"}),
        Reply(b"[1]"),
        Reply(b'{"choices": [{"mess'),
        Reply(b"<html>login</html>"),
        chat("half", finish=None),
        chat("half", finish=""),
        Reply({"choices": [{"message": {"role": "assistant", "content": None}, "finish_reason": "stop"}]}),
    ],
    ids=lambda r: f"{r.status}{'cut' if r.cut else ''}-{str(r.body)[:40]}-{r.headers}",
)
def test_a_passing_fault_is_retried(fault: Reply) -> None:
    with serving(lambda r, n: fault if n == 0 else chat("well")) as (server, url):
        model = client(url)
        assert [a.text for a in model.generate(conversations(1), GREEDY)] == ["well"]
    assert server.hits == 2
    assert (model.calls["requests"], model.calls["retries"], model.calls["failed"]) == (2, 1, 0)


def test_retry_after_is_waited_for() -> None:
    with serving(lambda r, n: error(429, retry_after="0.4") if n == 0 else chat("well")) as (_, url):
        started = time.monotonic()
        client(url).generate(conversations(1), GREEDY)
    assert time.monotonic() - started >= 0.4


def test_a_retry_after_beyond_the_deadline_fails_at_once() -> None:
    with serving(lambda r, n: error(429, retry_after="3600")) as (server, url):
        started = time.monotonic()
        (result,) = client(url).ask(conversations(1), GREEDY)
    assert isinstance(result, RemoteError) and result.code == "RATE_LIMITED"
    assert server.hits == 1 and time.monotonic() - started < 2


@pytest.mark.slow
@pytest.mark.parametrize("silence", [Reply(delay=3), Reply(b'{"a":' + b" " * 5000, drip=0.01)], ids=["silent", "drip"])
def test_one_deadline_covers_all_attempts(silence: Reply) -> None:
    with serving(lambda r, n: silence) as (server, url):
        started = time.monotonic()
        (result,) = client(url, timeout_s=1.0).ask(conversations(1), GREEDY)
        took = time.monotonic() - started
    assert isinstance(result, RemoteError) and result.code == "TIMEOUT"
    assert server.hits >= 2 and took < 2.5


def test_attempts_are_bounded() -> None:
    with serving(lambda r, n: error(500)) as (server, url):
        (result,) = client(url, max_attempts=3).ask(conversations(1), GREEDY)
    assert isinstance(result, RemoteError) and result.code == "SERVER_ERROR" and server.hits == 3


def test_no_one_listening_is_a_connection_error() -> None:
    (result,) = client("http://127.0.0.1:9/v1", max_attempts=2).ask(conversations(1), GREEDY)
    assert isinstance(result, RemoteError) and result.code == "CONNECTION" and result.exit_code == 4


def test_with_30_percent_faults_every_answer_arrives_and_the_counts_balance() -> None:
    def script(request: dict[str, Any], before: int) -> Reply:
        draw = int(digest([request, before], 4), 16) % 100
        faults = [error(429, retry_after="0.01"), error(503), Reply(cut=True), chat("x", finish=None)]
        return faults[draw % 4] if draw < 30 else echo(request, before)

    with serving(script) as (server, url):
        model = client(url, max_attempts=12, concurrency=8)
        answers = model.ask(conversations(120), GREEDY)
    assert [a.text for a in answers if isinstance(a, Answer)] == [f"heard say {i}" for i in range(120)]
    assert server.hits > 140
    assert model.calls["requests"] == server.hits == 120 + model.calls["retries"]


def test_a_refused_request_fails_alone_and_is_not_retried() -> None:
    def script(request: dict[str, Any], before: int) -> Reply:
        return (
            error(400, "context_length_exceeded") if request["messages"][0]["content"] == "say 3" else echo(request, 0)
        )

    with serving(script) as (server, url):
        model = client(url)
        results = model.ask(conversations(6), GREEDY)
        bad = results[3]
        assert isinstance(bad, RemoteError) and bad.code == "REQUEST_REFUSED"
        assert sum(isinstance(r, Answer) for r in results) == 5 and server.hits == 6


FILTERED = chat("", finish="content_filter")


@pytest.mark.parametrize(
    ("refusal", "finish"), [(error(400, "context_length_exceeded"), "refused"), (FILTERED, "content_filter")]
)
def test_a_refused_prompt_is_answered_with_nothing_and_the_others_arrive(refusal: Reply, finish: str) -> None:
    def script(request: dict[str, Any], before: int) -> Reply:
        return refusal if request["messages"][0]["content"] in ("say 0", "say 33") else echo(request, before)

    with serving(script) as (_, url):
        model = client(url)
        answers = model.generate(conversations(60), GREEDY)
        alone = model.generate(conversations(34)[33:], GREEDY)  # the last batch of a set may hold one prompt
    assert [a.text for a in answers] == ["" if i in (0, 33) else f"heard say {i}" for i in range(60)]
    assert answers[33].finish_reason == finish == alone[0].finish_reason
    assert model.calls["refused"] == 3


@pytest.mark.parametrize(("asked", "refused"), [(1, 1), (3, 3), (20, 2), (60, 4)])
def test_a_service_that_refuses_too_many_prompts_stops(asked: int, refused: int) -> None:
    def script(request: dict[str, Any], before: int) -> Reply:
        number = int(request["messages"][0]["content"].removeprefix("say "))
        return error(400, "no_such_parameter") if number >= asked - refused else echo(request, before)

    with serving(script) as (_, url), pytest.raises(RemoteError, match=f"REQUEST_REFUSED.*{refused} of {asked} "):
        client(url).generate(conversations(asked), GREEDY)


def test_many_refused_prompts_in_a_row_are_no_outage() -> None:
    def script(request: dict[str, Any], before: int) -> Reply:
        number = int(request["messages"][0]["content"].removeprefix("say "))
        return FILTERED if 100 <= number < 112 else echo(request, before)

    with serving(script) as (_, url):
        answers = client(url, concurrency=1).generate(conversations(300), GREEDY)
    assert [i for i, a in enumerate(answers) if not a.text] == list(range(100, 112))


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (error(401, "invalid_api_key"), "KEY_REFUSED"),
        (error(403), "KEY_REFUSED"),
        (error(404, "model_not_found"), "MODEL_NOT_FOUND"),
        (error(429, "insufficient_quota"), "QUOTA_GONE"),
        (error(402), "QUOTA_GONE"),
    ],
)
def test_what_no_request_can_survive_costs_one_call(fault: Reply, code: str) -> None:
    with serving(lambda r, n: fault) as (server, url), pytest.raises(RemoteError, match=code):
        client(url).ask(conversations(200), GREEDY)
    assert server.hits == 1


def test_an_outage_stops_the_batch() -> None:
    def script(request: dict[str, Any], before: int) -> Reply:
        return echo(request, 0) if request["messages"][0]["content"] == "say 0" else error(503)

    with serving(script) as (server, url), pytest.raises(RemoteError, match="SERVICE_DOWN"):
        client(url, max_attempts=1, concurrency=4).ask(conversations(500), GREEDY)
    assert server.hits < 50


def test_a_model_that_wants_max_completion_tokens_gets_it() -> None:
    def script(request: dict[str, Any], before: int) -> Reply:
        if "max_tokens" in request:
            return error(400, message="Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return echo(request, before)

    with serving(script) as (server, url):
        assert len(client(url).generate(conversations(5), GREEDY)) == 5
    assert server.hits == 6 and server.requests[-1]["max_completion_tokens"] == 16


# Cache


def test_a_rerun_costs_no_call(tmp_path: Path) -> None:
    with serving(echo) as (server, url):
        first = client(url, tmp_path).generate(conversations(10), GREEDY)
        assert server.hits == 10
        again = client(url, tmp_path)
        assert again.generate(conversations(10), GREEDY) == first
        assert server.hits == 10
        assert again.calls["cached"] == 10 and again.calls["requests"] == 0 and again.calls["prompt_tokens"] == 0
        assert again.identity["version"] == "served-1"


def test_after_a_crash_only_what_is_missing_is_asked(tmp_path: Path) -> None:
    def script(request: dict[str, Any], before: int) -> Reply:
        return error(503) if request["messages"][0]["content"] == "say 7" and before == 0 else echo(request, before)

    with serving(script) as (server, url):
        with pytest.raises(RemoteError):
            client(url, tmp_path, concurrency=1, max_attempts=1).generate(conversations(10), GREEDY)
        assert server.hits == 8
        answers = client(url, tmp_path, concurrency=1).generate(conversations(10), GREEDY)
    assert server.hits == 8 + 3 and len(answers) == 10


def test_the_cache_tells_requests_apart(tmp_path: Path) -> None:
    with serving(echo) as (server, url):
        for settings, sampling in [
            ({}, GREEDY),
            ({"model": "other"}, GREEDY),
            ({"wrong_rate": 0.5}, GREEDY),
            ({}, Sampling(max_new_tokens=17)),
            ({}, Sampling(max_new_tokens=16, temperature=1.0)),
            ({}, Sampling(max_new_tokens=16, temperature=1.0, seed=1)),
        ]:
            client(url, tmp_path, **settings).generate(conversations(1), sampling)
    assert server.hits == 6


def test_a_failed_request_is_not_cached(tmp_path: Path) -> None:
    with serving(lambda r, n: error(400)) as (server, url):
        for _ in range(2):
            client(url, tmp_path).ask(conversations(1), GREEDY)
    assert server.hits == 2 and not list(kept(tmp_path))


# Ctrl-C


INTERRUPTED = """
import sys
from pathlib import Path
from test_service import GREEDY, client, conversations
try:
    client(sys.argv[1], Path(sys.argv[2]), concurrency=4).generate(conversations(40), GREEDY)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("times", [1, 2])
def test_after_ctrl_c_what_is_in_flight_is_kept_and_after_a_second_one_it_is_not_waited_for(
    tmp_path: Path, times: int
) -> None:
    def slow(request: dict[str, Any], before: int) -> Reply:
        return Reply(echo(request, before).body, delay=0.0 if server.hits == 1 else 1.0)

    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with serving(slow) as (server, url):
        args = [sys.executable, "-c", INTERRUPTED, url, str(tmp_path)]
        with subprocess.Popen(args, env=env, stdout=subprocess.PIPE, text=True) as child:
            while server.hits < 5:
                time.sleep(0.01)
            for _ in range(times):
                child.send_signal(signal.SIGINT)
                time.sleep(0.1)
            assert child.communicate(timeout=30)[0] == "interrupted\n"
    assert server.hits == 5
    assert len(list(kept(tmp_path))) == (5 if times == 1 else 1)


def test_closing_ends_what_other_threads_wait_for() -> None:
    with serving(lambda r, n: Reply(echo(r, n).body, delay=30.0 if server.hits > 1 else 0.0)) as (server, url):
        model = client(url, timeout_s=60.0, concurrency=4)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(model.generate, conversations(10), GREEDY)
            while server.hits < 3:
                time.sleep(0.01)
            model.close()
            with pytest.raises(RuntimeError, match="closed"):
                waiting.result(timeout=10)


def test_a_stream_that_nobody_ends_holds_up_nobody() -> None:
    events = [b"data: " + json.dumps({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m",
              "choices": [{"index": 0, "delta": {"content": c}, "finish_reason": None}]}).encode() + b"\n\n"
              for c in "abc"]  # fmt: skip
    stream = Reply(b"".join(events), headers={"content-type": "text/event-stream"})
    with serving(lambda r, n: stream if r.get("stream") else echo(r, n)) as (_, url):
        model = client(url)
        left = model.stream(conversations(1)[0], GREEDY)
        assert next(left).text == "a"
        # Collected where it hurts most: on the loop's own thread.
        loop = model._open()
        loop.spawn(_drop([left]))
        del left
        assert model.generate(conversations(1), GREEDY)[0].text == "heard say 0"
        late = model.stream(conversations(1)[0], GREEDY)
        next(late)
        model.close()
        late.close()


async def _drop(held: list[Any]) -> None:
    held.clear()


def test_a_wrong_token_limit_is_told_as_the_endpoint_told_it(tmp_path: Path) -> None:
    """It names the newer field although that was sent; nothing is left to adapt, and no money stays reserved."""
    account = Account(tmp_path / "spending.jsonl", 1.0)
    with serving(lambda r, n: error(400, message="max_completion_tokens is too large, or max_tokens")) as (server, url):
        cfg = ServiceConfig(provider="openai", model="m", price=Price(prompt=1.0, completion=1.0))
        OPENED.append(model := ServiceModel(cfg, base_url=url, account=account))
        (failed,) = model.ask(conversations(1), GREEDY)
        assert isinstance(failed, RemoteError) and "is too large" in failed.what
        assert server.hits == 2
        model.close()
    assert Account(account.file, 1.0).spent == 0


def test_it_is_called_from_threads_and_from_within_a_running_loop() -> None:
    async def notebook(model: ServiceModel) -> list[Answer]:
        return model.generate(conversations(3), GREEDY)

    with serving(echo) as (server, url):
        model = client(url)
        with ThreadPoolExecutor(4) as pool:
            lists = list(pool.map(lambda i: model.generate(conversations(20)[i::4], GREEDY), range(4)))
        assert sorted(a.text for answers in lists for a in answers) == sorted(f"heard say {i}" for i in range(20))
        assert [a.text for a in asyncio.run(notebook(model))] == [f"heard say {i}" for i in range(3)]


# JSON


class Grade(BaseModel):
    grade: int


@pytest.mark.parametrize(
    "text",
    [
        '{"grade": 4}',
        '```json\n{"grade": 4}\n```',
        'Here you are:\n{"grade": 4}\nI hope that helps {smile}.',
        'The form is {"grade": "?"}; mine: {"grade": 4, "extra": [1]}',
        '\ufeff {"grade":\n4}',
    ],
)
def test_json_is_found_in_what_models_wrap_around_it(text: str) -> None:
    assert parse_json(text, Grade.model_validate) == Grade(grade=4)


@pytest.mark.parametrize("text", ["", "no", '{"grade":', '{"grade": "x"}', "[" * 100_000, "{" * 1000])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text, Grade.model_validate)


def test_an_unreadable_reply_is_asked_again_once() -> None:
    def script(request: dict[str, Any], before: int) -> Reply:
        text = request["messages"][-1]["content"]
        if text.startswith("say 1") and "could not be used" not in text:
            return chat("I would rather talk.")
        return chat("never") if text.startswith("say 2") else chat('{"grade": 5}')

    with serving(script) as (server, url):
        results = client(url).ask_json(conversations(4), Grade)
    assert [r if isinstance(r, Grade) else r.code for r in results] == [Grade(grade=5)] * 2 + [
        "BAD_JSON",
        Grade(grade=5),
    ]
    assert server.hits == 4 + 2


def test_replies_that_could_not_be_used_are_asked_again_by_the_next_run(tmp_path: Path) -> None:
    def script(request: dict[str, Any], before: int) -> Reply:
        text = request["messages"][-1]["content"]
        bad = text.startswith("say 1") or (text.startswith("say 2") and "could not be used" not in text)
        return chat("I would rather talk." if bad else '{"grade": 5}')

    with serving(script) as (server, url):
        first = client(url, tmp_path).ask_json(conversations(3), Grade)
        assert isinstance(first[1], RemoteError) and first[1].code == "BAD_JSON"
        assert len(list(kept(tmp_path))) == 3, "neither unusable reply is kept"
        hits, server.script = server.hits, lambda request, before: chat('{"grade": 6}')
        again = client(url, tmp_path).ask_json(conversations(3), Grade)
    assert again == [Grade(grade=5), Grade(grade=6), Grade(grade=5)]
    assert server.hits == hits + 1, "what was of use stays paid"


def test_an_endpoint_that_takes_no_schema_is_asked_without_one_by_every_request_in_flight() -> None:
    """All requests of the first batch go out with a schema at once; none may fail for it."""

    def script(request: dict[str, Any], before: int) -> Reply:
        if "response_format" in request:
            reply = error(400, message="response_format is not supported")
            reply.delay = 0.05
            return reply
        return chat('{"n": 1}')

    with serving(script) as (server, url):
        model = client(url, provider="openai", concurrency=8)
        model.generate(conversations(1), GREEDY)
        found = model.ask_json(
            [[{"role": "user", "content": f"q {i}"}] for i in range(40)], dict, form={"type": "object"}
        )
    assert found == [{"n": 1}] * 40
    assert server.hits <= 1 + 40 + 8


def test_a_refusal_in_a_structured_reply_is_paid_once() -> None:
    message = {"role": "assistant", "content": None, "refusal": "I cannot."}
    body = {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": {}}
    with serving(lambda request, before: Reply(body)) as (server, url):
        (found,) = client(url).ask(conversations(1), GREEDY)
    assert isinstance(found, RemoteError) and found.code == "REPLY_FILTERED" and server.hits == 1


@pytest.mark.parametrize(
    "text", ['["\ud83d!", "\U0001f600"]', json.dumps(["\ud83d!", "\U0001f600"])], ids=["in the reply", "in its JSON"]
)
def test_a_lone_surrogate_of_a_reply_is_replaced(tmp_path: Path, text: str) -> None:
    with serving(lambda r, n: chat(text)) as (server, url):
        for _ in range(2):
            (value,) = client(url, tmp_path).ask_json(conversations(1), list)
            assert value == ["\ufffd!", "\U0001f600"]
    assert server.hits == 1, "the second time from the cache"


def test_a_failed_request_stays_in_its_place_among_the_parsed() -> None:
    def script(request: dict[str, Any], before: int) -> Reply:
        return error(422) if request["messages"][-1]["content"] == "say 1" else chat('{"grade": 5}')

    with serving(script) as (_, url):
        results = client(url).ask_json(conversations(3), lambda value: value["grade"])
    assert results[0] == results[2] == 5
    assert isinstance(results[1], RemoteError) and results[1].code == "REQUEST_REFUSED"


# Streams


def events(*parts: str) -> Reply:
    return Reply("".join(f"data: {p}\n\n" for p in parts).encode(), headers={"content-type": "text/event-stream"})


def delta(text: str, finish: str | None = None) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})


def test_a_stream_joins_to_the_answer_and_ends_with_its_finish_reason() -> None:
    with serving(lambda r, n: events(delta("he"), delta("ard"), delta("", "length"), "[DONE]")) as (_, url):
        pieces = list(client(url).stream(conversations(1)[0], GREEDY))
    assert "".join(p.text for p in pieces) == "heard" and pieces[-1].finish_reason == "length"


@pytest.mark.parametrize(
    "reply",
    [events(delta("he"), "[DONE]"), events(delta("he")), echo({"messages": [{"content": "x"}]}, 0), events()],
    ids=["no finish", "cut", "json instead", "nothing"],
)
def test_a_stream_without_a_finish_reason_is_an_error(reply: Reply) -> None:
    with serving(lambda r, n: reply) as (_, url), pytest.raises(RemoteError, match="STREAM_CUT"):
        list(client(url).stream(conversations(1)[0], GREEDY))


def test_an_error_event_in_a_stream_is_an_error() -> None:
    broken = events(delta("he"), '{"error": {"message": "boom"}}')
    with serving(lambda r, n: broken) as (_, url), pytest.raises(RemoteError, match="UPSTREAM_ERROR"):
        list(client(url).stream(conversations(1)[0], GREEDY))


# Keys


def test_the_key_goes_out_in_the_header_and_nowhere_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    with serving(lambda r, n: error(400, message=f"bad key {KEY}")) as (server, url):
        model = client(url, tmp_path, provider="openai", api_key="${env:TEACHER_KEY}")
        (failed,) = model.ask(conversations(1), GREEDY)
        server.script = echo
        model.generate(conversations(1), GREEDY)
    assert server.keys == {f"Bearer {KEY}"}
    assert isinstance(failed, RemoteError) and "bad key ***" in failed.line()
    assert failed.__cause__ is None and failed.__context__ is None
    assert KEY not in repr(failed) + repr(model) + str(model.identity)
    written = [f.read_text("utf-8") for f in tmp_path.rglob("*") if f.is_file()]
    assert "heard say 0" in "".join(written) and KEY not in "".join(written)


@pytest.mark.parametrize("value", [None, "", "  ", "a\nb", "a\r\nX-Evil: 1", "clé"])
def test_a_missing_or_broken_key_names_the_variable_never_the_value(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("SOME_KEY", value)
    with pytest.raises(ConfigError, match="SOME_KEY") as caught:
        resolve_reference("${env:SOME_KEY}", "teacher.api_key")
    assert caught.value.code == "ENV_MISSING"
    assert not value or len(value) < 3 or value not in caught.value.line()


def test_a_literal_key_is_refused_unseen() -> None:
    with pytest.raises(IntegrityError) as caught:
        resolve_reference(KEY, "teacher.api_key")
    assert caught.value.code == "SECRET_IN_CONFIG" and KEY not in caught.value.line()


def test_who_must_start_the_simulated_service_is_said() -> None:
    with pytest.raises(ConfigError, match="SERVICE_NOT_STARTED"):
        ServiceModel(ServiceConfig())
    with pytest.raises(ConfigError, match="KEY_MISSING"):
        ServiceModel(ServiceConfig(provider="openai"))
