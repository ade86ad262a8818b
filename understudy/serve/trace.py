"""What the traffic log and the metrics learn of one request while it is answered."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from starlette.requests import Request

from understudy.serve.metrics import Metrics
from understudy.serve.request import ApiError, ChatRequest
from understudy.serve.router import Answering
from understudy.serve.worker import Piece
from understudy.traffic import Entry, TrafficLog, plain

CLIENT_GONE = 499
"""Status of a request whose client left; the common convention of proxies."""
CONSENTS = ("yes", "no")


class Trace:
    """One request. `ended` hands the row to the log and to the metrics, exactly once."""

    def __init__(self, log: TrafficLog | None, metrics: Metrics, request: Request) -> None:
        self._log, self._metrics, self._began = log, metrics, time.monotonic()
        self._over = False
        self._texts: list[str] = []
        headers = request.headers
        self.entry = Entry(request.state.request_id, at=datetime.now(UTC).isoformat(timespec="milliseconds"))
        self.entry.key = headers.get("authorization", "").partition(" ")[2].strip() or None
        self.entry.category = _short(headers.get("x-understudy-category"))
        self.entry.consent = _consent(headers.get("x-understudy-consent"), None)

    def asked(self, asked: ChatRequest) -> None:
        """The checked request; its `metadata` may hold `understudy_consent` and `category`."""
        if self._log is None:
            return
        told = asked.given.get("metadata") or {}
        entry = self.entry
        entry.stream = asked.stream
        entry.category = entry.category or _short(told.get("category"))
        entry.consent = _consent(entry.consent, told.get("understudy_consent"))
        entry.query = next((m["content"] for m in reversed(asked.conversation) if m["role"] == "user"), "")
        entry.messages = asked.conversation if self._log.keeps(entry.consent) else None

    def piece(self, piece: Piece) -> None:
        entry, delta = self.entry, piece.delta
        if entry.first_token_ms is None:
            entry.first_token_ms = self._elapsed()
        if delta.finish_reason:
            entry.finish_reason = delta.finish_reason
            entry.prompt_tokens = delta.prompt_tokens or None
            entry.completion_tokens = (entry.completion_tokens or 0) + delta.completion_tokens
        # Of several choices the first is kept: a row holds one answer.
        if piece.index == 0 and entry.messages is not None:
            self._texts.append(delta.text)

    def ended(
        self, answering: Answering | None = None, error: BaseException | None = None, *, gone: bool = False
    ) -> None:
        """The request is over: answered, failed, or its client `gone`."""
        if self._over:
            return
        self._over = True
        entry = self.entry
        entry.total_ms = self._elapsed()
        if answering is not None and answering.side:
            entry.side, entry.model = answering.side, answering.served_by
        entry.failover = (answering.failover or None) if answering else None
        if gone:
            entry.status, entry.error = CLIENT_GONE, "client_gone"
        elif error is not None:
            known = error if isinstance(error, ApiError) else ApiError(500, "internal_error", "")
            entry.status, entry.error = known.status, known.code
        entry.answer = "".join(self._texts) if self._texts else None
        self._metrics.ended(entry)
        if self._log is not None:
            self._log.record(entry)

    def _elapsed(self) -> float:
        return round((time.monotonic() - self._began) * 1000, 2)


def _short(value: object) -> str | None:
    return plain(value, 64) or None if isinstance(value, str) else None


def _consent(first: object, second: object) -> str:
    """`no` wins over `yes`; anything else says nothing."""
    stated = [v for v in (first, second) if v in CONSENTS]
    return "no" if "no" in stated else "yes" if stated else "unstated"
