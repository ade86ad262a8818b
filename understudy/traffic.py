"""The traffic log: one row per request and its feedback, in one SQLite file that only its owner can read.

Serving hands rows to a bounded queue and never waits; one thread writes them. A full queue, a full disk or a broken
file costs rows, which are counted and warned about once, never an answer. Messages and answers are kept only in
`content` mode and with consent, row by row; keys and passwords never.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import queue
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from understudy.config import TrafficConfig
from understudy.core.records import Message, well_formed
from understudy.errors import ConfigError, IntegrityError

log = logging.getLogger("understudy.traffic")

FILE = "traffic.db"
SCHEMA_VERSION = 1
QUEUE_ROWS = 10_000
BATCH_ROWS = 500
BATCH_WAIT_S = 0.2
RETIRE_EVERY_S = 3600.0
WARN_EVERY_S = 3600.0
CLOCK_TOLERANCE_S = 3600.0
"""A wall clock that moved by more than this against the monotonic one is not believed when old rows are removed."""
_SCHEMA = """
-- Two servers may open a new file at once: the second finds it made.
CREATE TABLE IF NOT EXISTS requests (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  at TEXT NOT NULL, request_id TEXT NOT NULL, side TEXT, model TEXT, status INTEGER NOT NULL, stream INTEGER NOT NULL,
  first_token_ms REAL, total_ms REAL NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER,
  finish_reason TEXT, error TEXT, failover TEXT, key TEXT, category TEXT,
  distance REAL, reference TEXT,
  consent TEXT NOT NULL, messages TEXT, answer TEXT,
  rating TEXT, comment TEXT, rated_at TEXT
);
CREATE INDEX IF NOT EXISTS by_request ON requests (request_id);
CREATE INDEX IF NOT EXISTS by_time ON requests (at);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(slots=True)
class Entry:
    """One request. Times in milliseconds; `consent` is `yes`, `no` or `unstated`; `key` is hashed before it is written.

    `query` is what the distance to the training prompts is taken of; it is never written.
    """

    request_id: str
    at: str = ""
    side: str | None = None
    model: str | None = None
    status: int = 200
    stream: bool = False
    first_token_ms: float | None = None
    total_ms: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    error: str | None = None
    failover: str | None = None
    key: str | None = None
    category: str | None = None
    consent: str = "unstated"
    messages: list[Message] | None = field(default=None, repr=False)
    answer: str | None = field(default=None, repr=False)
    query: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a person says of an answer: `rating` is `up` or `down`."""

    request_id: str
    rating: str
    comment: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a query lies from the nearest training prompt; `reference` names the prompts that it was taken to."""

    reference: str
    of: Callable[[str], float]


def plain(text: str, limit: int = 200) -> str:
    """`text` on one line, control characters escaped and cut: fit for a log, a terminal and a table."""
    kept = "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)
    return well_formed(kept)[:limit]


def journal_mode(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> str:
    """WAL where the linked SQLite has the fix of the WAL-reset race (3.51.3, or 3.50.7 and 3.44.6); else rollback."""
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    return "WAL" if fixed else "DELETE"


class TrafficLog:
    """Writes while its context is open. `written`, `dropped` (full queue) and `failed` (disk, file) count rows."""

    def __init__(self, folder: Path, cfg: TrafficConfig, distance: Callable[[], Distance | None] | None = None) -> None:
        """`distance` is called once, in the writing thread: an index of training prompts takes seconds to build."""
        self.path, self.cfg = folder / FILE, cfg
        self._distance_of = distance
        self._distance: Distance | None = None
        self.written = self.dropped = self.failed = 0
        self._queue: queue.Queue[Entry | tuple[Feedback, Future[dict[str, bool] | None]] | None]
        self._queue = queue.Queue(QUEUE_ROWS)
        self._thread = threading.Thread(target=self._run, name="understudy-traffic", daemon=True)
        self._db: sqlite3.Connection | None = None
        self._salt = ""
        self._warned = -WARN_EVERY_S
        self._started = (time.time(), time.monotonic())
        self._retired = -RETIRE_EVERY_S

    def __enter__(self) -> TrafficLog:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Write what is queued, for a few seconds at most."""
        try:
            self._queue.put(None, timeout=5)
        except queue.Full:
            return
        self._thread.join(10)

    def keeps(self, consent: str) -> bool:
        """Whether messages and answer of a row with this consent are kept."""
        allowed = consent == "yes" or (consent == "unstated" and self.cfg.consent == "assumed")
        return self.cfg.store == "content" and allowed

    def record(self, entry: Entry) -> None:
        """Hand over a row; returns at once and raises nothing."""
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            self.dropped += 1

    def rate(self, feedback: Feedback) -> Future[dict[str, bool] | None]:
        """What was stored (`rating`, `comment`), or None when there is no such request of this key.

        The future raises sqlite3.Error or OSError when the file cannot be written.
        """
        future: Future[dict[str, bool] | None] = Future()
        try:
            self._queue.put_nowait((feedback, future))
        except queue.Full:
            future.set_exception(OSError("the traffic log is behind"))
        return future

    def counts(self) -> dict[str, int]:
        return {"written": self.written, "dropped": self.dropped, "failed": self.failed}

    def _run(self) -> None:
        try:
            self._distance = self._distance_of() if self._distance_of else None
        except Exception as e:
            log.warning("distances to the training prompts are not kept: %s", plain(str(e)))
        going = True
        while going:
            batch, going = self._take()
            self._write(batch)
        if self._db is not None:
            self._db.close()

    def _take(self) -> tuple[list[Any], bool]:
        """What comes within a moment, for one transaction; and whether there is more to come. Empty after an hour."""
        try:
            batch, until = [self._queue.get(timeout=RETIRE_EVERY_S)], time.monotonic() + BATCH_WAIT_S
        except queue.Empty:
            return [], True
        while batch[-1] is not None and len(batch) < BATCH_ROWS:
            try:
                batch.append(self._queue.get(timeout=max(0.0, until - time.monotonic())))
            except queue.Empty:
                break
        return [item for item in batch if item is not None], batch[-1] is not None

    def _write(self, batch: list[Any]) -> None:
        # A rating whose caller has given up waiting is not stored: it was told so.
        batch = [item for item in batch if isinstance(item, Entry) or item[1].set_running_or_notify_cancel()]
        entries = [item for item in batch if isinstance(item, Entry)]
        rated: list[tuple[Future[dict[str, bool] | None], dict[str, bool] | None]] = []
        try:
            db = self._opened()
            with db:
                for item in batch:
                    if isinstance(item, Entry):
                        self._insert(db, item)
                    else:
                        rated.append((item[1], self._rate(db, item[0])))
            self._retire(db)
        except Exception as e:  # whatever it is, the thread stays alive for the rows after it
            self._lost(len(entries), e)
            for item in batch:
                if not isinstance(item, Entry):
                    item[1].set_exception(e)
            return
        for future, stored in rated:
            future.set_result(stored)
        self.written += len(entries)

    def _lost(self, rows: int, e: Exception) -> None:
        self.failed += rows
        # A nearly full disk takes a small batch and not the next: one warning for it all.
        if time.monotonic() - self._warned > WARN_EVERY_S:
            self._warned = time.monotonic()
            log.warning("the traffic log cannot be written (%s); serving goes on without it", plain(str(e)))
        if self._db is not None:
            self._db.close()
            self._db = None

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Made here and not by SQLite, whose files are as open as the umask; journals take the file's mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            os.chmod(self.path, 0o600)
            db = sqlite3.connect(self.path, timeout=5, check_same_thread=False)
            try:
                _prepare(db)
                self._salt = str(db.execute("SELECT value FROM meta WHERE name = 'salt'").fetchone()[0])
            except BaseException:
                db.close()
                raise
            self._db = db
        return self._db

    def _insert(self, db: sqlite3.Connection, entry: Entry) -> None:
        kept = self.keeps(entry.consent) and entry.error is None
        row: dict[str, Any] = {f.name: getattr(entry, f.name) for f in fields(Entry) if f.name != "query"}
        row |= {"key": self._hashed(entry.key), "stream": int(entry.stream)}
        row["messages"] = json.dumps(entry.messages, ensure_ascii=False) if kept and entry.messages else None
        row["answer"] = well_formed(entry.answer) if kept and entry.answer is not None else None
        for name in ("model", "error", "category", "finish_reason"):
            row[name] = plain(row[name], 100) if row[name] is not None else None
        if self._distance and entry.query and entry.error is None:
            row |= {"distance": round(self._distance.of(entry.query), 4), "reference": self._distance.reference}
        names = ", ".join(row)
        db.execute(f"INSERT INTO requests ({names}) VALUES ({', '.join('?' * len(row))})", list(row.values()))

    def _rate(self, db: sqlite3.Connection, feedback: Feedback) -> dict[str, bool] | None:
        request_id = feedback.request_id.removeprefix("chatcmpl-")
        query = "SELECT seq, consent FROM requests WHERE request_id = ? AND key IS ? ORDER BY seq DESC LIMIT 1"
        found = db.execute(query, [request_id, self._hashed(feedback.key)]).fetchone()
        if found is None:
            return None
        # A comment may repeat the conversation, so it is content.
        comment = well_formed(feedback.comment) if feedback.comment and self.keeps(found[1]) else None
        values = [feedback.rating, comment, _now(), found[0]]
        db.execute("UPDATE requests SET rating = ?, comment = ?, rated_at = ? WHERE seq = ?", values)
        return {"rating": True, "comment": comment is not None}

    def _hashed(self, key: str | None) -> str | None:
        """Tells callers apart; the salt is the file's own, so that keys cannot be recognised across files."""
        return hashlib.sha256(f"{self._salt}{key}".encode("utf-8", "replace")).hexdigest()[:12] if key else None

    def _retire(self, db: sqlite3.Connection) -> None:
        """Remove rows beyond the retention, hourly; not while the wall clock has jumped."""
        now = time.monotonic()
        if now - self._retired < RETIRE_EVERY_S:
            return
        self._retired = now
        wall, steady = time.time() - self._started[0], now - self._started[1]
        if abs(wall - steady) > CLOCK_TOLERANCE_S:
            log.warning("the clock jumped by %.0f s: old rows of the traffic log are left alone", wall - steady)
            return
        oldest = (datetime.now(UTC) - timedelta(days=self.cfg.retention_days)).isoformat(timespec="milliseconds")
        with db:
            db.execute("DELETE FROM requests WHERE at < ?", [oldest])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _prepare(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA journal_mode = {journal_mode()}")
    db.execute("PRAGMA synchronous = NORMAL")
    # What retention removes is overwritten, not left in free pages.
    db.execute("PRAGMA secure_delete = ON")
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found > SCHEMA_VERSION:
        raise sqlite3.DatabaseError(f"written by a newer release (schema {found})")
    if found == 0:
        salt = f"INSERT OR IGNORE INTO meta VALUES ('salt', '{secrets.token_hex(16)}');"
        db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} {salt} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


@contextmanager
def reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """The log, read-only, with rows by name. Raises ConfigError NO_TRAFFIC, IntegrityError TRAFFIC_FILE."""
    path = folder / FILE
    if not path.is_file():
        raise ConfigError("NO_TRAFFIC", path.name, "nothing has been logged yet", "understudy serve")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            db.row_factory = sqlite3.Row
            found = db.execute("PRAGMA user_version").fetchone()[0]
            if found > SCHEMA_VERSION:
                what = f"schema {found} is newer than this release's {SCHEMA_VERSION}"
                raise ConfigError("TRAFFIC_VERSION", path.name, what, "use the release that wrote it")
            yield db
    except sqlite3.Error as e:
        raise IntegrityError("TRAFFIC_FILE", path.name, plain(str(e)), "move the file away; a new one is made") from e
