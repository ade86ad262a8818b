"""Rows of one SELECT in BigQuery, priced by a dry run before anything is spent.

The dry run says how many bytes the query would read; over `max_bytes` it is refused, and the job itself carries the
same cap. A run binds the state of the tables that the query reads, which costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config import SourceConfig
from understudy.core.records import digest
from understudy.data.clean import Fault, Notes, scrub
from understudy.data.sources.cells import plain
from understudy.data.sources.reader import Bad, Row
from understudy.data.sources.sql import check_query, label, query_of
from understudy.errors import ConfigError, DataError, RemoteError, UnderstudyError, extra

if TYPE_CHECKING:
    from google.cloud.bigquery import Client

PAGE = 1_000
TIB = 1 << 40


@dataclass(frozen=True)
class Estimate:
    """What a query would read, by BigQuery's own account."""

    bytes: int
    tables: dict[str, str]
    """Each table that is read, views looked through, and what changes when it does."""
    price_per_tib: float

    @property
    def cost(self) -> float:
        """Money at the configured price; what is free of charge in an account is not known here."""
        return self.bytes / TIB * self.price_per_tib

    def __str__(self) -> str:
        return f"{self.bytes:,} bytes (about {self.cost:.4f} at {self.price_per_tib:g} per TiB)"


def estimate(source: SourceConfig, project: Path) -> Estimate:
    """Dry run of a source's query; free of charge.

    Raises IntegrityError SQL_WRITE; ConfigError SQL_SYNTAX; RemoteError BQ_DENIED, BQ_QUOTA, BQ_MISSING, BQ_COST,
    BQ_CREDENTIALS, BQ_UNREACHABLE, BQ_ERROR, TIMEOUT; ResourceError EXTRA_MISSING.
    """
    where, query = label(source, project), query_of(source, project)
    check_query(query, where)
    with _client(source, where) as client, _errors(where):
        return _estimate(client, source, query, where)


def result_digest(source: SourceConfig, project: Path) -> str:
    """What a run binds: the query's text and the state of each table that it reads."""
    found = estimate(source, project)
    return digest([query_of(source, project), found.tables])


def read_bigquery(source: SourceConfig, project: Path, notes: Notes) -> Iterator[Row | Bad]:
    """Stream the rows of a source's query in its own order, page by page. Raises what `estimate` does, DATA_EMPTY."""
    where, query = label(source, project), query_of(source, project)
    check_query(query, where)
    count = 0
    with _client(source, where) as client, _errors(where):
        from google.cloud.bigquery import QueryJobConfig

        found = _estimate(client, source, query, where)
        notes["bigquery_bytes"] = notes.get("bigquery_bytes", 0) + found.bytes
        capped = QueryJobConfig(maximum_bytes_billed=source.max_bytes)
        rows = client.query_and_wait(
            query, job_config=capped, page_size=PAGE, api_timeout=source.timeout_s, **_patience(source)
        )
        names = [field.name for field in rows.schema]
        for count, cells in enumerate(rows, 1):
            yield _row(f"{where}:row {count}", names, cells.values(), notes)
    if not count:
        raise DataError("DATA_EMPTY", where, "the query gives no rows", "run it by hand and mend its conditions")


def _row(where: str, names: list[str], cells: Any, notes: Notes) -> Row | Bad:
    try:
        values = {name: plain(name, cell) for name, cell in zip(names, cells, strict=True)}
        return Row(where, -1, dict(scrub(values, notes)))
    except Fault as fault:
        return Bad(where, -1, fault.reason, fault.detail)


def _estimate(client: Client, source: SourceConfig, query: str, where: str) -> Estimate:
    from google.cloud.bigquery import QueryJobConfig

    dry = QueryJobConfig(dry_run=True, use_query_cache=False)
    # With a job_retry the client adds ten minutes of its own around what `retry` gave up.
    patience = {**_patience(source), "job_retry": None}
    job = client.query(query, job_config=dry, timeout=source.timeout_s, **patience)
    tables = {}
    for reference in job.referenced_tables:
        table = client.get_table(reference, retry=patience["retry"], timeout=source.timeout_s)
        tables[str(reference)] = f"{table.etag} {table.num_rows} {table.modified}"
    found = Estimate(int(job.total_bytes_processed or 0), tables, source.price_per_tib)
    if found.bytes > source.max_bytes:
        what = f"the query would read {found}; max_bytes is {source.max_bytes:,}"
        raise RemoteError("BQ_COST", where, what, "narrow it, select partitions, or raise max_bytes")
    return found


@contextmanager
def _client(source: SourceConfig, where: str) -> Iterator[Client]:
    """A client with the machine's own credentials; a plain-http endpoint (an emulator) gets none."""
    with extra("bigquery"):
        from google.auth.credentials import AnonymousCredentials
        from google.auth.exceptions import DefaultCredentialsError
        from google.cloud.bigquery import Client
    endpoint = source.endpoint_url or ""
    known: dict[str, Any] = {"client_options": {"api_endpoint": endpoint}} if endpoint else {}
    if endpoint.startswith("http://"):
        known["credentials"] = AnonymousCredentials()
    try:
        client = Client(project=source.project, location=source.location, **known)
    except DefaultCredentialsError as e:
        fix = "gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS"
        raise RemoteError("BQ_CREDENTIALS", where, "no credentials were found", fix) from e
    try:
        yield client
    finally:
        client.close()


def _patience(source: SourceConfig) -> dict[str, Any]:
    """The client's own retries of what is worth it (503, rate limits, dropped connections), with an end to them."""
    from google.cloud.bigquery.retry import DEFAULT_JOB_RETRY, DEFAULT_RETRY

    return {
        "retry": DEFAULT_RETRY.with_timeout(source.timeout_s),
        "job_retry": DEFAULT_JOB_RETRY.with_timeout(source.timeout_s),
    }


@contextmanager
def _errors(where: str) -> Iterator[None]:
    """Turn what the client raises into one line that says who is to act."""
    from google.api_core import exceptions as api
    from google.auth.exceptions import GoogleAuthError
    from requests import exceptions as http

    try:
        yield
    except UnderstudyError:
        raise
    except api.RetryError as e:
        cause: BaseException = e
        while isinstance(cause, api.RetryError) and cause.cause:
            cause = cause.cause
        late = isinstance(cause, (http.Timeout, api.GatewayTimeout))
        code = "TIMEOUT" if late else "BQ_QUOTA" if _reason(cause) in QUOTA else "BQ_UNREACHABLE"
        raise RemoteError(code, where, f"gave up after retries: {_words(cause)}", "run again later") from e
    except api.GoogleAPICallError as e:
        raise _refusal(e, where) from e
    except GoogleAuthError as e:
        raise RemoteError("BQ_CREDENTIALS", where, _words(e), "renew the credentials") from e
    except http.Timeout as e:
        raise RemoteError("TIMEOUT", where, "BigQuery did not answer in time", "run again, or raise timeout_s") from e
    except (http.RequestException, ConnectionError) as e:
        raise RemoteError("BQ_UNREACHABLE", where, _words(e), "run again; no row of this source was kept") from e


QUOTA = ("quotaExceeded", "rateLimitExceeded", "billingTierLimitExceeded")


def _refusal(error: Any, where: str) -> ConfigError | RemoteError:
    reason, words = _reason(error), _words(error)
    if reason == "bytesBilledLimitExceeded":
        return RemoteError("BQ_COST", where, words, "narrow the query, or raise max_bytes")
    if reason in QUOTA:
        return RemoteError("BQ_QUOTA", where, words, "wait, or ask for more quota")
    if reason == "invalidQuery":
        return ConfigError("SQL_SYNTAX", where, words, "run the query by hand and mend it")
    if error.code in (401, 403):
        fix = "the account needs bigquery.jobs.create on the project and read access to the tables"
        return RemoteError("BQ_DENIED", where, words, fix)
    if error.code == 404:
        return RemoteError("BQ_MISSING", where, words, "check project, location and table names")
    return RemoteError("BQ_ERROR", where, words, "run again")


def _reason(error: Any) -> str:
    entries = getattr(error, "errors", None) or [{}]
    return str(entries[0].get("reason", "")) if isinstance(entries[0], dict) else ""


def _words(error: BaseException) -> str:
    return str(getattr(error, "message", "") or error).split("\n")[0][:300]
