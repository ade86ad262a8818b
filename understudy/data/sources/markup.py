"""HTML to the text that a reader sees: nothing hidden, nothing of scripts, blocks on lines of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from understudy.data.clean import Fault
from understudy.data.sources.visible import TEXTLESS, hidden_parts, hides
from understudy.errors import ConfigError, extra

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

CHROME = frozenset(("aside", "footer", "form", "header", "nav"))
"""What surrounds the text of a page; left out of a page's main text."""
PARAGRAPHS = frozenset(
    {
        "article", "blockquote", "dl", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "main", "ol", "p", "pre",
        "section", "table", "ul",
    }
)  # fmt: skip
BLOCKS = frozenset(
    {
        "address", "aside", "body", "br", "caption", "center", "dd", "details", "div", "dt", "fieldset",
        "figcaption", "footer", "form", "header", "hr", "html", "legend", "li", "nav", "summary", "tbody",
        "tfoot", "thead", "tr",
    }
)  # fmt: skip
TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*)([^<>]*)")
FLAT = frozenset(
    {
        "area", "base", "body", "br", "col", "dd", "dt", "embed", "head", "hr", "html", "img", "input", "li", "link",
        "meta", "option", "p", "param", "rb", "rp", "rt", "source", "tbody", "td", "tfoot", "th", "thead", "tr",
        "track", "wbr",
    }
)  # fmt: skip
"""Elements without an end, or whose end may be left out: they do not say how deep a page is."""
MAX_DEPTH = 1_000
"""Of open elements. Parsing takes the square of the depth (100,000 took 16 s); browsers stop at 512."""
MAX_LEAVES = 5_000
"""Of tags that look like no nesting: `<path/>` in a drawing, `i<n` in a script. A page can be made to look so."""
CELLS = frozenset(("td", "th"))
SPACE = re.compile(r"[ \t\r\n\f]+")
EDGES = re.compile(r"[ \t]*\n[ \t]*")
EMPTY_LINES = re.compile(r"\n{3,}")
CELL, EMPTY = "\x02", "\x03"
"""Where a table cell begins, and what stands for an empty one, until white space is folded."""
CELL_BLANK = re.compile(f"{CELL}[ \n]*+\t")
ROW_BLANK = re.compile(f"\n[ \t]*+{EMPTY}[ \t{EMPTY}]*+(?=\n)")
PRESERVED = "\v"
"""Stands for the line ends of preformatted text until the others are folded."""


def page_text(page: str) -> tuple[str, str]:
    """(title, main text) of a page; the main text is that of its `main` or only `article`, else of its body.

    Raises Fault ROW_DEPTH.
    """
    tree = _parse(page)
    title, unseen = tree.css_first("title"), _unseen(tree)
    mains, articles = _seen(tree, "main, [role=main]", unseen), _seen(tree, "article", unseen)
    root = mains[0] if mains else articles[0] if len(articles) == 1 else tree.body
    return SPACE.sub(" ", title.text() if title else "").strip(), visible_text(root, CHROME) if root else ""


def select_texts(page: str, select: Mapping[str, str]) -> dict[str, str | None]:
    """The visible text of what each CSS selector finds, one block for each match; None where it finds nothing."""
    if not select:
        return {}
    tree = _parse(page)
    unseen = _unseen(tree)
    from selectolax.lexbor import SelectolaxError

    found: dict[str, str | None] = {}
    for column, selector in select.items():
        try:
            nodes = _seen(tree, selector, unseen)
        except SelectolaxError as e:
            raise ConfigError("SELECTOR", f"select.{column}", f"{selector!r} is no CSS selector", "mend it") from e
        texts = [text for text in map(visible_text, nodes) if text]
        found[column] = "\n\n".join(texts) if texts else None
    return found


def visible_text(node: LexborNode, without: frozenset[str] = frozenset()) -> str:
    """Text below `node` less what is hidden and the elements named in `without`.

    Paragraph-like elements are parted by an empty line, other blocks by a line end, table cells, empty ones too, by a
    tab; a row of empty cells is nothing.
    """
    text = "".join(_pieces(node, TEXTLESS | without))
    text = CELL_BLANK.sub(f"{EMPTY}\t", text).replace(CELL, "")
    text = EDGES.sub("\n", ROW_BLANK.sub("\n", f"\n{text}\n"))
    return EMPTY_LINES.sub("\n\n", text).strip("\n \t").replace(EMPTY, "").replace(PRESERVED, "\n")


def _unseen(tree: LexborHTMLParser) -> set[int]:
    return {own for _, inside in hidden_parts(tree) for own in inside}


def _seen(tree: LexborHTMLParser, selector: str, unseen: set[int]) -> list[LexborNode]:
    return [node for node in tree.css(selector) if node.mem_id not in unseen]


def _parse(page: str) -> LexborHTMLParser:
    with extra("html"):
        from selectolax.lexbor import LexborHTMLParser
    if too_deep(page):
        raise Fault("ROW_DEPTH", f"elements nested deeper than {MAX_DEPTH} levels")
    return LexborHTMLParser(page)


def too_deep(page: str) -> bool:
    """Whether elements nest beyond MAX_DEPTH; an end tag of nothing that is open counts for nothing, as in parsers."""
    opened: dict[str, int] = {}
    depth = leaves = 0
    for tag in TAG.finditer(page):
        name, ends = tag[2].lower(), bool(tag[1])
        if name in FLAT:
            continue
        drawn = tag[3].endswith("/") and (opened.get("svg") or opened.get("math"))
        if not ends and (drawn or opened.get("script")):
            leaves += 1
        elif not ends or opened.get(name):
            step = -1 if ends else 1
            opened[name] = opened.get(name, 0) + step
            depth += step
        if depth > MAX_DEPTH or leaves > MAX_LEAVES:
            return True
    return False


def _pieces(root: LexborNode, unseen: frozenset[str]) -> Iterator[str]:
    """Texts and breaks in document order; a loop and no recursion, since pages nest as deep as they like."""
    node: LexborNode | None = root
    kept = 0
    while node is not None:
        below = None
        if node.is_text_node:
            text = node.text_content or ""
            yield text.replace("\n", PRESERVED) if kept else SPACE.sub(" ", text)
        elif node.is_element_node and (node is root or not (node.tag in unseen or hides(node))):
            yield CELL if node.tag in CELLS else _break(node.tag)
            below = node.first_child
            if below is None and node.tag in CELLS:
                yield "\t"
            kept += node.tag == "pre" and below is not None
        if below is not None:
            node = below
            continue
        while node is not None and node.mem_id != root.mem_id and node.next is None:
            node = node.parent
            if node is not None:
                kept -= node.tag == "pre"
                yield "\t" if node.tag in CELLS else _break(node.tag)
        if node is None or node.mem_id == root.mem_id:
            return
        node = node.next


def _break(tag: str | None) -> str:
    return "\n\n" if tag in PARAGRAPHS else "\n" if tag in BLOCKS else ""
