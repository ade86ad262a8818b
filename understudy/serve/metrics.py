"""Prometheus metrics of one server: requests, tokens, waiting times, failovers. No text, no key, no id of a caller."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from understudy.traffic import Entry

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Counts since the server began. `side` is `service`, `understudy`, or empty where nobody answered."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests by outcome", "side", "status", "error")
        self._failovers = self._counter("failovers", "Requests that the service did not answer, by reason", "reason")
        self._tokens = self._counter("tokens", "Tokens as the answering side counts them", "side", "kind")
        self._first = self._histogram("first_token_seconds", "From the request to the first piece of its answer")
        self._whole = self._histogram("request_seconds", "From the request to the end of its answer")

    def watch(self, name: str, help: str, value: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(f"understudy_{name}", help, registry=self._registry).set_function(value)

    def ended(self, entry: Entry) -> None:
        side = entry.side or ""
        self._requests.labels(side, str(entry.status), entry.error or "").inc()
        if entry.failover:
            self._failovers.labels(entry.failover).inc()
        for kind, count in (("prompt", entry.prompt_tokens), ("completion", entry.completion_tokens)):
            if count:
                self._tokens.labels(side, kind).inc(count)
        if entry.first_token_ms is not None:
            self._first.labels(side).observe(entry.first_token_ms / 1000)
        if entry.total_ms is not None and side:
            self._whole.labels(side).observe(entry.total_ms / 1000)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"understudy_{name}", help, labels, registry=self._registry)

    def _histogram(self, name: str, help: str) -> Histogram:
        return Histogram(f"understudy_{name}", help, ("side",), buckets=SECONDS, registry=self._registry)
