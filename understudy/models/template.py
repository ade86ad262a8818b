"""The text of a request: `$name` is the place of a block of JSON, `$$` a dollar sign.

A template ships with the package or is a file of the project. What is filled in is JSON on one line, so that no value
can be taken for another part of the request.
"""

from __future__ import annotations

import json
import string
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from understudy.core.records import digest
from understudy.errors import ConfigError

MAX_BYTES = 200_000
"""Of a template; it is sent with every request."""


class Template:
    """A checked template. `needed`: placeholders that it must have; `optional`: others that it may have.

    Raises ConfigError TPL_SYNTAX, TPL_UNDEFINED or TPL_INCOMPLETE; `where` names the template.
    """

    def __init__(self, text: str, where: object, needed: Collection[str], optional: Collection[str] = ()) -> None:
        known = sorted({*needed, *optional})
        listed = ", ".join(f"${name}" for name in known)
        _refuse_broken(text, where)
        found = _placeholders(text)
        for name in (name for name in found if name not in known):
            near = get_close_matches(name, known, 1)
            fix = f"did you mean ${near[0]}?" if near else f"there are {listed}; write $$ for a dollar sign"
            raise ConfigError("TPL_UNDEFINED", f"{where}:{found[name]}", f"the placeholder ${name} is not known", fix)
        if missing := [name for name in needed if name not in found]:
            what = f"lacks {', '.join(f'${name}' for name in missing)}"
            raise ConfigError("TPL_INCOMPLETE", where, what, "put each where its block of JSON belongs")
        self.text, self.placeholders = text, frozenset(found)
        self.digest = digest(text)

    @classmethod
    def read(cls, path: Path, where: object, needed: Collection[str], optional: Collection[str] = ()) -> Template:
        """The template in a file. Raises what the constructor does, and TPL_SYNTAX for what is no text."""
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            what = f"{len(data):,} bytes; a template has at most {MAX_BYTES:,}"
            raise ConfigError("TPL_SYNTAX", where, what, "examples belong into the coverage set")
        try:
            text = data.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as e:
            raise ConfigError("TPL_SYNTAX", where, f"no UTF-8 at byte {e.start + 1}", "save it as UTF-8") from None
        return cls(text, where, needed, optional)

    def fill(self, **blocks: Any) -> str:
        """The text with a block of JSON in the place of each placeholder; blocks without a place are left out."""
        return string.Template(self.text).substitute(
            {name: json.dumps(blocks[name], ensure_ascii=False) for name in self.placeholders}
        )


def _placeholders(text: str) -> dict[str, int]:
    """Name of each placeholder -> the line where it stands first."""
    found: dict[str, int] = {}
    for match in string.Template.pattern.finditer(text):
        if name := match["named"] or match["braced"]:
            found.setdefault(name, _line(text, match.start()))
    return found


def _refuse_broken(text: str, where: object) -> None:
    for match in string.Template.pattern.finditer(text):
        if match["invalid"] is not None:
            place = f"{where}:{_line(text, match.start())}"
            raise ConfigError("TPL_SYNTAX", place, "a `$` that no name follows", "write $$ for a dollar sign")
    if not text.strip():
        raise ConfigError("TPL_SYNTAX", where, "the template is empty", "`understudy prompts` writes the shipped one")


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
