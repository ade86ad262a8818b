"""Web sites, one day at a time, as rows: crawl(site) -> rows and what is set aside, each with its URL.

A page's own fault (404, soft 404, no item, wrong encoding) sets the page aside. What concerns the site (no answer, 429,
a private address) stops the run, so that a day is stored only when it is whole; `on_error: skip` sets that aside too.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from understudy.config import SiteConfig, SourceConfig, WebStep
from understudy.data.clean import Fault, Notes, scrub
from understudy.data.sources.reader import Bad, Row
from understudy.data.sources.sql import resolve_env
from understudy.data.web import page as pages
from understudy.data.web.address import Address, Resolver, allowed_hosts, parse, refuse_literal, resolve
from understudy.data.web.fetch import Fetcher, SiteFault
from understudy.data.web.pagestore import PageStore
from understudy.errors import ConfigError, IntegrityError, RemoteError, UnderstudyError

IN_A_ROW = 3
"""Site faults one after another, after which the rest of the site is skipped."""
HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
RESERVED = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "te", "upgrade"}
CONFIG_FAULTS = ("URL_SCHEME", "URL_MALFORMED")

Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Surroundings:
    """Where pages are kept, how to report, and who answers for names; none of it is identity."""

    cache: Path | None = None
    progress: Progress = lambda done, total, values: None
    resolver: Resolver = resolve


@dataclass(frozen=True)
class Wanted:
    """A page to fetch, and the combinations of `values` that it brings rows for."""

    address: Address
    combinations: list[dict[str, str]]
    depth: int = 0


@dataclass
class Visit:
    """One site on one day."""

    site: SiteConfig
    day: str
    fetcher: Fetcher
    notes: Notes
    faults: list[tuple[str, str, str]] = field(default_factory=list)
    """(reason, URL, detail) of the pages that were set aside."""
    rows: int = 0

    def note(self, name: str, count: int = 1) -> None:
        self.notes[name] = self.notes.get(name, 0) + count


def wanted(site: SiteConfig, day: str) -> list[Wanted]:
    """The pages of `urls` for a day, each once. Raises ConfigError URL_SCHEME, URL_MALFORMED, URL_FORMAT."""
    found: dict[str, Wanted] = {}
    keys = list(site.values)
    for template in site.urls:
        for chosen in itertools.product(*site.values.values()):
            combination = dict(zip(keys, chosen, strict=True))
            try:
                address = parse(pages.filled(template, day, combination, url=True))
            except Fault as fault:
                raise ConfigError(fault.reason, f"sites.{site.name}.urls", fault.detail, "mend the URL") from None
            except (ValueError, KeyError, IndexError) as e:
                fix = "write {as_of}, {as_of:%d.%m.%Y} or a key of `values`"
                raise ConfigError("URL_FORMAT", f"sites.{site.name}.urls", f"{template!r}: {e}", fix) from None
            entry = found.setdefault(address.url, Wanted(address, []))
            if combination not in entry.combinations:
                entry.combinations.append(combination)
    return list(found.values())


def refuse_addresses(source: SourceConfig, day: str) -> None:
    """Raise for URLs that would surely be refused: ConfigError, or IntegrityError URL_BLOCKED. Asks no name server."""
    listed = allowed_hosts(source.fetch.allow_hosts)
    for site in source.sites:
        for page in wanted(site, day):
            try:
                refuse_literal(page.address, f"{page.address.host}:{page.address.port}" in listed)
            except Fault as fault:
                raise _error(fault, page.address.url) from None


def read_web(
    cfg: WebStep, notes: Notes, around: Surroundings, counts: dict[str, int]
) -> Iterator[tuple[str, Row | Bad]]:
    """(URL, row) of a source's sites, in their order; at the end `counts` says how much was asked.

    Raises RemoteError with the reason of what kept a site from being read, or of what all its pages lack;
    IntegrityError URL_BLOCKED; ConfigError URL_SCHEME, URL_MALFORMED, URL_FORMAT, SELECTOR, HEADER, ENV_MISSING.
    """
    plans = [(site, wanted(site, cfg.as_of)) for site in cfg.source.sites]
    total, done = sum(len(plan) for _, plan in plans), 0
    for site, plan in plans:
        fetcher = _fetcher(cfg, site, plan, around)
        visit = Visit(site, cfg.as_of, fetcher, notes)
        try:
            for item in _crawl(visit, plan, cfg.source):
                if item is None:
                    done += 1
                    total = max(total, done)
                    around.progress(done, total, {"rows": float(visit.rows), "aside": float(len(visit.faults))})
                else:
                    yield item
        finally:
            fetcher.close()
            for name, number in fetcher.counts.items():
                counts[name] = counts.get(name, 0) + number
        if not visit.rows and cfg.source.fetch.on_error == "stop":
            raise _empty(visit)


def _fetcher(cfg: WebStep, site: SiteConfig, plan: list[Wanted], around: Surroundings) -> Fetcher:
    source, day = cfg.source, cfg.as_of
    headers = {name: resolve_env(value, f"sites.{site.name}.headers") for name, value in site.headers.items()}
    for name, value in headers.items():
        if not HEADER.fullmatch(name) or name.lower() in RESERVED or not value.isprintable() or not value.isascii():
            what = f"{name[:40]!r} cannot be sent as it is"
            raise ConfigError("HEADER", f"sites.{site.name}.headers", what, "give a plain name and an ASCII value")
    return Fetcher(
        source.fetch,
        headers=headers,
        origins=frozenset(w.address.origin for w in plan),
        cache=PageStore(around.cache / "latest") if around.cache else None,
        kept=PageStore(around.cache / day) if around.cache else None,
        resolver=around.resolver,
    )


def _crawl(visit: Visit, plan: list[Wanted], source: SourceConfig) -> Iterator[tuple[str, Row | Bad] | None]:
    """Rows and set-aside pages, and None after each page."""
    site = visit.site
    queue, seen, in_a_row = list(plan), {w.address.url for w in plan}, 0
    hosts = {w.address.netloc for w in plan}
    for fetched in itertools.count():
        if fetched >= len(queue):
            return
        here = queue[fetched]
        if fetched >= site.max_pages:
            visit.note("CRAWL_CAP", len(queue) - fetched)
            return
        try:
            if in_a_row >= IN_A_ROW:
                raise SiteFault("SITE_SKIPPED", f"{IN_A_ROW} pages before it could not be read")
            found, shown = _page(visit, here, source)
            in_a_row = 0
            yield from found
            for link in _followed(visit, shown, here, hosts):
                if link.address.url not in seen:
                    seen.add(link.address.url)
                    queue.append(link)
        except SiteFault as fault:
            in_a_row += 1
            if source.fetch.on_error == "stop":
                raise _error(fault, here.address.url) from None
            yield _aside(visit, here.address.url, fault)
        except Fault as fault:
            in_a_row = 0
            yield _aside(visit, here.address.url, fault)
        yield None


def _page(visit: Visit, here: Wanted, source: SourceConfig) -> tuple[list[tuple[str, Row | Bad]], pages.View]:
    """The rows of one page. Raises Fault when it has none."""
    site, url = visit.site, here.address.url
    page = visit.fetcher.page(url)
    shown = pages.view(page, site)
    if shown.hidden_orders:
        visit.note("INJECTION_HIDDEN")
    found: list[tuple[str, Row | Bad]] = []
    faults: list[Fault] = []
    for combination in here.combinations:
        for item in pages.rows(shown, site, visit.day, combination):
            if isinstance(item, Fault):
                faults.append(item)
                continue
            found.append((url, _row(visit, url, item, source)))
    if not found and site.follow and here.depth < site.max_depth and all(f.reason == "NO_ITEM" for f in faults):
        visit.note("index_pages")
        return [], shown
    if not found and len({f.reason for f in faults}) == 1:
        hint = f" ({pages.encoding_hint(page)})" if faults[0].reason == "MOJIBAKE" else ""
        raise Fault(faults[0].reason, faults[0].detail + hint)
    if found:
        visit.fetcher.keep(url, page)
    found += [_aside(visit, url, fault) for fault in faults]
    return found, shown


def _row(visit: Visit, url: str, item: pages.Found, source: SourceConfig) -> Row | Bad:
    where = f"{url} item {item.number}"
    if item.suspect:
        visit.note("INJECTION_SUSPECT")
        if source.suspects == "quarantine":
            detail = "the text speaks to a language model"
            visit.faults.append(("INJECTION_SUSPECT", url, detail))
            return Bad(where, -1, "INJECTION_SUSPECT", detail)
    visit.rows += 1
    meta = {"site": visit.site.name, "collected_at": visit.day, "url": url}
    return Row(where, -1, scrub(dict(item.values), visit.notes), meta)


def _aside(visit: Visit, url: str, fault: Fault) -> tuple[str, Bad]:
    visit.faults.append((fault.reason, url, fault.detail))
    return url, Bad(url, -1, fault.reason, fault.detail)


def _followed(visit: Visit, shown: pages.View, here: Wanted, hosts: set[str]) -> Iterator[Wanted]:
    """Links to further pages of the site's own hosts, up to its depth."""
    site = visit.site
    if not site.follow:
        return
    base = _base(shown)
    selector = pages.filled(site.follow, visit.day, here.combinations[0])
    for text in pages.links(shown, selector, site):
        try:
            address = parse(quote(text, safe="%/:=&?~#+!$,;'@()*[]"), base)
        except Fault:
            visit.note("links_unreadable")
            continue
        if address.netloc not in hosts:
            visit.note("links_elsewhere")
        elif here.depth >= site.max_depth:
            visit.note("CRAWL_CAP")
        else:
            yield Wanted(address, here.combinations, here.depth + 1)


def _base(shown: pages.View) -> Address:
    """What a page's links are relative to: its own URL, or what its `base` element says."""
    own, told = parse(shown.url), shown.tree.css_first("base[href]")
    try:
        return parse((told.attributes.get("href") or "").strip(), own) if told else own
    except Fault:
        return own


def _error(fault: Fault, url: str) -> UnderstudyError:
    if fault.reason == "URL_BLOCKED":
        return IntegrityError(fault.reason, url, fault.detail)
    fix = "run again later: the pages read so far are kept; or set fetch.on_error to skip"
    return RemoteError(fault.reason, url, fault.detail, fix)


def _empty(visit: Visit) -> RemoteError:
    """A site that brought no row; under one reason when all its pages share it."""
    reasons = {reason for reason, _, _ in visit.faults}
    code = reasons.pop() if len(reasons) == 1 else "SITE_EMPTY"
    what = f"no page brings a row on {visit.day}"
    if visit.faults:
        reason, url, detail = visit.faults[0]
        what += f"; {len(visit.faults)} set aside, first {url}: {reason} ({detail})"
    return RemoteError(code, f"sites.{visit.site.name}", what, "look at the page and the selectors")


def outlook(source: SourceConfig, as_of: str) -> str:
    """What a web source will do on a run of that day, in a line; nothing is fetched."""
    plans = [wanted(site, as_of) for site in source.sites]
    days = source.days_until(as_of)
    hosts = sorted({w.address.netloc for plan in plans for w in plan})
    count = sum(map(len, plans))
    per_host = max(sum(w.address.netloc == host for plan in plans for w in plan) for host in hosts)
    seconds = per_host / source.fetch.requests_per_s
    follows = ", and what they link to" if any(site.follow for site in source.sites) else ""
    span = f"{days[0]} to {days[-1]}, {len(days)} days" if len(days) > 1 else days[0] if days else "no day yet"
    return (
        f"web source {source.name or 'web'}: {count} pages a day{follows} from {', '.join(hosts)}, "
        f"at least {seconds:.0f} s a day at {source.fetch.requests_per_s:g} requests a second and host; {span}"
    )
