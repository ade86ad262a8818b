"""From the bytes of a page to rows: decoding, what a reader sees of it, and the columns that a site's selectors name.

Encoding, in this order: the site's `charset`, byte order mark, HTTP header, meta tag, UTF-8. Nothing is guessed: text
that reads like another encoding's is set aside as MOJIBAKE. Text that pages hide from readers is not text.
"""

from __future__ import annotations

import codecs
import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

from understudy.config import SiteConfig
from understudy.data.clean import Fault, guess_encoding
from understudy.data.sources.markup import MAX_DEPTH, too_deep
from understudy.data.sources.visible import TEXTLESS, hidden_parts, hides
from understudy.data.web.pagestore import Page
from understudy.errors import ConfigError

BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
HEADER_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
TYPES = ("text/html", "application/xhtml+xml", "text/plain", "")
MOJIBAKE = 0.1
"""Share of the words with letters beyond ASCII that may read like another encoding's."""

_BLOCKS = (
    "address article aside blockquote br dd details div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6"
    " header hr li main nav ol p pre section summary table td th tr ul"
)
BLOCKS = frozenset(_BLOCKS.split(" "))
SPACE = re.compile(r"[^\S\n]+")

_ORDER = (
    r"(?:ignore|disregard|forget)\s+(?:\w+\s+){0,3}(?:instructions?|prompts?|rules)\b"
    r"|\byou\s+are\s+(?:now\s+)?an?\s+(?:ai|language\s+model|assistant|llm)\b"
    r"|\b(?:system|developer)\s+prompt\b|\bnew\s+instructions?\s*:"
    r"|(?:игнорируй|забудь|не\s+учитывай)(?:те)?\s+(?:\w+\s+){0,3}(?:инструкци|указани|правил)"
    r"|\bты\s+(?:теперь\s+)?(?:языковая\s+модель|ассистент|нейросеть)\b|\bсистемн\w+\s+(?:промпт|инструкци)"
    r"|<\|(?:im_start|im_end|system|endoftext)\|>|\[/?INST\]|<<SYS>>"
)
ORDER = re.compile(_ORDER, re.IGNORECASE)
"""What a text says that speaks to a language model, in English and Russian."""

CYRILLIC_AS_LATIN = re.compile(r"[À-ÿ]{3,}")
SWAPPED_CASE = re.compile(r"[а-яё][А-ЯЁ]{2,}")
WORD = re.compile(r"\S*[^\x00-\x7f]\S*")


@dataclass(frozen=True)
class Found:
    """One row of a page: `number` counts the items from 1."""

    number: int
    values: dict[str, str | None]
    suspect: bool


@dataclass
class View:
    """A page as a reader sees it; `hidden_orders` tells whether what it hides speaks to a language model."""

    url: str
    tree: LexborHTMLParser
    unseen: set[int] = field(default_factory=set)
    """Elements that are hidden, by themselves or by one around them."""
    hidden_orders: bool = False


def filled(template: str, day: str, values: Mapping[str, str], *, url: bool = False) -> str:
    """A site's template with the day and values; in a URL, values are percent-encoded."""
    given = {key: quote(value, safe="") if url else value for key, value in values.items()}
    return template.format(as_of=_Day.fromisoformat(day), **given)


class _Day(datetime.date):
    """A date that is `2026-11-20` in a format without directives."""

    def __format__(self, spec: str) -> str:
        return self.strftime(spec) if spec else self.isoformat()


def view(page: Page, site: SiteConfig) -> View:
    """Decode and parse a page, and take out what is hidden. Raises Fault CONTENT_TYPE, CHARSET, PAGE_DEPTH."""
    kind = page.content_type.split(";")[0].strip().lower()
    if kind not in TYPES:
        raise Fault("CONTENT_TYPE", f"the server calls it {kind[:60]!r}, no page")
    text = decode(page, site.charset)
    if too_deep(text):
        raise Fault("PAGE_DEPTH", f"more than {MAX_DEPTH} elements inside each other")
    shown = View(page.url, LexborHTMLParser(text))
    for node, inside in hidden_parts(shown.tree):
        shown.hidden_orders |= bool(ORDER.search(node.text(deep=True)))
        shown.unseen |= inside
    return shown


def decode(page: Page, charset: str | None = None) -> str:
    """The text of a page. Raises Fault CHARSET for an encoding that Python does not know."""
    name = charset or _stated(page)
    try:
        # Browsers read both as cp1252, which has letters where Latin-1 has controls.
        known = {"iso8859-1": "cp1252", "ascii": "cp1252"}.get(codecs.lookup(name).name, name)
        text = page.body.decode(known, "replace")
    except (LookupError, ValueError, TypeError):
        raise Fault("CHARSET", f"unknown encoding {name[:40]!r}; set the site's charset") from None
    return text.removeprefix("\ufeff")


def _stated(page: Page) -> str:
    for mark, name in BOMS:
        if page.body.startswith(mark):
            return name
    if found := HEADER_CHARSET.search(page.content_type):
        return found[1]
    if meta := META_CHARSET.search(page.body[:4096]):
        # A page whose meta tag could be read in ASCII is not in UTF-16.
        name = meta[1].decode("ascii", "replace")
        return "utf-8" if name.lower().startswith("utf-16") else name
    return "utf-8"


def mojibake(text: str) -> float:
    """Share of the words beyond ASCII that read like a text in another encoding; 0 without such words."""
    words = WORD.findall(text)
    if "\ufffd" in text:
        return 1.0
    if not words:
        return 0.0
    odd = sum(1 for word in words if _read_wrong(word))
    return odd / len(words)


def _read_wrong(word: str) -> bool:
    if CYRILLIC_AS_LATIN.search(word) or SWAPPED_CASE.search(word):
        return True
    for encoding in ("cp1251", "cp1252"):
        try:
            word.encode(encoding).decode("utf-8")
        except ValueError:
            continue
        return True
    return False


def rows(shown: View, site: SiteConfig, day: str, values: Mapping[str, str]) -> Iterator[Found | Fault]:
    """The rows of a page, or why one is set aside: MARKER_MISSING, NO_ITEM, VALUE_UNKNOWN, DATE_FORMAT, MOJIBAKE."""

    def template(text: str) -> str:
        return filled(text, day, values)

    body = shown.tree.root
    if body is None:
        yield Fault("NO_ITEM", "the page is empty")
        return
    if site.marker:
        wanted = template(site.marker)
        marks = select(body, wanted, shown, site)
        seen = [text_of(mark) for mark in marks]
        if not marks:
            yield Fault("MARKER_MISSING", f"nothing matches the marker {wanted!r}: no real page of this site")
            return
        held = template(site.marker_text) if site.marker_text else ""
        if held and not any(held in text for text in seen):
            yield Fault("MARKER_MISSING", f"the marker says {seen[0][:60]!r}, not {held!r}")
            return
    items = select(body, template(site.item), shown, site) if site.item else [body]
    if not items:
        yield Fault("NO_ITEM", f"nothing matches the item {site.item!r}")
    for number, item in enumerate(items, 1):
        try:
            found = {name: _column(item, template(rule), shown, site) for name, rule in site.columns.items()}
            found = {name: _mapped(name, value, site) for name, value in found.items()}
        except Fault as fault:
            yield fault
            continue
        text = "\n".join(value for value in found.values() if value)
        if mojibake(text) > MOJIBAKE:
            detail = f"reads like another encoding: {text[:40]!r}; set the site's charset"
            yield Fault("MOJIBAKE", detail)
            continue
        yield Found(number, found, bool(ORDER.search(text)))


def encoding_hint(page: Page) -> str:
    """What the bytes look like, for the message only."""
    return guess_encoding(page.body[:20_000])


def links(shown: View, selector: str, site: SiteConfig) -> list[str]:
    """Targets of the links that a selector finds, as they stand in the page."""
    root = shown.tree.root
    nodes = select(root, selector, shown, site) if root else []
    return [href for node in nodes if (href := (node.attributes.get("href") or "").strip())]


def select(node: LexborNode, selector: str, shown: View, site: SiteConfig) -> list[LexborNode]:
    """Matches in document order that a reader sees. Raises ConfigError SELECTOR."""
    try:
        return [found for found in node.css(selector) if found.mem_id not in shown.unseen]
    except SelectolaxError:
        raise ConfigError("SELECTOR", f"sites.{site.name}", f"{selector!r} is no CSS selector", "mend it") from None


def _column(item: LexborNode, rule: str, shown: View, site: SiteConfig) -> str | None:
    """A column's value: a constant, an attribute of the first match, or the text of all matches, line by line."""
    if rule.startswith("="):
        return rule[1:]
    selector, _, attribute = rule.rpartition("@") if re.search(r"@[\w:-]+$", rule) else (rule, "", "")
    nodes = select(item, selector, shown, site) if selector else [item]
    if attribute:
        return next((v.strip() for n in nodes if (v := n.attributes.get(attribute)) is not None), None)
    texts = [text for node in nodes if (text := text_of(node))]
    return "\n".join(texts) if texts else None


def _mapped(name: str, value: str | None, site: SiteConfig) -> str | None:
    if value is None:
        return None
    if name in site.maps:
        if value not in site.maps[name]:
            raise Fault("VALUE_UNKNOWN", f"column {name!r} says {value[:60]!r}, which its map does not hold")
        value = site.maps[name][value]
    if name in site.dates:
        try:
            value = datetime.datetime.strptime(value, site.dates[name]).date().isoformat()
        except ValueError:
            raise Fault("DATE_FORMAT", f"column {name!r} says {value[:60]!r}, not {site.dates[name]!r}") from None
    return value


def text_of(node: LexborNode) -> str:
    """What a reader sees of a node that is not hidden: blocks on lines of their own, white space folded.

    Iterative, for any depth.
    """
    parts: list[str] = []
    stack: list[tuple[LexborNode, bool]] = [(node, False)]
    while stack:
        at, closing = stack.pop()
        if at.is_text_node:
            parts.append(SPACE.sub(" ", (at.text_content or "").replace("\n", " ")))
            continue
        block = at.tag in BLOCKS
        if block:
            parts.append("\n")
        if closing or not at.is_element_node or (at is not node and (at.tag in TEXTLESS or hides(at))):
            continue
        if block:
            stack.append((at, True))
        children = list(at.iter(include_text=True))
        stack += [(child, False) for child in reversed(children)]
    lines = (SPACE.sub(" ", line).strip() for line in "".join(parts).split("\n"))
    return "\n".join(line for line in lines if line)
