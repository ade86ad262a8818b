"""One page at a time, politely: robots rules, rate per host, one retry loop under one deadline, conditional requests.

Every request opens a connection of its own through `address.Connector`; redirects are followed by hand, each hop under
the same rules. A page comes whole or not at all.
"""

from __future__ import annotations

import ssl
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import httpcore2

from understudy import __version__
from understudy.config import FetchConfig
from understudy.data.clean import Fault
from understudy.data.web import robots
from understudy.data.web.address import (
    Address,
    Blocked,
    Clock,
    Connector,
    NoAddress,
    Resolver,
    allowed_hosts,
    blocked,
    parse,
    refuse_literal,
    resolve,
)
from understudy.data.web.pagestore import Page, PageStore

AGENT = "understudy"
MAX_HOPS = 5
READ_S = 20.0
HEAD_BYTES = 256 << 10
SURPLUS_S = 0.25
TRANSIENT = {408, 500, 502, 503, 504}
REDIRECTS = {301, 302, 303, 307, 308}
MAX_DELAY_S = 60.0


class SiteFault(Fault):
    """The site cannot be read now; another day it may. A plain Fault is the page's own and will not pass."""


@dataclass(frozen=True)
class Answer:
    """What a server said to one request; the body is unpacked, and empty unless the status is 200."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class _TryAgain(Exception):
    def __init__(self, fault: SiteFault, wait_s: float | None = None) -> None:
        self.fault, self.wait_s = fault, wait_s


@dataclass
class Fetcher:
    """Fetches pages for one crawl. `headers` go to `origins` only; `kept` are pages that are not asked for again."""

    cfg: FetchConfig
    headers: Mapping[str, str] = field(default_factory=dict)
    origins: frozenset[str] = frozenset()
    cache: PageStore | None = None
    kept: PageStore | None = None
    resolver: Resolver = resolve
    counts: dict[str, int] = field(default_factory=dict)
    """What was asked: requests, not_modified, bytes, retries."""

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.listed = allowed_hosts(self.cfg.allow_hosts)
        self.connector = Connector(self.clock, self.listed, self.resolver)
        self.rules: dict[str, robots.Rules | SiteFault] = {}
        self.turns: dict[str, float] = {}
        self.waited_s = 0.0
        """Spent on the pauses between requests, which are no page's fault and count for no deadline."""
        self.pool = httpcore2.ConnectionPool(
            ssl_context=_trust(), max_keepalive_connections=0, network_backend=self.connector
        )

    def close(self) -> None:
        self.pool.close()

    def page(self, url: str) -> Page:
        """The page behind a URL, after redirects.

        Raises SiteFault URL_BLOCKED, TLS_VERIFY, TIMEOUT, UNREACHABLE, BODY_SHORT, RATE_LIMITED, HTTP_5xx,
        ROBOTS_UNAVAILABLE; Fault URL_SCHEME, URL_MALFORMED, URL_REDIRECT, ROBOTS_DISALLOWED, BODY_LIMIT, BODY_CORRUPT,
        HTTP_4xx.
        """
        if self.kept and (found := self.kept.get(url)):
            return found
        address = parse(url)
        final, answer = self._follow(address, robots_apply=True)
        if answer.status != 200:
            raise Fault(f"HTTP_{answer.status}", f"the server says {answer.status}")
        return Page(final.url, answer.headers.get("content-type", ""), answer.body)

    def keep(self, url: str, page: Page) -> None:
        """A page that brought rows is not asked for again on its day, whatever is made of it."""
        if self.kept:
            self.kept.put(url, page)

    def _follow(self, address: Address, *, robots_apply: bool, waived: bool = True) -> tuple[Address, Answer]:
        """The answer at the end of the redirects, and where that is; `waived`: listed hosts may be private."""
        seen: list[str] = []
        ends = time.monotonic() + self.cfg.deadline_s - self.waited_s
        while True:
            here = f"{address.host}:{address.port}"
            try:
                refuse_literal(address, waived and here in self.listed)
            except Fault as fault:
                raise _site(fault) from None
            if robots_apply and not self._rules(address, waived).allows(address.target):
                raise Fault("ROBOTS_DISALLOWED", f"robots.txt of {address.netloc} disallows it")
            self.connector.waived = waived
            answer = self._ask(address, ends + self.waited_s, whole=robots_apply)
            if answer.status not in REDIRECTS or "location" not in answer.headers:
                return address, answer
            seen.append(address.url)
            try:
                address = parse(answer.headers["location"], address)
            except Fault as fault:
                raise Fault("URL_REDIRECT", f"leads to {fault.detail}") from None
            if address.url in seen or len(seen) > MAX_HOPS:
                what = "in a circle" if address.url in seen else f"more than {MAX_HOPS} times"
                raise Fault("URL_REDIRECT", f"the server redirects {what}")
            # A host of the intranet may point at its neighbours; a public one may not point into the intranet.
            waived = waived and here in self.listed

    def _rules(self, address: Address, waived: bool) -> robots.Rules:
        """Robots rules of an origin, asked once. Raises SiteFault ROBOTS_UNAVAILABLE, or what its connection met."""
        found = self.rules.get(address.origin)
        if found is None:
            try:
                found = self._read_rules(address, waived)
            except SiteFault as fault:
                if fault.reason == "URL_BLOCKED":  # by the way that led here, not for ever
                    raise
                found = fault
            self.rules[address.origin] = found
        if isinstance(found, SiteFault):
            raise found
        return found

    def _read_rules(self, address: Address, waived: bool) -> robots.Rules:
        try:
            _, answer = self._follow(parse("/robots.txt", address), robots_apply=False, waived=waived)
        except SiteFault as fault:
            if fault.reason.startswith("HTTP_") or fault.reason in ("RATE_LIMITED", "BODY_SHORT"):
                detail = f"robots.txt of {address.netloc} cannot be read ({fault.reason}), so nothing may be"
                raise SiteFault("ROBOTS_UNAVAILABLE", detail) from None
            raise
        except Fault as fault:
            if fault.reason == "URL_REDIRECT":  # the RFC: not found within five redirects is not there
                return robots.Rules()
            raise SiteFault("ROBOTS_UNAVAILABLE", f"robots.txt of {address.netloc}: {fault.detail}") from None
        return robots.parse(answer.body, AGENT) if answer.status == 200 else robots.Rules()

    def _ask(self, address: Address, deadline: float, *, whole: bool) -> Answer:
        """One URL, with its tries. `whole`: a body of unstated length must end like an HTML page."""
        for attempt in range(self.cfg.attempts):
            deadline += self._take_turn(address)
            try:
                return self._once(address, deadline, whole)
            except _TryAgain as again:
                wait = 0.5 * 2**attempt if again.wait_s is None else again.wait_s
                if attempt + 1 == self.cfg.attempts or time.monotonic() + wait >= deadline:
                    raise again.fault from None
            finally:
                self._end_turn(address)
            self._count("retries")
            time.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _take_turn(self, address: Address) -> float:
        """Wait until this host may be asked again; the seconds waited."""
        wait = max(0.0, self.turns.get(address.netloc, 0.0) - time.monotonic())
        time.sleep(wait)
        self.waited_s += wait
        return wait

    def _end_turn(self, address: Address) -> None:
        """The pause counts from the end of a request, so that a slow host is not asked sooner."""
        rules = self.rules.get(address.origin)
        delay = min(rules.delay_s, MAX_DELAY_S) if isinstance(rules, robots.Rules) else 0.0
        self.turns[address.netloc] = time.monotonic() + max(1 / self.cfg.requests_per_s, delay)

    def _count(self, name: str, number: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + number

    def _once(self, address: Address, deadline: float, whole: bool) -> Answer:
        """One request. Raises _TryAgain for what may be better in a moment, SiteFault and Fault for the rest."""
        self.clock.deadline = deadline
        limit = self.cfg.max_page_bytes if whole else robots.MAX_BYTES
        self.clock.bytes_left = limit + HEAD_BYTES
        own = address.origin in self.origins
        stored = self.cache.get(address.url) if self.cache and not (own and self.headers) else None
        self._count("requests")
        headers = [*self._headers(own).items(), *(stored.validators().items() if stored else ())]
        started = False
        try:
            with self.pool.stream("GET", _target(address), headers=headers, extensions=_timeouts()) as response:
                started = True
                answer = _read(response, limit, whole)
        except Blocked:
            raise _site(blocked(address)) from None
        except httpcore2.TimeoutException:
            raise _TryAgain(SiteFault("TIMEOUT", f"{address.netloc} took longer than fetch.deadline_s")) from None
        except httpcore2.ConnectError as e:
            raise _refused_connection(e, address) from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as e:
            raise _TryAgain(_cut_off(e, started, address)) from None
        self._count("bytes", len(answer.body))
        if answer.status == 304 and stored:
            self._count("not_modified")
            return Answer(200, {"content-type": stored.content_type}, stored.body)
        if answer.status == 429 or answer.status in TRANSIENT:
            raise _TryAgain(_busy(answer, address), _retry_after(answer.headers))
        self._remember(address, answer, own)
        return answer

    def _headers(self, own: bool) -> dict[str, str]:
        agent = f"{AGENT}/{__version__}" + (f" (+{self.cfg.contact})" if self.cfg.contact else "")
        common = {"User-Agent": agent, "Accept": "text/html,application/xhtml+xml;q=0.9,text/plain;q=0.5"}
        common |= {"Accept-Encoding": "gzip, deflate", "Connection": "close"}
        return {**common, **(self.headers if own else {})}

    def _remember(self, address: Address, answer: Answer, own: bool) -> None:
        etag, modified = answer.headers.get("etag", ""), answer.headers.get("last-modified", "")
        storable = "no-store" not in answer.headers.get("cache-control", "").lower()
        if self.cache and answer.status == 200 and (etag or modified) and storable and not (own and self.headers):
            kind = answer.headers.get("content-type", "")
            self.cache.put(address.url, Page(address.url, kind, answer.body, etag, modified))


OUT_OF_DATE = (9, 10)
"""OpenSSL's codes for a certificate that is not yet, or no longer, valid."""


@cache
def _trust() -> ssl.SSLContext:
    """The certificates that this machine trusts."""
    return ssl.create_default_context()


def _site(fault: Fault) -> SiteFault:
    return SiteFault(fault.reason, fault.detail)


def _target(address: Address) -> httpcore2.URL:
    return httpcore2.URL(
        scheme=address.scheme.encode(), host=address.host.encode(), port=address.port, target=address.target.encode()
    )


def _timeouts() -> dict[str, Any]:
    return {"timeout": {"connect": READ_S, "read": READ_S, "write": READ_S, "pool": READ_S}}


def _refused_connection(error: Exception, address: Address) -> Exception:
    cause = error.args[0] if error.args else None
    if isinstance(cause, ssl.SSLCertVerificationError):
        what = f"{address.netloc} shows a certificate that does not hold: {cause.verify_message}"
        if cause.verify_code in OUT_OF_DATE:
            what += f"; is this machine's clock right? It says {datetime.now(UTC).date()}"
        return SiteFault("TLS_VERIFY", what)
    if isinstance(cause, ssl.SSLError):
        return SiteFault("TLS_VERIFY", f"{address.netloc} speaks no TLS that can be trusted ({cause.reason})")
    if isinstance(error, NoAddress):
        return _TryAgain(SiteFault("UNREACHABLE", f"no address is known for {address.host}"))
    return _TryAgain(SiteFault("UNREACHABLE", f"{address.netloc} takes no connection"))


def _cut_off(error: Exception, started: bool, address: Address) -> SiteFault:
    if started:
        return SiteFault("BODY_SHORT", f"the answer of {address.netloc} was cut off ({error})"[:300])
    return SiteFault("UNREACHABLE", f"{address.netloc} gave no HTTP answer")


def _busy(answer: Answer, address: Address) -> SiteFault:
    if answer.status == 429:
        asked = answer.headers.get("retry-after", "")[:40]
        return SiteFault("RATE_LIMITED", f"{address.netloc} says 429, Retry-After {asked or 'not given'!r}")
    return SiteFault(f"HTTP_{answer.status}", f"{address.netloc} says {answer.status}")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, never below 0; None when it does not say so in a form that can be read."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        until = parsedate_to_datetime(text)
        # The server's own clock, when it shows it: ours may be wrong.
        now = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
        return max(0.0, (until.astimezone(UTC) - now.astimezone(UTC)).total_seconds())
    except (ValueError, OverflowError, TypeError):
        return None


def _read(response: httpcore2.Response, limit: int, whole: bool) -> Answer:
    """Status, headers and, for status 200, the whole body, unpacked."""
    headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in response.headers}
    if response.status != 200:
        return Answer(response.status, headers)
    unpack = _Unpacker(headers.get("content-encoding", ""), limit, whole)
    parts: list[bytes] = []
    tail = b""
    for chunk in response.iter_stream():
        tail = (tail + chunk)[-64:]
        parts.append(unpack.feed(chunk))
        if unpack.full:
            return Answer(response.status, headers, b"".join(parts))
    body = b"".join(parts)
    stated = "content-length" in headers and "transfer-encoding" not in headers
    if stated and _surplus(response.extensions["network_stream"], tail):
        raise Fault("BODY_SHORT", "the answer is longer than its Content-Length, which would cut it off")
    if unpack.unfinished:
        raise _TryAgain(SiteFault("BODY_SHORT", "the packed answer ends before its end"))
    framed = stated or "transfer-encoding" in headers or unpack.packed
    if whole and not framed and not body.rstrip().lower().endswith(b"</html>"):
        raise _TryAgain(SiteFault("BODY_SHORT", "the answer states no length, and does not end like a page"))
    return Answer(response.status, headers, body)


def _surplus(stream: Any, tail: bytes) -> bool:
    """Whether more came, or is about to come, after the stated length."""
    guarded = stream.get_extra_info("guarded")
    common = min(len(guarded.last), len(tail))
    if common and guarded.last[-common:] != tail[-common:]:
        return True
    try:
        return bool(guarded.inner.read(1, SURPLUS_S))
    except (httpcore2.TimeoutException, httpcore2.NetworkError):
        return False


class _Unpacker:
    """Content-Encoding undone piece by piece, never beyond the limit.

    `whole`: more than the limit is a fault; else the beginning will do.
    """

    def __init__(self, encoding: str, limit: int, whole: bool) -> None:
        name = encoding.strip().lower()
        self.packed = name in ("gzip", "x-gzip", "deflate")
        if not self.packed and name not in ("", "identity"):
            raise Fault("BODY_CORRUPT", f"Content-Encoding {name[:40]!r}, which was not asked for")
        self.name, self.room, self.whole, self.full = name, limit, whole, False
        self.inner: Any = None

    @property
    def unfinished(self) -> bool:
        return self.packed and not (self.inner and self.inner.eof)

    def feed(self, chunk: bytes) -> bytes:
        """Raises Fault BODY_LIMIT, BODY_CORRUPT."""
        if self.packed and chunk:
            if self.inner is None:
                # "deflate" is zlib by the book and bare in the wild; zlib's first byte says which.
                bare = self.name == "deflate" and chunk[0] & 0x0F != 8
                self.inner = zlib.decompressobj(-15 if bare else 15 if self.name == "deflate" else 31)
            try:
                chunk = self.inner.decompress(chunk, self.room + 1)
            except zlib.error as e:
                raise Fault("BODY_CORRUPT", f"the packed answer cannot be unpacked: {e}") from None
            if self.inner.eof and self.inner.unused_data:
                raise Fault("BODY_CORRUPT", "something follows the packed answer")
        self.room -= len(chunk)
        self.full = self.room < 0
        if self.full and self.whole:
            raise Fault("BODY_LIMIT", "the page is longer than fetch.max_page_bytes")
        return chunk
