"""The simulated service over real HTTP: a threaded server from the standard library, so that it starts at once.

Endpoints: POST /v1/chat/completions (also as a stream), GET /v1/models, GET /v1/models/{id}, GET /health, GET /ledger.
"""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, Self

from understudy.core.records import Example, read_examples
from understudy.models.simulated.behaviour import Behaviour, role_of
from understudy.models.simulated.faults import Faults, ServiceLedger
from understudy.models.simulated.protocol import (
    FINGERPRINT,
    MODEL_ID,
    Completion,
    Refusal,
    Request,
    error_body,
    parse,
)

MAX_BODY_BYTES = 16_000_000
_MODEL = {"id": MODEL_ID, "object": "model", "created": 0, "owned_by": "understudy-simulated"}


class SimulatedService:
    """Serves from a thread while the context is open. `faults` may be replaced while it runs."""

    def __init__(
        self,
        knowledge: Sequence[Example] = (),
        *,
        seed: int = 0,
        wrong_rate: float = 0.0,
        faults: Faults | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.faults = faults or Faults()
        self.ledger = ServiceLedger()
        self.requests: list[dict[str, Any]] = []
        """Bodies of the checked chat requests in order of arrival, unless `keep_requests` is off."""
        self.keep_requests = True
        self._seed = seed
        self._behaviour = Behaviour(knowledge, seed, wrong_rate)
        self._attempts: Counter[str] = Counter()
        self._answered: set[str] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._address = (host, port)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def base_url(self) -> str:
        if self._server is None:
            raise RuntimeError("the simulated service runs only inside its context")
        host, port = self._server.server_address[:2]
        name = str(host)
        return f"http://{f'[{name}]' if ':' in name else name}:{port}/v1"

    def __enter__(self) -> Self:
        self._stopping.clear()
        self._server = _Server(self._address, self)
        # The default poll of 0.5 s would be waited for at every stop.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="simulated-service", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        server, thread = self._server, self._thread
        self._server = self._thread = None
        if server and thread:
            server.shutdown()
            thread.join()
            server.close()

    def pause(self, seconds: float) -> None:
        """Sleep, but not beyond the end of the service."""
        if seconds > 0:
            self._stopping.wait(seconds)

    def admit(self, request: Request, body: dict[str, Any]) -> int:
        """Count a checked request; returns which attempt of this same request it is, from 1."""
        self.ledger.count_role(role_of(request))
        with self._lock:
            if self.keep_requests:
                self.requests.append(body)
            self._attempts[request.hash] += 1
            return self._attempts[request.hash]

    def fault(self, request: Request, attempt: int) -> str | None:
        return self.faults.draw(self._seed, request.hash, attempt)

    def answered(self, request: Request) -> None:
        with self._lock:
            again = request.hash in self._answered
            self._answered.add(request.hash)
        self.ledger.count("answered")
        if again:
            self.ledger.count("repeated")

    def complete(self, request: Request, fault: str | None) -> Completion:
        text = self._behaviour.answer(request)
        return Completion.of(request, broken(text) if fault == "malformed" else text)


def broken(text: str) -> str:
    """The first two thirds of a JSON text, or a JSON object that never ends: never valid JSON."""
    return text[: max(1, len(text) * 2 // 3)] if text.startswith("{") else '{"answer": ' + json.dumps(text)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    # A port that was just freed can be taken again; two services on one port are still refused.
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], service: SimulatedService) -> None:
        self.service = service
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer.server_bind asks the resolver for a host name, which can take seconds.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close(self) -> None:
        """Stop listening and cut idle keep-alive connections, whose threads would otherwise wait for ever."""
        self.server_close()
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no event."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "understudy-simulated", ""
    # Headers and body go out as two small writes; with Nagle's algorithm each answer would wait 40 ms.
    disable_nagle_algorithm = True
    server: _Server

    @property
    def service(self) -> SimulatedService:
        return self.server.service

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        if self.path == "/health":
            outage = self.service.faults.outage
            self._send(503 if outage else 200, {"status": "outage" if outage else "ok"})
        elif self.path == "/ledger":
            self._send(200, self.service.ledger.to_json())
        elif self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [_MODEL]})
        elif self.path == f"/v1/models/{MODEL_ID}":
            self._send(200, _MODEL)
        elif self.path == "/v1/chat/completions":
            self._send(405, error_body("invalid_request_error", "use POST"), {"Allow": "POST"})
        else:
            self._send(404, error_body("invalid_request_error", "there is no such address", code="not_found"))

    def do_POST(self) -> None:
        body = self._body()
        if body is None:
            return
        if self.path != "/v1/chat/completions":
            self._send(404, error_body("invalid_request_error", "there is no such address", code="not_found"))
            return
        self.service.ledger.count("requests")
        try:
            content = self._json(body)
            request = parse(content)
        except Refusal as refusal:
            self.service.ledger.count("refused")
            self._send(refusal.status, refusal.body())
            return
        attempt = self.service.admit(request, content)
        self._request_id = f"req-{request.hash[:16]}-{attempt}"
        self._answer(request, self.service.fault(request, attempt))

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            self.close_connection = True
            self._send(411, error_body("invalid_request_error", "the request has no Content-Length"))
            return None
        if int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            limit = f"the body is over {MAX_BODY_BYTES} bytes"
            self._send(413, error_body("invalid_request_error", limit, code="request_too_large"))
            return None
        return self.rfile.read(int(length))

    def _json(self, body: bytes) -> Any:
        try:
            return json.loads(body.decode("utf-8"))
        except (ValueError, RecursionError):
            raise Refusal(400, "the body is not JSON in UTF-8", code="invalid_json") from None

    def _answer(self, request: Request, fault: str | None) -> None:
        """One outcome is counted before its last byte goes out, so that a client never sees more than the ledger."""
        service = self.service
        service.pause(service.faults.latency_s)
        if fault:
            service.ledger.count_fault(fault)
        if fault == "silence":
            service.pause(service.faults.silence_s)
            self.close_connection = True
        elif fault in _ERRORS:
            status, kind, code, message = _ERRORS[fault]
            self._send(status, error_body(kind, message, code=code), self._retry_headers(status))
        else:
            self._deliver(request, fault)

    def _deliver(self, request: Request, fault: str | None) -> None:
        ledger = self.service.ledger
        try:
            completion = self.service.complete(request, fault)
        except Exception:
            # A fault of the script itself; it must be seen as one, and the ledger must still add up.
            ledger.count_fault("script")
            self._send(500, error_body("server_error", "the script failed on this request", code="script_failed"))
            return
        if not fault:
            self.service.answered(request)
        try:
            (self._stream if request.stream else self._whole)(completion, cut=fault == "cut")
        except OSError:
            self.close_connection = True
            if not fault:
                ledger.count("answered", -1)
                ledger.count("dropped")

    def _retry_headers(self, status: int) -> dict[str, str]:
        wait = self.service.faults.retry_after_s
        return {} if status == 500 else {"Retry-After": f"{wait:g}", "retry-after-ms": f"{wait * 1000:g}"}

    def _whole(self, completion: Completion, *, cut: bool) -> None:
        self._send(200, completion.body(), cut=cut)

    def _stream(self, completion: Completion, *, cut: bool) -> None:
        self._head(200, {"Content-Type": "text/event-stream; charset=utf-8", "Transfer-Encoding": "chunked"})
        chunks = list(completion.chunks())
        for chunk in chunks[: len(chunks) // 2] if cut else chunks:
            self._chunk(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n")
        if cut:
            self._abort()
        else:
            self._chunk("data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, text: str) -> None:
        data = text.encode("utf-8")
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("x-request-id", getattr(self, "_request_id", "req-0"))
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _send(
        self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None, *, cut: bool = False
    ) -> None:
        data = json.dumps(body, ensure_ascii=False).encode("utf-8")
        self._head(status, {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})})
        self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self._abort()

    def _abort(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


_ERRORS = {
    "429": (429, "rate_limit_error", "rate_limit_exceeded", "too many requests (simulated)"),
    "500": (500, "server_error", "internal_error", "internal error (simulated)"),
    "outage": (503, "server_error", "overloaded", "out of service (simulated)"),
}


def run_forever(
    knowledge_path: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8009,
    *,
    seed: int = 0,
    wrong_rate: float = 0.0,
    faults: Faults | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> ServiceLedger:
    """Serve until SIGTERM or SIGINT; returns the ledger. `on_ready` gets the base URL."""
    knowledge = read_examples(knowledge_path) if knowledge_path else []
    service = SimulatedService(knowledge, seed=seed, wrong_rate=wrong_rate, faults=faults, host=host, port=port)
    service.keep_requests = False
    stop = threading.Event()
    before = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        with service:
            if on_ready:
                on_ready(service.base_url)
            stop.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return service.ledger


__all__ = ["FINGERPRINT", "MODEL_ID", "SimulatedService", "run_forever"]
