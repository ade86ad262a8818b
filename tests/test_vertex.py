"""Google's short-lived tokens: a token server on this machine that checks the signed assertion, as Google's does."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from test_service import Reply, _close, chat, client, error, serving  # noqa: F401  `_close` is a fixture
from thread import make_tiny, one_line, understudy

from understudy.config import FailoverConfig, ServiceConfig
from understudy.errors import ConfigError, RemoteError
from understudy.models.base import Sampling
from understudy.models.providers import endpoint
from understudy.serve.request import ChatRequest
from understudy.serve.upstream import Upstream, UpstreamFailed

pytestmark = pytest.mark.services

ASKED = [[{"role": "user", "content": f"say {i}"}] for i in range(6)]
GREEDY = Sampling(max_new_tokens=16)
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUDIENCE = "https://oauth2.googleapis.com/token"
"""Whatever the server's address: Google's library signs for this one."""
SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class TokenServer:
    """Gives `token-1`, `token-2`, ... for assertions that the account's key signed; `refusal` is answered instead."""

    def __init__(self) -> None:
        self.given, self.expires_in, self.refusal = 0, 3600, (0, "")
        self.public = self.address = ""
        self.lock = threading.Lock()

    def answer(self, form: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        from google.auth import jwt

        claims = jwt.decode(form["assertion"][0], certs=self.public, audience=AUDIENCE)
        if form["grant_type"] != [GRANT] or claims["scope"] != SCOPE or claims["iss"] != "robot@p.example":
            return 400, {"error": "invalid_grant"}
        if self.refusal[0]:
            return self.refusal[0], {"error": self.refusal[1], "error_description": form["assertion"][0]}
        with self.lock:
            self.given += 1
            return 200, {"access_token": f"token-{self.given}", "expires_in": self.expires_in, "token_type": "Bearer"}


@contextmanager
def account(folder: Path) -> Iterator[TokenServer]:
    """A service account's file in `folder` whose `token_uri` is a token server of ours."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    tokens = TokenServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            status, body = tokens.answer(form)
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    tokens.address = f"http://127.0.0.1:{server.server_port}/token"
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    tokens.public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()  # fmt: skip
    file = {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "k1",
        "private_key": key.private_bytes(serialization.Encoding.PEM, form, plain).decode(),
        "client_email": "robot@p.example",
        "client_id": "1",
        "token_uri": tokens.address,
    }
    (folder / "account.json").write_text(json.dumps(file))
    try:
        yield tokens
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    with account(tmp_path) as server:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
        yield server


def vertex(url: str) -> ServiceConfig:
    return ServiceConfig(provider="vertex", model="google/gemini-x", project="p", base_url=url)


def test_one_token_serves_many_requests(tokens: TokenServer) -> None:
    with serving(lambda r, n: chat("well")) as (server, url):
        model = client(url, provider="vertex", model="google/gemini-x", project="p", concurrency=4)
        assert [a.text for a in model.generate(ASKED, GREEDY)] == ["well"] * 6
    assert server.keys == {"Bearer token-1"} and tokens.given == 1


def test_a_token_is_renewed_before_it_ends(tokens: TokenServer) -> None:
    tokens.expires_in = 1  # Google's library renews minutes ahead, so this one is old at once
    with serving(lambda r, n: chat("well")) as (server, url):
        client(url, provider="vertex", model="google/gemini-x", project="p").generate(ASKED, GREEDY)
    assert len(server.keys) == 6 == tokens.given


def test_the_primary_of_serve_renews_it_too(tokens: TokenServer) -> None:
    asked = ChatRequest("understudy", ASKED[0], (GREEDY,), False, False, {})

    async def told(url: str) -> str:
        async with Upstream(vertex(url), FailoverConfig()) as upstream:
            return "".join([piece.delta.text async for piece in upstream.pieces(asked)])

    tokens.expires_in = 1
    stream = b'data: {"choices": [{"index": 0, "delta": {"content": "well"}, "finish_reason": "stop"}]}\n\n'
    with serving(lambda r, n: Reply(stream, headers={"content-type": "text/event-stream"})) as (server, url):
        assert asyncio.run(told(url)) == asyncio.run(told(url)) == "well"
        assert len(server.keys) == 2
        tokens.refusal = (400, "invalid_grant")
        with pytest.raises(UpstreamFailed) as caught:
            asyncio.run(told(url))
    assert caught.value.code == "key_refused" and server.hits == 2


@pytest.mark.parametrize(
    ("refusal", "code"), [((400, "invalid_grant"), "KEY_REFUSED"), ((503, "server_error"), "CONNECTION")]
)
def test_a_refused_token_is_one_line_without_what_was_sent(
    tokens: TokenServer, refusal: tuple[int, str], code: str
) -> None:
    tokens.refusal = refusal
    with serving(lambda r, n: chat("well")) as (server, url):
        model = client(url, provider="vertex", model="google/gemini-x", project="p", max_attempts=1)
        with pytest.raises(RemoteError) as caught:
            model.generate(ASKED[:1], GREEDY)
    assert caught.value.code == code and server.hits == 0
    assert "eyJ" not in caught.value.line() and "\n" not in caught.value.line()


def test_an_echoed_token_is_hidden(tokens: TokenServer) -> None:
    with serving(lambda r, n: error(400, message="bad token-1")) as (_, url):
        model = client(url, provider="vertex", model="google/gemini-x", project="p")
        (failed,) = model.ask(ASKED[:1], GREEDY)
    assert isinstance(failed, RemoteError) and "bad ***" in failed.line()
    assert "token-1" not in repr(endpoint(vertex("http://localhost/v1"), "teacher"))


def test_without_credentials_check_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_tiny(tmp_path / "project")
    with open(project / "understudy.yaml", "a") as f:
        f.write("judge: {provider: vertex, model: google/gemini-x, project: p}\n")
    empty = {"NO_GCE_CHECK": "true", "CLOUDSDK_CONFIG": str(tmp_path), "PATH": ""}
    line = one_line(understudy("check", "-C", str(project), **empty), "KEY_MISSING", 2)
    assert "judge.api_key" in line and "GOOGLE_APPLICATION_CREDENTIALS" in line
    (tmp_path / "torn.json").write_text("{")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "torn.json"))
    with pytest.raises(ConfigError, match="KEY_MISSING"):
        endpoint(vertex("http://localhost/v1"), "judge")
