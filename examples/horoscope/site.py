"""Two made-up sites with daily forecasts, for the example to collect from: python site.py [--port 8123].

One site shows a day on one page; the other has a page for each sign and day, in windows-1251, with advertising around.
As on real sites, some texts are too short, some are the other site's with a few words changed, some pages are missing
or say so politely with status 200. Days after today are not written yet.
"""

from __future__ import annotations

import argparse
import html
import random
import sys
from contextlib import suppress
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from forecasts import SIGNS, Sign, forecast

MONTHS = (
    *("января", "февраля", "марта", "апреля", "мая", "июня"),
    *("июля", "августа", "сентября", "октября", "ноября", "декабря"),
)
REWORDED = (("вас ждёт", "вас ожидает"), ("сегодня", "в этот день"), ("лучше", "полезно"), ("приятное", "новое"))
ROBOTS = "User-agent: *\nDisallow: /private/\n"
NOT_WRITTEN = "<html><head><title>Страница не найдена</title></head><body><p>Страница не найдена</p></body></html>"


def chance(*of: object) -> random.Random:
    return random.Random(" ".join(map(str, of)))


def day_page(day: date) -> str:
    """All signs of a day, one article each; now and then one is empty or a stub."""
    cards = []
    for sign in SIGNS:
        draw = chance("card", sign.slug, day).random()
        text = "" if draw < 0.02 else "Скоро здесь появится прогноз." if draw < 0.05 else forecast("day", sign, day)
        if draw > 0.9:
            text += " \N{GLOWING STAR} Счастливое число 7."
        body = "".join(f"<p>{html.escape(part)}.</p>" for part in text.removesuffix(".").split(". ") if part)
        cards.append(
            f'<article class="card" data-sign="{sign.name}"><h2>{sign.name}</h2>'
            f'<div class="body">{body}</div></article>'
        )
    return (
        f'<html><head><meta charset="utf-8"><title>Прогноз на день</title></head><body>'
        f'<nav>Главная | Архив</nav><time datetime="{day.isoformat()}"></time>{"".join(cards)}'
        f"<footer>Сайт выдуман.</footer></body></html>"
    )


def sign_page(sign: Sign, day: date) -> str:
    """One sign on one day; every eighth text is the other site's with a word or two changed."""
    text = forecast("sign", sign, day)
    if chance("copy", sign.slug, day).random() < 0.12:
        text = forecast("day", sign, day)
        for word, other in REWORDED:
            text = text.replace(word, other, 1)
    when = f"{day.day} {MONTHS[day.month - 1]} {day.year}"
    return (
        f'<html><head><meta http-equiv="Content-Type" content="text/html; charset=windows-1251"></head><body>'
        f'<div class="reklama">Скидки только сегодня!</div><div id="content"><h1>Гороскоп {sign.name}</h1>'
        f'<span class="date">{when}</span><div class="txt">{html.escape(text)}<script>count()</script>'
        f'<span style="display:none">служебный текст</span></div></div></body></html>'
    )


def respond(path: str, today: date) -> tuple[int, str, bytes]:
    """Status, content type and body."""
    parts = path.strip("/").split("/")
    try:
        if path == "/robots.txt":
            return 200, "text/plain", ROBOTS.encode()
        if len(parts) == 2 and parts[0] == "day" and (day := date.fromisoformat(parts[1])) <= today:
            return 200, "text/html; charset=utf-8", day_page(day).encode()
        if len(parts) == 3 and parts[0] == "sign":
            sign = next(s for s in SIGNS if s.slug == parts[1])
            day = datetime.strptime(parts[2], "%d-%m-%Y.html").date()
            draw = chance("page", sign.slug, day).random()
            if day <= today and draw > 0.03:
                return 200, "text/html; charset=windows-1251", sign_page(sign, day).encode("cp1251")
            if day <= today and draw > 0.015:
                return 200, "text/html; charset=utf-8", NOT_WRITTEN.encode()
    except (ValueError, StopIteration):
        pass
    return 404, "text/html; charset=utf-8", NOT_WRITTEN.encode()


class Handler(BaseHTTPRequestHandler):
    """Answers one request; writes a line per request to stderr with --log."""

    protocol_version = "HTTP/1.1"
    today: date
    log = False

    def do_GET(self) -> None:
        status, kind, body = respond(self.path.split("?")[0], self.today)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        if self.log:
            super().log_message(format, *args)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--today", type=date.fromisoformat, default=datetime.now(UTC).date())
    parser.add_argument("--log", action="store_true", help="print every request")
    given = parser.parse_args()
    Handler.today, Handler.log = given.today, given.log
    with ThreadingHTTPServer(("127.0.0.1", given.port), Handler) as server:
        print(f"two sites at http://127.0.0.1:{server.server_port}", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
