"""Fetching: a page comes whole or not at all, in bounded time and memory, as politely as the site asks."""

from __future__ import annotations

import gzip
import random
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from website import Asked, Site, reply, site

from understudy.config import FetchConfig
from understudy.data.clean import Fault
from understudy.data.web import fetch
from understudy.data.web.fetch import Fetcher, SiteFault
from understudy.data.web.pagestore import PageStore

HTML = "<html><body>" + "".join(f"<p>line {i}</p>" for i in range(300)) + "</body></html>"


def fetcher(
    host: Site, *more: Site, headers: dict[str, str] | None = None, cache: Path | None = None, **options: Any
) -> Fetcher:
    settings = {
        "requests_per_s": 1000.0,
        "attempts": 1,
        "deadline_s": 5.0,
        "allow_hosts": [h.host for h in (host, *more)],
    }
    return Fetcher(
        FetchConfig.model_validate({**settings, **options}),
        headers=headers or {},
        origins=frozenset({f"http://{host.host}"}),
        cache=PageStore(cache) if cache else None,
    )


def fault(host: Site, path: str = "/", **options: Any) -> Fault:
    with pytest.raises(Fault) as e:
        fetcher(host, **options).page(host.url(path))
    return e.value


def talk(*parts: bytes, pause_s: float = 0.0, forever: bool = False) -> Callable[[socket.socket, Asked], None]:
    """A server that sends these parts one after another, perhaps over and over."""

    def send(connection: socket.socket, asked: Asked) -> None:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause_s)
        while forever:
            connection.sendall(parts[-1])
            time.sleep(pause_s)

    return send


# --- a page comes whole or not at all


def chunked(body: bytes) -> bytes:
    pieces = [body[i : i + 700] for i in range(0, len(body), 700)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


@pytest.mark.parametrize("framing", ["length", "chunked", "packed", "close", "packed and close"])
def test_no_cut_admits_a_part_of_a_page(framing: str) -> None:
    body = HTML.encode()
    whole = {
        "length": reply(body),
        "chunked": chunked(body),
        "packed": reply(body, packed=True),
        "close": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + body,
        "packed and close": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(body, mtime=0),
    }[framing]
    cuts = random.Random(7).sample(range(1, len(whole) - 1), 20)
    with site({f"/{cut}": whole[:cut] for cut in cuts} | {"/whole": whole}) as host:
        reader = fetcher(host)
        assert reader.page(host.url("/whole")).body == body
        for cut in cuts:
            with pytest.raises(SiteFault) as e:
                reader.page(host.url(f"/{cut}"))
            assert e.value.reason in ("BODY_SHORT", "UNREACHABLE"), cut


def test_lengths_that_lie() -> None:
    true = reply(HTML)
    claims = {"/longer": len(HTML) + 10, "/shorter": len(HTML) - 10, "/much-shorter": 20}
    with site({p: true.replace(b"%d" % len(HTML), b"%d" % n, 1) for p, n in claims.items()}) as host:
        assert [fault(host, path).reason for path in claims] == ["BODY_SHORT"] * 3
        host.pages["/late"] = talk(
            true.replace(b"%d" % len(HTML), b"%d" % (len(HTML) - 10))[:-10], HTML[-10:].encode(), pause_s=0.1
        )
        assert fault(host, "/late").reason == "BODY_SHORT"


def test_an_endless_body_ends_at_the_limit() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    with site(
        {
            "/body": talk(head, b"x" * 65536, forever=True),
            "/head": talk(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000, forever=True),
        }
    ) as host:
        assert fault(host, "/body", max_page_bytes=300_000).reason == "BODY_LIMIT"
        assert fault(host, "/head").reason in ("UNREACHABLE", "BODY_LIMIT")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_not_unpacked(encoding: str) -> None:
    packer = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
    bomb = packer.compress(bytes(40_000_000)) + packer.flush()
    with site({"/": reply(bomb, content_encoding=encoding)}) as host:
        reader = fetcher(host)
        with pytest.raises(Fault) as e:
            reader.page(host.url("/"))
        assert e.value.reason == "BODY_LIMIT" and reader.counts.get("bytes", 0) == 0


def test_odd_encodings_of_the_body_are_set_aside() -> None:
    double = zlib.compress(zlib.compress(HTML.encode()))
    pages = {
        "/br": reply(b"\x0b\x02\x80", content_encoding="br"),
        "/twice": reply(double, content_encoding="deflate, deflate"),
        "/not": reply(HTML, content_encoding="gzip"),
        "/more": reply(zlib.compress(HTML.encode()) + b"more", content_encoding="deflate"),
    }
    with site(dict(pages)) as host:
        assert {fault(host, path).reason for path in pages} == {"BODY_CORRUPT"}


# --- in bounded time


@pytest.mark.slow
@pytest.mark.parametrize("where", ["nothing", "head", "body"])
def test_a_slow_server_meets_the_deadline(where: str) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nContent-Type: text/html\r\n\r\n"
    pages = {
        "nothing": talk(b"", pause_s=0.2, forever=True),
        "head": talk(b"HTTP/1.1 200 OK\r\nX: ", b"y", pause_s=0.05, forever=True),
        "body": talk(head, b"z", pause_s=0.05, forever=True),
    }
    with site({"/": pages[where]}) as host:
        reader = fetcher(host, deadline_s=0.5)
        started = time.monotonic()
        with pytest.raises(SiteFault) as e:
            reader.page(host.url("/"))
        assert e.value.reason == "TIMEOUT" and time.monotonic() - started < 2


def test_a_busy_server_is_asked_again_and_then_left() -> None:
    with site({"/": [reply(status=503), reply(HTML)], "/down": reply(status=502)}) as host:
        assert fetcher(host, attempts=2).page(host.url("/")).body == HTML.encode()
        found = fault(host, "/down", attempts=2)
        assert isinstance(found, SiteFault) and found.reason == "HTTP_502"
        assert host.paths().count("/down") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "least_s"), [("1", 0.9), ("date", 0.9), ("-5", 0.4), ("soon", 0.4), ("1.5", 0.4), ("", 0.4)]
)
def test_retry_after_is_obeyed_in_every_form(asked: str, least_s: float) -> None:
    """A date counts from the server's own clock, here a year behind; what cannot be read is a short pause."""
    then = time.time() - 365 * 86400
    headers = {
        "retry_after": formatdate(then + 1, usegmt=True) if asked == "date" else asked,
        "date": formatdate(then, usegmt=True),
    }
    with site({"/": [reply(status=429, **headers), reply(HTML)]}) as host:
        fetcher(host, attempts=2).page(host.url("/"))
        first, second = (entry.at for entry in host.log if entry.path == "/")
        assert least_s <= second - first < 3


@pytest.mark.parametrize("asked", ["3600", "99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_too_long_a_wait_is_not_begun(asked: str) -> None:
    with site({"/": reply(status=429, retry_after=asked)}) as host:
        started = time.monotonic()
        found = fault(host, attempts=4)
        assert isinstance(found, SiteFault) and found.reason == "RATE_LIMITED" and asked[:20] in found.detail
        assert time.monotonic() - started < 2 and host.paths() == ["/"]


def test_a_host_is_asked_at_its_rate() -> None:
    with site({f"/{i}": reply(HTML) for i in range(6)}) as host:
        reader = fetcher(host, requests_per_s=20)
        for i in range(6):
            reader.page(host.url(f"/{i}"))
        gaps = [b.at - a.at for a, b in zip(host.log, host.log[1:], strict=False)]
        assert len(gaps) == 6 and min(gaps) >= 0.05


def test_a_crawl_delay_is_obeyed() -> None:
    robots = reply("User-agent: *\nCrawl-delay: 0.3\n", kind="text/plain")
    with site({"/robots.txt": robots, "/a": reply(HTML), "/b": reply(HTML)}) as host:
        reader = fetcher(host)
        reader.page(host.url("/a")), reader.page(host.url("/b"))
        assert host.log[2].at - host.log[1].at > 0.28


@pytest.mark.slow
def test_pauses_that_a_site_asks_for_are_not_taken_off_a_page_that_redirects() -> None:
    robots = reply("User-agent: *\nCrawl-delay: 0.8\n", kind="text/plain")
    pages = {"/robots.txt": robots, "/a": reply(status=301, location="/a/"), "/a/": reply(HTML), "/": reply(HTML)}
    with site(pages) as host:
        reader = fetcher(host, deadline_s=0.6)
        reader.page(host.url("/"))
        assert reader.page(host.url("/a")).url == host.url("/a/")


# --- robots.txt


def test_robots_rules_are_obeyed() -> None:
    rules = "User-agent: *\nDisallow: /\n\nUser-agent: Understudy\nDisallow: /private\n"
    with site(
        {"/robots.txt": reply(rules, kind="text/plain"), "/private/a": reply(HTML), "/open": reply(HTML)}
    ) as host:
        assert fetcher(host).page(host.url("/open")).body
        assert fault(host, "/private/a").reason == "ROBOTS_DISALLOWED"
        assert "/private/a" not in host.paths()


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_without_robots_everything_is_allowed(status: int) -> None:
    with site({"/robots.txt": reply(status=status), "/": reply(HTML)}) as host:
        assert fetcher(host).page(host.url("/")).body == HTML.encode()


@pytest.mark.parametrize("answer", [reply(status=500), reply(status=503), reply(status=429), reply("x" * 99)[:-9]])
def test_robots_that_cannot_be_read_forbid_everything(answer: bytes) -> None:
    with site({"/robots.txt": answer, "/": reply(HTML)}) as host:
        assert fault(host).reason == "ROBOTS_UNAVAILABLE" and host.paths() == []


def test_ten_megabytes_of_robots_are_read_to_the_limit() -> None:
    rules = b"User-agent: *\nDisallow: /no\n" + b"Disallow: /never/ever\n" * 480_000
    with site({"/robots.txt": reply(rules, kind="text/plain"), "/no": reply(HTML), "/yes": reply(HTML)}) as host:
        reader = fetcher(host)
        assert reader.page(host.url("/yes")).body
        with pytest.raises(Fault) as e:
            reader.page(host.url("/no"))
        assert e.value.reason == "ROBOTS_DISALLOWED"


# --- redirects


def to(place: str, status: int = 302) -> bytes:
    return reply(status=status, location=place)


def test_redirects_are_followed_within_limits() -> None:
    pages = {
        "/a": to("/b", 301),
        "/b": to("../c?x=1", 308),
        "/c?x=1": reply(HTML),
        "/loop": to("/pool"),
        "/pool": to("/loop"),
    }
    pages |= {f"/{i}": to(f"/{i + 1}") for i in range(50)}
    with site(dict(pages)) as host:
        page = fetcher(host).page(host.url("/a"))
        assert (page.url, page.body) == (host.url("/c?x=1"), HTML.encode())
        assert fault(host, "/loop").reason == fault(host, "/0").reason == "URL_REDIRECT"
        assert len(host.paths()) < 3 + 3 + 7


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "ftp://stars.example/", "data:text/html,x", "javascript:1", "http://u:p@x.example/"]
)
def test_a_redirect_to_another_scheme_is_refused(place: str) -> None:
    with site({"/": to(place)}) as host:
        assert fault(host).reason == "URL_REDIRECT"


def test_a_redirect_inside_is_blocked() -> None:
    with site() as inside, site() as host:
        for name in ("127.0.0.1", "localhost", "[::1]", "2130706433", "[::ffff:127.0.0.1]"):
            host.pages["/"] = to(f"http://{name}:{inside.port}/")
            found = fault(host)
            assert isinstance(found, SiteFault) and found.reason == "URL_BLOCKED"
        assert inside.connections == 0


def test_no_credential_leaves_for_another_host() -> None:
    secret = {"Authorization": "Bearer canary", "Cookie": "session=canary", "X-Token": "canary"}
    with site({"/": reply(HTML)}) as other, site() as host:
        host.pages |= {"/": reply(status=302, location=other.url("/"), set_cookie="id=canary"), "/b": reply(HTML)}
        reader = fetcher(host, other, headers=secret)
        reader.page(host.url("/")), reader.page(host.url("/b"))
        assert {key: host.log[0].headers[key.lower()] for key in secret} == secret
        assert other.paths() == ["/"] and all("canary" not in str(asked.headers) for asked in other.log)
        # What a server sets is not kept either.
        assert "id=canary" not in host.log[-1].headers["cookie"]


# --- conditional requests


def test_an_unchanged_page_is_not_sent_again(tmp_path: Path) -> None:
    def page(connection: socket.socket, asked: Asked) -> None:
        same = asked.headers.get("if-none-match") == '"1"' and "if-modified-since" in asked.headers
        connection.sendall(
            reply(status=304) if same else reply(HTML, etag='"1"', last_modified=formatdate(0, usegmt=True))
        )

    with site({"/": page}) as host:
        first, second = fetcher(host, cache=tmp_path), fetcher(host, cache=tmp_path)
        assert first.page(host.url("/")).body == second.page(host.url("/")).body == HTML.encode()
        assert (first.counts.get("not_modified", 0), second.counts["not_modified"]) == (0, 1)
        # A damaged copy is as good as none.
        for file in tmp_path.iterdir():
            file.write_bytes(file.read_bytes()[:-9])
        third = fetcher(host, cache=tmp_path)
        assert third.page(host.url("/")).body == HTML.encode() and "not_modified" not in third.counts


def test_what_a_token_opened_is_not_kept(tmp_path: Path) -> None:
    with site({"/": reply(HTML, etag='"1"')}) as host:
        fetcher(host, cache=tmp_path, headers={"Authorization": "x"}).page(host.url("/"))
        assert not list(tmp_path.glob("*"))


# --- who we are, and who they are


def test_the_user_agent_says_who_asks() -> None:
    with site({"/": reply(HTML)}) as host:
        fetcher(host, contact="https://example.org/bot").page(host.url("/"))
        assert host.log[-1].headers["user-agent"].startswith("understudy/")
        assert host.log[-1].headers["user-agent"].endswith("(+https://example.org/bot)")


@pytest.mark.parametrize(
    ("pair", "says"), [("self-signed.pem", "self-signed"), ("expired.pem", "clock right? It says 2")]
)
def test_a_certificate_that_does_not_hold_is_refused(pair: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Key pairs made for this test; one was valid in 2001, as any is to a clock ten years fast, and is trusted else."""
    if pair == "expired.pem":
        monkeypatch.setenv("SSL_CERT_FILE", str(Path(__file__).with_name(pair)))
        monkeypatch.setattr(fetch, "_trust", fetch._trust.__wrapped__)  # read anew, for this test alone
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(__file__).with_name(pair))
    listener = socket.create_server(("127.0.0.1", 0))
    received: list[bytes] = []

    def serve() -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
                received.append(secure.recv(1000))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        reader = Fetcher(FetchConfig(allow_hosts=[host], deadline_s=5))
        with pytest.raises(SiteFault) as e:
            reader.page(f"https://{host}/")
        thread.join(5)
    assert e.value.reason == "TLS_VERIFY" and says in e.value.detail and not any(received)


def test_http_nonsense_is_no_page() -> None:
    answers = [
        b"hello\r\n\r\n",
        b"\x00" * 500,
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n<html>",
    ]
    answers.append(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef")
    with site() as host:
        for answer in answers:
            host.pages["/"] = answer
            assert fault(host).reason in ("UNREACHABLE", "BODY_SHORT"), answer
