"""The rules of a robots.txt for one crawler, after RFC 9309: the longest rule wins, and Allow wins a tie.

The standard library's parser takes the first rule that fits and knows no `*` or `$`: it may allow what a site forbids.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes

MAX_BYTES = 512 << 10
"""What is read of a robots.txt; RFC 9309 asks for 500 KiB at least."""
MAX_RULES = 10_000
# Reserved characters keep their percent signs: `/a%2Fb` is not `/a/b`.
RESERVED = re.compile(r"%(?:2[1346789ABCF]|3[ABDF]|40|5[BD]|25)", re.IGNORECASE)


@dataclass(frozen=True)
class Rules:
    """Rules of one host for us; without rules everything may be fetched."""

    rules: list[tuple[str, bool]] = field(default_factory=list)
    """(path pattern, allowed)."""
    delay_s: float = 0.0
    """`Crawl-delay`, in seconds."""

    def allows(self, target: str) -> bool:
        """Whether a path with its query may be fetched; robots.txt itself always."""
        if target.split("?")[0] == "/robots.txt":
            return True
        path = _normal(target)
        fitting = [(len(pattern), allowed) for pattern, allowed in self.rules if _fits(pattern, path)]
        return max(fitting, default=(0, True))[1]


def parse(body: bytes, agent: str) -> Rules:
    """The rules for `agent`, else those for `*`; what is no rule is passed over."""
    groups: dict[str, list[tuple[str, bool]]] = {}
    delays: dict[str, float] = {}
    names: list[str] = []
    open_group = False
    for line in body[:MAX_BYTES].decode("utf-8-sig", "replace").splitlines():
        key, _, value = (part.strip() for part in line.split("#")[0].partition(":"))
        key = key.lower()
        if key == "user-agent":
            names = [*names, value.lower()] if open_group else [value.lower()]
            open_group = True
            groups.setdefault(value.lower(), [])
        elif key in ("allow", "disallow"):
            open_group = False
            for name in names:
                if value and len(groups[name]) < MAX_RULES:
                    groups[name].append((_normal(value), key == "allow"))
        elif key == "crawl-delay":
            open_group = False
            if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", value):
                delays |= dict.fromkeys(names, float(value))
    name = agent if agent in groups else "*"
    return Rules(groups.get(name, []), delays.get(name, 0.0))


def _normal(path: str) -> str:
    """Percent-encoding in one form, so that `/%D0%B0`, `/а` and `/%d0%b0` are the same path."""
    parts: list[str] = []
    at = 0
    for kept in RESERVED.finditer(path):
        parts += [_encoded(path[at : kept.start()]), kept[0].upper()]
        at = kept.end()
    return "".join([*parts, _encoded(path[at:])])


def _encoded(part: str) -> str:
    return quote(unquote_to_bytes(part), safe="/*$?=&;:@+,!'()~[]")


def _fits(pattern: str, path: str) -> bool:
    """`*` stands for anything, `$` at the end for the end; linear, whatever the pattern."""
    whole = pattern.endswith("$")
    first, *rest = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    at = len(first)
    if not rest:
        return not whole or at == len(path)
    for piece in rest[:-1]:
        found = path.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    last = rest[-1]
    if whole:
        return len(path) - len(last) >= at and path.endswith(last)
    return path.find(last, at) >= 0
