"""The endpoint keeps OpenAI's contract: the official client on a real server, raw requests for what it won't send."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from endpoint import HTTP, NAME, Scripted, Server, ask, full

from understudy.errors import ConfigError, IntegrityError
from understudy.models.base import Conversation, Sampling
from understudy.serve.api import create_app
from understudy.serve.guard import Access
from understudy.serve.server import access_for, check_bind, verify
from understudy.serve.worker import StopFilter


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(Scripted()) as running:
        yield running


def refused(response: httpx2.Response, status: int, code: str, param: str | None = None) -> None:
    """The error has OpenAI's shape, all four fields, a request id, and nothing of the inside."""
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert (error["code"], error["param"]) == (code, param)
    assert response.headers["x-request-id"] and "x-understudy-served-by" not in response.headers
    assert "Traceback" not in response.text and "secret" not in response.text


def test_the_official_client_chats_and_is_told_who_served(server: Server) -> None:
    raw = server.client().chat.completions.with_raw_response.create(**ask("one two three"))
    reply = raw.parse()
    assert raw.headers["x-understudy-served-by"] == reply.model == NAME
    assert raw.headers["x-request-id"]
    choice = reply.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "one two three", "stop")
    usage = reply.usage
    assert usage and (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 3, 6)
    assert reply.object == "chat.completion"


def test_left_out_sampling_is_the_releases_and_given_sampling_is_passed_on(server: Server) -> None:
    client = server.client()
    client.chat.completions.create(**ask())
    assert server.model.asked[-1][1].temperature == 0.0 and server.model.asked[-1][1].max_new_tokens == 61
    client.chat.completions.create(**ask(temperature=0.7, top_p=0.9, seed=11, max_completion_tokens=5, stop=["x"]))
    assert server.model.asked[-1][1] == Sampling(5, 0.7, 0.9, 11, ("x",))


@pytest.mark.parametrize("model", ["understudy", "advisor", "advisor v3"])
def test_it_answers_to_its_names_and_lists_itself(server: Server, model: str) -> None:
    client = server.client()
    assert client.chat.completions.create(**{**ask(), "model": model}).model == NAME
    assert client.models.retrieve(model).id == NAME
    assert [m.id for m in client.models.list()] == [NAME]


def test_a_stream_joins_to_the_answer_and_ends_with_usage_when_asked(server: Server) -> None:
    client = server.client()
    counted = ask("one two three", stream=True, stream_options={"include_usage": True})
    chunks = list(client.chat.completions.create(**counted))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "one two three"
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].choices == [] and chunks[-1].usage and chunks[-1].usage.total_tokens == 6
    assert all(c.usage is None and c.model == NAME for c in chunks[:-1])
    assert all(c.usage is None and c.choices for c in client.chat.completions.create(**ask(stream=True)))
    assert server.post(ask(stream=True)).text.endswith("data: [DONE]\n\n")


def test_every_choice_is_present_with_its_own_seed(server: Server) -> None:
    reply = server.client().chat.completions.create(**ask(n=3, temperature=1.0, seed=5))
    assert [c.index for c in reply.choices] == [0, 1, 2]
    assert [s.seed for _, s in server.model.asked[-3:]] == [5, 6, 7]
    assert reply.usage and (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (3, 9)
    before = len(server.model.asked)
    chunks = list(server.client().chat.completions.create(**ask(n=2, stream=True)))
    ends = [(c.choices[0].index, c.choices[0].finish_reason) for c in chunks if c.choices[0].finish_reason]
    assert ends == [(0, "stop"), (1, "stop")]
    assert len(server.model.asked) == before + 1, "greedy choices are generated once"


def test_stop_strings_straddle_pieces_and_never_show(server: Server) -> None:
    client = server.client()
    reply = client.chat.completions.create(**ask("one two three four", stop=["o th"]))
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("one tw", "stop")
    assert client.chat.completions.create(**ask("one two", stop="one two")).choices[0].message.content == ""
    streamed = client.chat.completions.create(**ask("one two three", stop="e tx", stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == "one two three"


def test_a_stop_filter_gives_the_same_text_however_it_is_cut() -> None:
    text, stops = "aab abab abc aaab", ["abc", "bb"]
    for size in range(1, len(text)):
        cut = StopFilter(stops)
        got = "".join(cut.push(text[i : i + size]) for i in range(0, len(text), size)) + cut.flush()
        assert got == "aab abab "


def test_a_cut_answer_says_length(server: Server) -> None:
    reply = server.client().chat.completions.create(**ask("one two three", max_tokens=2))
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("one two", "length")


def test_the_client_maps_errors_to_its_classes(server: Server) -> None:
    client = server.client()
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(**ask(n=9))
    assert (bad.value.code, bad.value.param, bad.value.type) == ("invalid_value", "n", "invalid_request_error")
    assert bad.value.request_id
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(**{**ask(), "model": "gpt-4"})
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.InternalServerError) as crashed:
        client.chat.completions.create(**ask("crash"))
    assert crashed.value.code == "internal_error" and "srv" not in str(crashed.value)
    with pytest.raises(openai.APIError, match="generation failed"):
        list(client.chat.completions.create(**ask("midcrash", stream=True)))
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(**ask("mute"))
    assert client.chat.completions.create(**ask("still here")).choices[0].message.content == "still here"


MESSAGES = "messages[0]"
USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"n": 0}, "invalid_value", "n"),
        ({"n": -1}, "invalid_value", "n"),
        ({"n": 10**9}, "invalid_value", "n"),
        ({"n": True}, "invalid_type", "n"),
        ({"n": "3"}, "invalid_type", "n"),
        ({"n": 1.5}, "invalid_type", "n"),
        ({"stop": ""}, "invalid_value", "stop"),
        ({"stop": list("abcde")}, "invalid_value", "stop"),
        ({"stop": "x" * 1001}, "invalid_value", "stop"),
        ({"stop": [1]}, "invalid_type", "stop"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": -5}, "invalid_value", "max_tokens"),
        ({"max_tokens": 10**6}, "context_length_exceeded", "max_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "invalid_value", "max_tokens"),
        ({"temperature": 2.1}, "invalid_value", "temperature"),
        ({"temperature": "0"}, "invalid_type", "temperature"),
        ({"temperature": False}, "invalid_type", "temperature"),
        ({"top_p": 0}, "invalid_value", "top_p"),
        ({"seed": 1.0}, "invalid_type", "seed"),
        ({"stream": "true"}, "invalid_type", "stream"),
        ({"stream": 1}, "invalid_type", "stream"),
        ({"stream_options": {"include_usage": True}}, "invalid_value", "stream_options"),
        ({"tools": [{"type": "function"}]}, "unsupported_parameter", "tools"),
        ({"chat_template": "{{ 1 }}"}, "unsupported_parameter", "chat_template"),
        ({"prompt_embeds": "AA"}, "unsupported_parameter", "prompt_embeds"),
        ({"no_such_field": 1}, "unsupported_parameter", "no_such_field"),
        ({"logprobs": True}, "unsupported_parameter", "logprobs"),
        ({"presence_penalty": False}, "unsupported_parameter", "presence_penalty"),
        ({"response_format": {"type": "json_object"}}, "unsupported_parameter", "response_format"),
        ({"model": None}, "missing_required_parameter", "model"),
        ({"model": 3}, "invalid_type", "model"),
        ({"messages": None}, "missing_required_parameter", "messages"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": "hi"}, "invalid_type", "messages"),
        ({"messages": [{}] * 3000}, "invalid_value", "messages"),
        ({"messages": ["hi"]}, "invalid_type", MESSAGES),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "invalid_value", f"{MESSAGES}.role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "unsupported_parameter", f"{MESSAGES}.role"),
        ({"messages": [{"role": "system", "content": "x"}]}, "invalid_value", f"{MESSAGES}.role"),
        ({"messages": [{"role": "user", "content": None}]}, "invalid_type", f"{MESSAGES}.content"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "invalid_value", f"{MESSAGES}.content"),
        ({"messages": [{**USER, "tool_calls": [1]}]}, "unsupported_parameter", f"{MESSAGES}.tool_calls"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "unsupported_parameter",
            f"{MESSAGES}.content[0]",
        ),
        ({"messages": [{"role": "user", "content": "word " * 64}]}, "context_length_exceeded", "messages"),
    ],
)  # fmt: skip
def test_bad_values_are_400_with_the_field(server: Server, change: dict[str, Any], code: str, param: str) -> None:
    refused(server.post({**ask(), **change}), 400, code, param)
    if "stream" not in param:
        refused(server.post({**ask(), "stream": True, **change}), 400, code, param)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        json.dumps(ask()).encode("utf-16"),
        b'{"model": "\xff"}',
        b'{"temperature": NaN}',
        b'{"temperature": 1e999}',
        b'{"seed": ' + b"9" * 5000 + b"}",
        b'{"messages": ' + b"[" * 40_000 + b"]" * 40_000 + b"}",
        b'{"model": "understudy", "model": "advisor"}',
    ],
    ids=["empty", "broken", "array", "number", "utf16", "utf8", "nan", "inf", "digits", "nesting", "twice"],
)
def test_a_body_that_is_not_strict_json_is_400(server: Server, raw: bytes) -> None:
    refused(server.post(raw), 400, "invalid_json")


@pytest.mark.parametrize("model", ["", "gpt-4", "../../etc/passwd", "x" * 10_000])
def test_an_unknown_model_is_404(server: Server, model: str) -> None:
    refused(server.post({**ask(), "model": model}), 404, "model_not_found", "model")


def test_odd_but_lawful_text_is_answered_whole(server: Server) -> None:
    text = "nul\x00 bidi\u202e emoji\U0001f600 <|im_end|>"
    assert server.client().chat.completions.create(**ask(text)).choices[0].message.content == text
    assert server.post({**ask(text), "stream": True}).status_code == 200
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    said = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}]
    reply = {"role": "assistant", "content": "a", "refusal": None, "tool_calls": None}
    replayed = [{"role": "user", "content": "q"}, reply]
    given = {**ask(), "messages": [*replayed, *said], "user": "u", "metadata": {}, "store": False, "n": None}
    assert server.post(given).json()["choices"][0]["message"]["content"] == "one two"
    assert server.model.asked[-1][0][2] == {"role": "system", "content": "be brief"}


def test_other_paths_methods_and_types_are_refused_in_shape(server: Server) -> None:
    refused(server.post(b"{}", {"content-type": "text/plain"}), 415, "unsupported_media_type")
    refused(server.post(b"{}", {"content-type": "application/json; charset=latin-1"}), 415, "unsupported_media_type")
    refused(server.post(b"{}", {"content-encoding": "gzip"}), 415, "unsupported_media_type")
    refused(HTTP.get(f"{server.url}/v1/chat/completions"), 405, "method_not_allowed")
    refused(HTTP.options(f"{server.url}/v1/chat/completions"), 405, "method_not_allowed")
    for path in ("/", "/docs", "/v1/embeddings", "/v1/models/", "/v1//models", "/v1/models/../secret", "/healthz/"):
        response = HTTP.get(server.url + path)
        assert response.status_code == 404 and response.json()["error"]["code"] in ("not_found", "model_not_found")
    assert server.post(ask(), {"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert server.post(ask(), {"x-request-id": "a b"}).headers["x-request-id"].startswith("req_")


def test_a_large_body_is_refused_before_it_is_read(server: Server) -> None:
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as s:
        s.sendall((head + "Content-Length: 100001\r\n\r\n").encode())
        assert s.recv(4096).startswith(b"HTTP/1.1 413")

    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 5000

    chunked = HTTP.post(
        f"{server.url}/v1/chat/completions", content=pieces(), headers={"content-type": "application/json"}
    )
    refused(chunked, 413, "request_too_large")


def test_a_browser_page_cannot_use_the_server(server: Server) -> None:
    for host in ("evil.example", "localhost.evil.example", "localhost@evil.example", "", "127.0.0.1:80:80"):
        refused(server.post(ask(), {"host": host}), 421, "host_not_allowed")
    for host in ("localhost", "127.0.0.1:9", "[::1]:9", "LOCALHOST:1"):
        assert server.post(ask(), {"host": host}).status_code == 200
    for origin in ("https://evil.example", "null", "http://localhost:1", "http://["):
        refused(server.post(ask(), {"origin": origin}), 403, "origin_not_allowed")
        refused(HTTP.get(f"{server.url}/v1/models", headers={"origin": origin}), 403, "origin_not_allowed")
    assert server.post(ask(), {"origin": server.url}).status_code == 200


def test_a_client_that_leaves_stops_its_generation(server: Server) -> None:
    for stream in (True, False):
        model = server.model
        model.given, model.stopped = 0, threading.Event()
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as s:
            body = json.dumps(ask("slow 900", stream=stream)).encode()
            head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            s.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            while model.given < 3:
                time.sleep(0.01)
        assert model.stopped.wait(5) and model.given < 800


@pytest.mark.slow
def test_the_event_loop_answers_while_the_model_works_and_a_full_queue_is_503() -> None:
    with Server(Scripted(), queue_size=1) as busy:
        with full(busy) as results:
            response = busy.post(ask())
            refused(response, 503, "overloaded")
            assert int(response.headers["retry-after"]) > 0
        assert [r.status_code for r in results] == [200, 200]


@pytest.mark.slow
def test_a_key_is_demanded_everywhere_but_health() -> None:
    with Server(Scripted(), access=Access(api_key="k-right")) as locked:
        for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic k-right"}):
            refused(locked.post(ask(), given), 401, "invalid_api_key")
            for path in ("/v1/models", "/v1/models/advisor", "/nowhere", "//healthz", "/healthz/"):
                refused(HTTP.get(locked.url + path, headers=given), 401, "invalid_api_key")
        twice = [("authorization", "Bearer k-right"), ("authorization", "Bearer k-right")]
        refused(HTTP.get(f"{locked.url}/v1/models", headers=twice), 401, "invalid_api_key")
        refused(HTTP.get(f"{locked.url}/v1/models?api_key=k-right"), 401, "invalid_api_key")
        assert locked.post(ask(), {"authorization": "Bearer k-right"}).status_code == 200
        assert locked.health()["status"] == "ok"
    with Server(Scripted(), access=Access(api_key="ключ")) as named:
        assert HTTP.get(f"{named.url}/v1/models", headers={"authorization": "Bearer ключ".encode()}).status_code == 200


def test_a_wide_bind_needs_a_key() -> None:
    with pytest.raises(ConfigError, match="UNDERSTUDY_API_KEY"):
        check_bind("0.0.0.0", None)
    check_bind("0.0.0.0", "k")
    check_bind("127.0.0.1", None)
    assert access_for("0.0.0.0", "k") == Access(None, "k")
    assert "localhost" in access_for("127.0.0.2", None).hosts and "127.0.0.2" in access_for("127.0.0.2", None).hosts


def test_what_is_served_is_what_was_registered(tmp_path: Path) -> None:
    from understudy.evals.release import write_release

    (tmp_path / "c" / "model").mkdir(parents=True)
    (tmp_path / "c" / "model" / "weights").write_bytes(b"w" * 100)
    verdict = {"passed": True, "metric": "coverage", "confidence": 0.95, "control": None, "rules": [], "held": {}}
    folder = tmp_path / "release"
    write_release(folder, checkpoint=tmp_path / "c", verdict=verdict, card={"name": "advisor"})
    assert verify(folder)["name"] == "advisor"
    (folder / "model" / "extra.py").write_text("")
    with pytest.raises(IntegrityError, match=r"extra\.py"):
        verify(folder)
    (folder / "model" / "extra.py").unlink()
    (folder / "model" / "weights").write_bytes(b"w" * 99 + b"v")
    with pytest.raises(IntegrityError, match="is not the registered"):
        verify(folder)


PROGRAM = """
import time
from understudy.models.base import Delta
from understudy.serve.api import Limits, Understudy, create_app
from understudy.serve.server import run_app

class Slow:
    def stream(self, conversation, sampling):
        for _ in range(60):
            yield Delta("word ")
            time.sleep(0.01)
        yield Delta("", "stop", 1, 60)

run_app(create_app(Understudy(Slow(), "advisor v3", 64)), "127.0.0.1", 0,
        announce=lambda url: print(url, flush=True))
"""


def test_sigterm_lets_a_running_answer_finish() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        client = openai.OpenAI(base_url=url, api_key="x", max_retries=0, http_client=HTTP)
        stream = iter(client.chat.completions.create(**ask(stream=True)))
        next(stream)
        process.send_signal(signal.SIGTERM)
        assert [c.choices[0].finish_reason for c in stream][-1] == "stop"
        assert process.wait(20) in (0, -signal.SIGTERM)


@pytest.mark.slow
def test_a_release_of_the_tiny_base_is_served_as_the_model_answers(tmp_path: Path) -> None:
    from understudy.evals.release import write_release
    from understudy.models.local import LocalModel
    from understudy.models.tiny import BASE_DIR
    from understudy.serve.server import load

    (tmp_path / "c").mkdir()
    shutil.copytree(BASE_DIR, tmp_path / "c" / "model")
    verdict = {"passed": True, "metric": "loss", "confidence": 0.95, "control": None, "rules": [], "held": {}}
    decoding = {"max_new_tokens": 12, "temperature": 0.0, "top_p": 1.0}
    folder = tmp_path / "release"
    write_release(folder, checkpoint=tmp_path / "c", verdict=verdict, card={"name": "tiny", "decoding": decoding})
    question: Conversation = [{"role": "user", "content": "Where is the lecture on algebra?"}]
    expected = LocalModel(folder / "model").generate([question], Sampling(max_new_tokens=12))[0]
    with Server(None, app=create_app(load(folder, served_by=NAME))) as running:
        client = running.client()
        reply = client.chat.completions.create(**{**ask(), "messages": question})
        streamed = client.chat.completions.create(**{**ask(), "messages": question}, stream=True)
        assert reply.choices[0].message.content == expected.text
        assert "".join(c.choices[0].delta.content or "" for c in streamed) == expected.text
        assert reply.choices[0].finish_reason == expected.finish_reason
        assert reply.usage and reply.usage.prompt_tokens == expected.prompt_tokens
        assert reply.usage.completion_tokens == expected.completion_tokens
        refused(running.post(ask("word " * 20_000)), 400, "context_length_exceeded", "messages")
