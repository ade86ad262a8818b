"""What of a page a reader sees: the one rule for HTML files and for web sites.

Only the page itself is asked: its elements, their `hidden` and `aria-hidden`, and the style in the element. What a
stylesheet or a script hides is not seen to be hidden.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

UNRENDERED = frozenset(("noscript", "script", "style", "template"))
"""Elements that no reader sees, nor anything in them."""
TEXTLESS = UNRENDERED | {
    "area", "audio", "base", "button", "canvas", "datalist", "dialog", "embed", "head", "iframe", "input", "link",
    "map", "meta", "object", "param", "picture", "select", "source", "svg", "textarea", "title", "track", "video",
}  # fmt: skip
"""Elements whose text is none of the page's: controls, drawings, what stands in for something else."""
WHOLE = frozenset(("html", "body"))
"""A page that hides all of itself is shown by its script."""
HIDING = re.compile(r"(?:display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![.\d]*[1-9]))", re.IGNORECASE)


def hides(node: LexborNode) -> bool:
    """Whether an element itself says that it is hidden."""
    if node.tag in WHOLE:
        return False
    given = node.attributes
    named = "hidden" in given or (given.get("aria-hidden") or "").strip().lower() == "true"
    return named or bool(HIDING.search(given.get("style") or ""))


def hidden_parts(tree: LexborHTMLParser) -> Iterator[tuple[LexborNode, set[int]]]:
    """The outermost hidden elements of a page, each with the `mem_id` of every node in it."""
    known = set[int]()
    for node in tree.css(f"{', '.join(sorted(UNRENDERED))}, [hidden], [aria-hidden], [style]"):
        if node.mem_id not in known and (node.tag in UNRENDERED or hides(node)):
            own = {inner.mem_id for inner in node.traverse()}
            known |= own
            yield node, own
