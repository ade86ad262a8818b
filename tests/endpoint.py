"""What tests of serving share: a scripted Model, a real uvicorn around it, and an upstream that breaks on the wire."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx2
import openai
import uvicorn

from understudy.models.base import Answer, Conversation, Delta, Sampling
from understudy.serve.api import Limits, Understudy, create_app
from understudy.serve.server import listen

CONTEXT = 64
# One client: each builds a TLS context, which costs more than all its requests here.
HTTP = httpx2.Client(timeout=250, trust_env=False)
NAME = "advisor v3"


class Scripted:
    """Says the last user message back, word by word; a word is a token. crash, mute, midcrash, slow N are commands."""

    def __init__(self) -> None:
        self.asked: list[tuple[Conversation, Sampling]] = []
        self.gate = threading.Event()
        self.given = 0
        self.stopped = threading.Event()

    @property
    def identity(self) -> dict[str, str]:
        return {"model": "scripted"}

    def prompt_tokens(self, conversation: Conversation) -> int:
        return sum(len(m["content"].split()) for m in conversation)

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        raise NotImplementedError

    def stream(self, conversation: Conversation, sampling: Sampling) -> Iterator[Delta]:
        self.asked.append((conversation, sampling))
        text = conversation[-1]["content"]
        words = text.split(" ")
        if text == "crash":
            raise RuntimeError("secret path /srv/model")
        if words[0] == "slow":
            yield from self._slowly(int(words[1]))
            return
        for i, word in enumerate(words[: sampling.max_new_tokens]):
            yield Delta(word if i == 0 else f" {word}")
            if word == "midcrash":
                raise RuntimeError("secret")
        reason = "length" if len(words) > sampling.max_new_tokens else "stop"
        if text != "mute":
            yield Delta("", reason, self.prompt_tokens(conversation), min(len(words), sampling.max_new_tokens))

    def _slowly(self, pieces: int) -> Iterator[Delta]:
        try:
            for _ in range(pieces):
                self.given += 1
                yield Delta("word ")
                time.sleep(0.01)
            yield Delta("", "stop", 1, pieces)
        finally:
            self.stopped.set()


class Server:
    """A real uvicorn in a thread."""

    def __init__(self, model: Any, *, app: Any = None, **settings: Any) -> None:
        self.sock = listen("127.0.0.1", 0)
        self.port = self.sock.getsockname()[1]
        self.model = model
        limits = Limits(max_body_bytes=100_000, queue_size=settings.pop("queue_size", 64))
        understudy = Understudy(model, NAME, CONTEXT, settings.pop("defaults", Sampling()))
        app = app or create_app(understudy, limits=limits, **settings)
        config = uvicorn.Config(app, log_level="critical", access_log=False)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.sock]}, daemon=True)

    def __enter__(self) -> Server:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.should_exit = True
        self.thread.join(20)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0, http_client=HTTP)

    def post(self, content: Any, headers: dict[str, str] | None = None) -> httpx2.Response:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        given = {"content-type": "application/json", **(headers or {})}
        return HTTP.post(f"{self.url}/v1/chat/completions", content=raw, headers=given)

    def health(self) -> dict[str, Any]:
        return dict(HTTP.get(f"{self.url}/healthz").json())


@contextmanager
def full(server: Server) -> Iterator[list[httpx2.Response]]:
    """A server with a queue for one: one slow request is answered and another waits. Gives their replies afterwards."""
    replies: list[httpx2.Response] = []
    threads = [threading.Thread(target=lambda: replies.append(server.post(ask("slow 100")))) for _ in range(2)]
    threads[0].start()
    while server.model.given == 0:
        time.sleep(0.01)
    threads[1].start()
    while server.health()["waiting"] == 0:
        time.sleep(0.01)
    yield replies
    for thread in threads:
        thread.join()


def ask(text: str = "one two three", **more: Any) -> dict[str, Any]:
    return {"model": "understudy", "messages": [{"role": "user", "content": text}], **more}


class Wire:
    """An upstream on raw sockets: reads each request, then does what `script` does with the connection.

    Without `reads` the script gets the connection as it comes.
    """

    def __init__(self, script: Callable[[socket.socket], None], *, reads: bool = True) -> None:
        self.script, self.reads, self.requests = script, reads, 0
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._sock.getsockname()[1]}/v1"

    def __enter__(self) -> Wire:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopping.set()
        self._sock.close()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self._sock.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                if self.reads:
                    _read_request(connection)
                with self._lock:
                    self.requests += 1
                self.script(connection)
            except OSError:
                return


def _read_request(connection: socket.socket) -> None:
    raw = b""
    while b"\r\n\r\n" not in raw:
        raw += _received(connection)
    head, _, body = raw.partition(b"\r\n\r\n")
    length = next(int(h[15:]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length:"))
    while len(body) < length:
        body += _received(connection)


def _received(connection: socket.socket) -> bytes:
    if not (part := connection.recv(65536)):
        raise ConnectionError("the client left")
    return part


SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def chunk(text: str | None, reason: str | None = None) -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + json.dumps({"id": "up", "choices": [choice]}).encode() + b"\n\n"


def reset(connection: socket.socket) -> None:
    """Close with RST, as a crashed peer does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
