"""What stands before every route: Host, Origin, key, size and type of the body, request ids, error shape.

A browser page can reach loopback (CVE-2025-62593, CVE-2025-14279), so Host and Origin are checked there too; each
refusal is OpenAI-shaped and happens before the body is read.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from understudy.serve.request import ApiError

log = logging.getLogger("understudy.serve")

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
OPEN = frozenset({"/healthz", "/readyz"})
"""What a probe without a key may ask; neither says anything of anybody."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask. `hosts` are the accepted Host names without port (None: any, for a bind with a key behind names
    we cannot know); `api_key` is demanded on every route but those of `OPEN`."""

    hosts: frozenset[str] | None = LOOPBACK
    api_key: str | None = None


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, access: Access, max_body_bytes: int) -> None:
        self.app, self.access, self.max_body_bytes = app, access, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def reply(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                ours = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message.get("headers", []), *ours]
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, self._capped(receive), reply)
        except ApiError as e:
            if not started:
                await respond(reply, e)
        except Exception:
            log.exception("request %s failed", request_id)
            if not started:
                await respond(reply, ApiError(500, "internal_error", "The server failed; see its log."))

    def _check(self, scope: Scope) -> None:
        host = _one(scope, b"host")
        if self.access.hosts is not None and _host_name(host) not in self.access.hosts:
            raise ApiError(421, "host_not_allowed", "This Host is not served here.")
        origin = _values(scope, b"origin")
        if origin and (len(origin) > 1 or _netloc(origin[0]) != host):
            raise ApiError(403, "origin_not_allowed", "Requests from other origins are refused.")
        if self.access.api_key and scope["path"] not in OPEN:
            self._authenticate(scope, self.access.api_key)
        length = _values(scope, b"content-length")
        if length and length[0].isascii() and length[0].isdigit() and int(length[0]) > self.max_body_bytes:
            raise self._too_large()
        if scope["method"] == "POST":
            _check_type(scope)

    def _authenticate(self, scope: Scope, key: str) -> None:
        given = _values(scope, b"authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode("latin-1"), key.encode()):
            error = ApiError(401, "invalid_api_key", "The API key is missing or wrong.")
            error.headers["www-authenticate"] = "Bearer"
            raise error

    def _too_large(self) -> ApiError:
        return ApiError(413, "request_too_large", f"The body may have at most {self.max_body_bytes} bytes.")

    def _capped(self, receive: Receive) -> Receive:
        size = 0

        async def capped() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.max_body_bytes:
                raise self._too_large()
            return message

        return capped


async def respond(send: Send, error: ApiError) -> None:
    """Send an error as one JSON response; ASCII, so that nothing in it can fail to encode."""
    body = json.dumps(error.body).encode("ascii")
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
    raw = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _values(scope: Scope, name: bytes) -> list[str]:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    return [value.decode("latin-1") for key, value in headers if key == name]


def _one(scope: Scope, name: bytes) -> str:
    values = _values(scope, name)
    return values[0] if len(values) == 1 else ""


def _host_name(host: str) -> str:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]/?#@\s]+)(:\d{1,5})?", host)
    return match[1].lower() if match else ""


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _request_id(scope: Scope) -> str:
    given = _one(scope, b"x-request-id")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"


def _check_type(scope: Scope) -> None:
    encoding: Any = _values(scope, b"content-encoding")
    kind, _, parameters = _one(scope, b"content-type").partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if encoding not in ([], ["identity"]):
        raise ApiError(415, "unsupported_media_type", "Compressed bodies are not accepted.")
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise ApiError(415, "unsupported_media_type", "The content type must be application/json in UTF-8.")
