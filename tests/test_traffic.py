"""The traffic log: what each mode keeps, that secrets and content stay out, and that serving never waits for it."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from endpoint import HTTP, NAME, Scripted, Server, ask

from understudy.config import FailoverConfig, ServiceConfig, TrafficConfig
from understudy.errors import ConfigError, IntegrityError
from understudy.models.simulated import SimulatedService
from understudy.models.simulated.faults import Faults
from understudy.monitor.service_level import lines, service_level
from understudy.serve.upstream import Upstream
from understudy.traffic import FILE, Distance, Entry, Feedback, TrafficLog, journal_mode, plain, reading

CANARY = "canary-7f3a-Wellington"
KEY = "sk-canary-key-that-no-file-may-hold"


@contextmanager
def logged(folder: Path, **settings: Any) -> Iterator[Server]:
    """An endpoint that logs to `folder`; the log is whole once the block is left."""
    with TrafficLog(folder, TrafficConfig(**settings)) as log, Server(Scripted(), traffic=log) as server:
        yield server


def rows(folder: Path) -> list[dict[str, Any]]:
    with reading(folder) as db:
        return [dict(row) for row in db.execute("SELECT * FROM requests ORDER BY seq")]


def say(server: Server, text: str, consent: str | None = None, **headers: str) -> httpx2.Response:
    told = {"authorization": f"Bearer {KEY}", **headers}
    return server.post(ask(text, **({"metadata": {"understudy_consent": consent}} if consent else {})), told)


def test_one_row_per_request_says_who_how_fast_and_how_it_ended(tmp_path: Path) -> None:
    with logged(tmp_path) as server:
        say(server, "one two three", **{"x-request-id": "r-1", "x-understudy-category": "hours\x1b[2J"})
        server.post(ask("one two", stream=True))
        server.post(ask("crash"))
        server.post(b"{")
        server.post(ask("midcrash on", stream=True))
    found = rows(tmp_path)
    first, streamed, crashed, malformed, broken = found
    assert (first["request_id"], first["side"], first["model"], first["status"]) == ("r-1", "understudy", NAME, 200)
    assert (first["prompt_tokens"], first["completion_tokens"], first["finish_reason"]) == (3, 3, "stop")
    assert 0 < first["first_token_ms"] <= first["total_ms"] and first["category"] == "hours\\x1b[2J"
    assert (streamed["stream"], streamed["error"], streamed["key"]) == (1, None, None)
    assert [(r["status"], r["error"]) for r in (crashed, malformed, broken)] == [
        (500, "internal_error"),
        (400, "invalid_json"),
        (500, "internal_error"),
    ]
    assert first["key"] and len({r["key"] for r in found}) == 2, "callers are told apart by a hash"


def test_a_client_that_left_is_a_row_and_no_error_of_ours(tmp_path: Path) -> None:
    with logged(tmp_path) as server, httpx2.Client(timeout=20) as client:
        body, given = json.dumps(ask("slow 500", stream=True)).encode(), {"content-type": "application/json"}
        with client.stream("POST", f"{server.url}/v1/chat/completions", content=body, headers=given) as reply:
            next(reply.iter_bytes())
        assert server.model.stopped.wait(20)
    (row,) = rows(tmp_path)
    assert (row["status"], row["error"], row["finish_reason"]) == (499, "client_gone", None)
    with reading(tmp_path) as db:
        assert service_level(db)["errors"] is None


@pytest.mark.slow
@pytest.mark.parametrize("store", ["metadata", "content"])
def test_no_content_without_consent_and_no_key_ever(tmp_path: Path, store: str) -> None:
    with logged(tmp_path, store=store) as server:
        for consent in (None, "no", "maybe"):
            reply = say(server, f"tell {CANARY}", consent)
            rated = {"request_id": reply.json()["id"], "rating": "down", "comment": f"bad {CANARY}"}
            stored = HTTP.post(f"{server.url}/v1/feedback", json=rated, headers={"authorization": f"Bearer {KEY}"})
            assert stored.json()["stored"] == {"rating": True, "comment": False}
        if store == "metadata":
            say(server, f"tell {CANARY}", "yes")
        held = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    held += b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert CANARY.encode() not in held and KEY.encode() not in held
    assert b"down" in held, "the rows themselves are there"


def test_with_consent_messages_answer_and_comment_are_kept(tmp_path: Path) -> None:
    with logged(tmp_path, store="content") as server:
        reply = say(server, f"tell {CANARY}", "yes")
        rated = {"request_id": reply.json()["id"], "rating": "up", "comment": "fine 😀"}
        feedback = HTTP.post(f"{server.url}/v1/feedback", json=rated, headers={"authorization": f"Bearer {KEY}"})
        assert feedback.json()["stored"] == {"rating": True, "comment": True}
        say(server, "by header", None, **{"x-understudy-consent": "yes"})
        say(server, "no wins", "yes", **{"x-understudy-consent": "no"})
        server.post(ask("crash", metadata={"understudy_consent": "yes"}))
    first, by_header, refused, crashed = rows(tmp_path)
    assert json.loads(first["messages"]) == [{"role": "user", "content": f"tell {CANARY}"}]
    assert (first["answer"], first["rating"], first["comment"]) == (f"tell {CANARY}", "up", "fine 😀")
    assert by_header["answer"] == "by header"
    assert refused["messages"] is refused["answer"] is crashed["messages"] is None
    assert [r["consent"] for r in (first, by_header, refused)] == ["yes", "yes", "no"]


def test_assumed_consent_keeps_all_but_those_who_say_no(tmp_path: Path) -> None:
    with logged(tmp_path, store="content", consent="assumed") as server:
        say(server, "unstated")
        say(server, "refused", "no")
    assert [r["answer"] for r in rows(tmp_path)] == ["unstated", None]


def test_feedback_is_refused_in_shape(tmp_path: Path) -> None:
    with logged(tmp_path) as server:
        reply = say(server, "mine")

        def rate(**body: Any) -> tuple[int, str, str | None]:
            error = HTTP.post(f"{server.url}/v1/feedback", json=body, headers={"authorization": "Bearer other"})
            return error.status_code, error.json()["error"]["code"], error.json()["error"]["param"]

        mine = {"request_id": reply.json()["id"], "rating": "up"}
        assert rate(**mine) == (404, "request_not_found", "request_id"), "another key's request"
        assert rate(request_id="x") == (400, "missing_required_parameter", "rating")
        assert rate(request_id="x", rating=5) == (400, "invalid_type", "rating")
        assert rate(request_id="x", rating="great") == (400, "invalid_value", "rating")
        assert rate(**mine, comment="c" * 4001) == (400, "invalid_value", "comment")
        assert rate(**mine, stars=5) == (400, "unsupported_parameter", "stars")
    with Server(Scripted()) as silent:
        assert HTTP.post(f"{silent.url}/v1/feedback", json=mine).status_code == 404


def test_only_the_owner_can_read_the_file_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with logged(tmp_path / "traffic") as server:
            rated = {"request_id": server.post(ask("hello")).json()["id"], "rating": "up"}
            assert HTTP.post(f"{server.url}/v1/feedback", json=rated).status_code == 200, "written by now"
            modes = {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "traffic").iterdir()}
        assert modes | {stat.S_IMODE((tmp_path / "traffic" / FILE).stat().st_mode)} == {0o600}
        assert stat.S_IMODE((tmp_path / "traffic").stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_old_rows_are_removed_and_overwritten_but_not_when_the_clock_jumped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old = Entry("old", at="2001-01-01T00:00:00.000+00:00", consent="yes", answer=CANARY, total_ms=1)
    cfg = TrafficConfig(store="content", retention_days=30)
    log = TrafficLog(tmp_path, cfg)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 10 * 365 * 86_400)
    with log:
        log.record(old)
    assert [r["request_id"] for r in rows(tmp_path)] == ["old"] and "clock jumped" in caplog.text
    monkeypatch.undo()
    with TrafficLog(tmp_path, cfg) as log:
        log.record(Entry("new", at="2999-01-01T00:00:00.000+00:00", total_ms=1))
    assert [r["request_id"] for r in rows(tmp_path)] == ["new"]
    assert CANARY.encode() not in (tmp_path / FILE).read_bytes()


def test_a_row_beyond_one_batch_is_not_lost(tmp_path: Path) -> None:
    with TrafficLog(tmp_path, TrafficConfig()) as log:
        for i in range(1701):
            log.record(Entry(f"r{i}", at="2999-01-01", total_ms=1))
    assert [r["request_id"] for r in rows(tmp_path)] == [f"r{i}" for i in range(1701)]
    assert log.counts() == {"written": 1701, "dropped": 0, "failed": 0}


PROGRAM = """
import resource, signal, sys
sys.path[:0] = {path!r}
from pathlib import Path
from endpoint import Scripted
from understudy.config import TrafficConfig
from understudy.serve.api import Understudy, create_app
from understudy.serve.server import run_app
from understudy.traffic import TrafficLog

resource.setrlimit(resource.RLIMIT_FSIZE, (45_000, 45_000))
with TrafficLog(Path({folder!r}), TrafficConfig()) as log:
    run_app(create_app(Understudy(Scripted(), "advisor v3", 64), traffic=log), "127.0.0.1", 0,
            announce=lambda url: print(url, flush=True))
"""


@pytest.mark.slow
def test_a_full_disk_costs_rows_counted_and_warned_once_and_never_an_answer(tmp_path: Path) -> None:
    program = PROGRAM.format(path=sys.path, folder=str(tmp_path))
    running = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout
        url = running.stdout.readline().strip()
        counts = {"failed": 0}
        until = time.monotonic() + 60
        while counts["failed"] < 20 and time.monotonic() < until:
            for _ in range(40):
                reply = HTTP.post(f"{url}/chat/completions", json=ask("hello there"))
                assert reply.status_code == 200 and reply.json()["choices"][0]["message"]["content"] == "hello there"
            counts = HTTP.get(f"{url.removesuffix('/v1')}/healthz").json()["traffic"]
        assert counts["failed"] >= 20 and counts["written"] > 0
    finally:
        running.terminate()
        _, errors = running.communicate(timeout=30)
    assert errors.count("cannot be written") == 1
    with reading(tmp_path) as db:
        assert db.execute("SELECT count(*) FROM requests").fetchone()[0] >= counts["written"]


def test_a_queue_that_is_full_drops_and_counts_without_waiting(tmp_path: Path) -> None:
    log = TrafficLog(tmp_path, TrafficConfig())
    for i in range(10_000):
        log.record(Entry(f"r{i}", at="2999-01-01", total_ms=1))
    began = time.monotonic()
    for i in range(20):
        log.record(Entry(f"late{i}", at="2999-01-01", total_ms=1))
    assert log.dropped == 20 and time.monotonic() - began < 5
    assert isinstance(log.rate(Feedback("r1", "up")).exception(0), OSError)


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["a rating nobody waits for", "a distance that fails", "a count of 31 digits"])
def test_the_thread_that_writes_outlives_what_cannot_be_written(tmp_path: Path, trouble: str) -> None:
    def failing(text: str) -> float:
        return 1 / len(text.removeprefix("?"))

    def slowly() -> Distance:
        time.sleep(0.3)
        return Distance("ref", failing)

    with TrafficLog(tmp_path, TrafficConfig(), slowly) as log:
        if trouble == "a rating nobody waits for":
            assert log.rate(Feedback("r1", "up")).cancel()
        else:
            many = 10**30 if "count" in trouble else None
            log.record(Entry("r1", at="2999-01-01", query="?", prompt_tokens=many))
        time.sleep(1)
        log.record(Entry("r2", at="2999-01-01", query="well"))
    assert [(row["request_id"], row["distance"]) for row in rows(tmp_path)] == [("r2", 0.25)]
    assert log.counts() == {"written": 1, "dropped": 0, "failed": trouble != "a rating nobody waits for"}


def test_what_is_no_log_of_ours_is_said_in_one_line_and_serving_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match="NO_TRAFFIC"), reading(tmp_path):
        pass
    (tmp_path / FILE).write_text("this is no database, whatever its name says" * 50)
    with logged(tmp_path) as server:
        assert say(server, "hello").status_code == 200
        assert HTTP.post(f"{server.url}/v1/feedback", json={"request_id": "r", "rating": "up"}).status_code == 503
    assert caplog.text.count("cannot be written") == 1
    with pytest.raises(IntegrityError, match="TRAFFIC_FILE"), reading(tmp_path):
        pass
    (tmp_path / FILE).unlink()
    newer = sqlite3.connect(tmp_path / FILE)
    newer.execute("PRAGMA user_version = 9")
    newer.close()
    with pytest.raises(ConfigError, match="TRAFFIC_VERSION"), reading(tmp_path):
        pass


def test_wal_only_where_sqlite_cannot_corrupt_it() -> None:
    safe = [(3, 51, 3), (3, 52, 0), (3, 50, 7), (3, 50, 9), (3, 44, 6)]
    unsafe = [(3, 40, 1), (3, 44, 5), (3, 45, 0), (3, 50, 6), (3, 51, 0), (3, 51, 2)]
    assert [journal_mode(v) for v in safe + unsafe] == ["WAL"] * 5 + ["DELETE"] * 6


def test_control_characters_and_halves_of_surrogates_reach_no_terminal() -> None:
    shown = plain("a\x1b[31m\n\u202e\ud800b")
    assert shown.isprintable() and "\\x1b" in shown and shown.encode()


def test_the_service_level_counts_failovers_errors_and_latencies(tmp_path: Path) -> None:
    faults = Faults(outage=True)
    with SimulatedService(faults=faults) as service, TrafficLog(tmp_path, TrafficConfig()) as log:
        cfg = ServiceConfig(provider="openai", model="simulated-1", base_url=service.base_url)
        upstream = Upstream(cfg, FailoverConfig(failures=2, cool_down_s=600))
        with Server(Scripted(), traffic=log, upstream=upstream) as server:
            for i in range(5):
                server.post(ask(f"question {i}"))
            server.post(ask("word " * 100))
            server.post(b"{")
            server.post({**ask("mine"), "model": NAME})
    with reading(tmp_path) as db:
        level = service_level(db)
        assert service_level(db, after=6)["requests"] == 2
    assert (level["requests"], level["answered"]) == (8, {"understudy": 6})
    assert (level["failover"]["count"], level["failover"]["n"]) == (5, 6)
    assert level["failover_reasons"] == {"breaker_open": 4, "server_error": 2}
    assert (level["errors"]["count"], level["errors"]["n"]) == (1, 7), "the caller's own fault is no error of ours"
    assert level["error_codes"] == {"invalid_json": 1, "upstream_unavailable": 1}
    times = level["first_token_ms"]["understudy"]
    assert 0 < times["p50"] <= times["p95"] <= times["p99"]
    assert "failover" in "\n".join(lines(level))
