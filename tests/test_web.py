"""A web source: sites of different structure, one schema, day by day; what brings nothing is set aside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from website import Site, reply, site

from understudy.config import CollectConfig, SourceConfig, WebStep
from understudy.core.records import Ledger, read_jsonl
from understudy.data.sources import collect
from understudy.data.web import Surroundings, read_web
from understudy.errors import UnderstudyError

DAY = "2026-11-20"
SIGNS = ["aries", "taurus", "gemini"]
NAMES = {"aries": "Овен", "taurus": "Телец", "gemini": "Близнецы"}
FIELDS = {"response": "text", "group": "date", "category": "sign"}
PROMPT = "Гороскоп для знака {sign} на {date}"


def article(sign: str, day: str) -> str:
    """A site with a page a sign and day, and the text in paragraphs."""
    return (
        "<!doctype html><html><head><title>x</title><script>var a = 1;</script></head><body><nav>menu</nav>"
        f"<article class=forecast><h1>{NAMES[sign]}</h1><time datetime='{day}'>сегодня</time>"
        f"<p>День {day} принесёт знаку {NAMES[sign]} &laquo;удачу&raquo;.</p><p>Вечером  отдохните.</p>"
        "</article></body></html>"
    )


def table(day: str) -> str:
    """A site with all signs of a day on one page, in a table, with dates written as people write them."""
    year, month, number = day.split("-")
    rows = "".join(
        f"<tr class=row><td class=s>{NAMES[s]}</td><td class=d>{number}.{month}.{year}</td>"
        f"<td class=t>Знаку {NAMES[s]} стоит быть смелее {day}.</td></tr>"
        for s in SIGNS
    )
    return f"<html><body><table>{rows}</table></body></html>"


def first_site(host: Site) -> dict[str, Any]:
    return {
        "name": "stars",
        "urls": [host.url("/{sign}/{as_of}")],
        "values": {"sign": SIGNS},
        "columns": {"sign": "h1", "date": "time@datetime", "text": "article p"},
        "marker": "article.forecast",
    }


def second_site(host: Site) -> dict[str, Any]:
    return {
        "name": "moon",
        "urls": [host.url("/day/{as_of:%d-%m-%Y}")],
        "item": "tr.row",
        "columns": {"sign": ".s", "date": ".d", "text": ".t"},
        "dates": {"date": "%d.%m.%Y"},
    }


def web(*sites: dict[str, Any], hosts: list[Site], **options: Any) -> SourceConfig:
    """A source that may read the test's own hosts, quickly."""
    fetch = {
        "requests_per_s": 1000,
        "deadline_s": 5,
        "allow_hosts": [h.host for h in hosts],
        **options.pop("fetch", {}),
    }
    given = {
        "kind": "web",
        "sites": list(sites),
        "fields": FIELDS,
        "prompt_template": PROMPT,
        "fetch": fetch,
        **options,
    }
    return SourceConfig.model_validate(given)


def gather(
    source: SourceConfig, folder: Path, day: str = DAY, **around: Any
) -> tuple[Ledger, list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows and rejects of one day; the ledger must balance."""
    out = folder / ".out"
    counts: dict[str, int] = {}
    surroundings = Surroundings(**{"cache": folder / "cache", **around})
    ledger = collect(
        CollectConfig(sources=[source]),
        folder,
        out,
        web=lambda notes: read_web(WebStep(source=source, as_of=day), notes, surroundings, counts),
    )
    rows, rejects = list(read_jsonl(out / "rows.jsonl")), list(read_jsonl(out / "rejects.jsonl"))
    assert ledger.balanced and ledger.rows_out == len(rows) and sum(ledger.rejected.values()) == len(rejects)
    return ledger, rows, rejects


def code(source: SourceConfig, folder: Path, **around: Any) -> UnderstudyError:
    with pytest.raises(UnderstudyError) as e:
        gather(source, folder, **around)
    return e.value


@pytest.fixture
def hosts() -> Iterator[tuple[Site, Site]]:
    """Two sites that know the days 14 to 20 of November 2026."""
    days = [f"2026-11-{n}" for n in range(14, 21)]
    with ExitStack() as stack:
        one = stack.enter_context(site({f"/{s}/{d}": reply(article(s, d)) for s in SIGNS for d in days}))
        two = stack.enter_context(site({f"/day/{d[8:]}-{d[5:7]}-{d[:4]}": reply(table(d)) for d in days}))
        yield one, two


def test_two_layouts_give_one_schema(hosts: tuple[Site, Site], tmp_path: Path) -> None:
    one, two = hosts
    _, rows, rejects = gather(web(first_site(one), second_site(two), hosts=[one, two], licence="CC0"), tmp_path)
    assert not rejects and len(rows) == 6
    assert {key for row in rows for key in row["meta"]} == {
        "source", "site", "collected_at", "licence", "group", "category",
    }  # fmt: skip
    assert [(r["meta"]["site"], r["meta"]["category"], r["meta"]["group"]) for r in rows] == [
        (name, NAMES[sign], DAY) for name in ("stars", "moon") for sign in SIGNS
    ]
    assert rows[0]["messages"] == [
        {"role": "user", "content": f"Гороскоп для знака Овен на {DAY}"},
        {"role": "assistant", "content": f"День {DAY} принесёт знаку Овен «удачу».\nВечером отдохните."},
    ]
