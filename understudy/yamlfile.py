"""Plain YAML 1.2 from a file: values, and the place and spelling of each; every refusal is one error line.

Limits come first, so that a hostile file costs a second at most. No object is built from a tag, anchors are not
read, and no message shows a secret.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from understudy.errors import ConfigError, IntegrityError, UnderstudyError

Keys = tuple[str | int, ...]

# Measured on one core of two: 128 KiB of the slowest text found takes 0.5 s to parse, 10,000 nodes 0.6 s.
# A project with 100 sources stays under 64 KiB and 4,000 nodes.
MAX_BYTES = 128 * 1024
MAX_NODES = 8_000
MAX_DEPTH = 50
MAX_DIGITS = 40

ENV = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
KEY_SHAPE = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-(?=[A-Za-z0-9_-]*[0-9])[A-Za-z0-9_-]*[A-Za-z0-9]{16}[A-Za-z0-9_-]*|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|gh[opsur]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{20,}"
    r"|AIza[A-Za-z0-9_-]{30,}|xox[abeoprs]-[A-Za-z0-9-]{10,})|-----BEGIN [A-Z ]*PRIVATE KEY[\s\S]*"
)
_URL_PASSWORD = re.compile(r"(?<=://)[^\s/:@?#]*:([^\s/@]+)@|[?&](?:password|token|api_?key|secret)=([^\s&#]+)", re.I)
_SECRET_NAMES = {"api_key", "apikey", "password", "secret", "token"}
_SECRET_LINE = re.compile(r"((?:api[_-]?key|passw\w*|secret|token)['\"]?\s*:).*", re.I)

INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufffe\uffff]")
_LOOKALIKE = str.maketrans("аеорсухіјѕһԁԛԝкмтгпαορνικυτɡı", "aeopcyxijshdqwkmtrnaopvikutgi")


def dotted(keys: Keys) -> str:
    return ".".join(map(str, keys))


def short(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def masked(text: str) -> str:
    """`text` with known key shapes and the passwords of URLs replaced by `***`."""
    text = KEY_SHAPE.sub(lambda m: m[0][:4] + "***", text)
    for m in reversed(list(_url_passwords(text))):
        group = 1 if m[1] else 2
        text = text[: m.start(group)] + "***" + text[m.end(group) :]
    return text


def _url_passwords(text: str) -> Iterator[re.Match[str]]:
    # References are blanked at equal length first: `${env:USER}:${env:PASSWORD}@` holds colons of its own.
    blanked = ENV.sub(lambda m: "/" * len(m[0]), text)
    for m in _URL_PASSWORD.finditer(blanked):
        if not (m[1] or m[2]).startswith("***"):
            yield m


def secret_key(keys: Keys) -> bool:
    return any(str(k).lower() in _SECRET_NAMES for k in keys)


def read_bytes(path: Path) -> bytes:
    """The file's bytes; a device, a pipe or an oversized file is refused unread."""
    try:
        # O_NONBLOCK: opening a named pipe without it waits for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:
        raise ConfigError("PATH_NAME", ascii(str(path)), "is not a possible file name") from None
    except OSError as e:
        code, what, fix = {
            errno.ENOENT: ("CFG_NOT_FOUND", "no such file", "`understudy init` writes a starter"),
            errno.ENOTDIR: ("CFG_NOT_FOUND", "a parent of this path is a file", "pass the path of understudy.yaml"),
            errno.EACCES: ("CFG_DENIED", "may not be read by this user", "give read permission"),
            errno.EPERM: ("CFG_DENIED", "may not be read by this user", "give read permission"),
            errno.ELOOP: ("PATH_CONFLICT", "the symbolic link leads to itself", "point it at a file"),
            errno.ENAMETOOLONG: ("PATH_NAME", "the name is longer than the file system allows", "shorten it"),
        }.get(e.errno or 0, ("CFG_NOT_FILE", f"cannot be opened as a file ({e.strerror})", "pass a file"))
        raise ConfigError(code, path, what, fix) from None
    try:
        with os.fdopen(handle, "rb") as file:  # refuses a folder
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError("CFG_NOT_FILE", path, "is a device, pipe or socket", "pass a file")
            data = b"" if status.st_size > MAX_BYTES else file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        os.close(handle)
        raise ConfigError("CFG_NOT_FILE", path, "is a folder", f"pass {path / 'understudy.yaml'}") from None
    size = max(len(data), status.st_size)
    if size > MAX_BYTES:
        raise ConfigError("CFG_LIMIT", path, f"{size} bytes; at most {MAX_BYTES} are read", "keep data out of it")
    return data


def decode(path: Path, data: bytes) -> str:
    """UTF-8 with or without BOM, any line ends."""
    text = data.decode("utf-8", errors="replace")
    offset, seen = -1, ""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as e:
        offset, seen = e.start, f"byte 0x{data[e.start]:02x} is not UTF-8"
    bad = _CONTROL.search(text)
    if bad and (offset < 0 or bad.start() < offset):
        at = len(text[: bad.start()].encode())
        if offset < 0 or at < offset:
            offset, seen = at, f"control character U+{ord(bad[0]):04X}"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        offset, seen = 0, "looks like UTF-16"
    if offset >= 0:
        line = data.count(b"\n", 0, offset) + 1
        raise ConfigError("CFG_ENCODING", f"{path}:{line}", f"{seen}, at byte offset {offset}", "save it as UTF-8")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


class Reader:
    """One pass over the parser's events: limits, then values, with the place and spelling of each."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text
        self.places: dict[Keys, int] = {(): 0}
        self.spelled: dict[Keys, str] = {}
        self.nodes = 0

    def line(self, index: int) -> int:
        return self.text.count("\n", 0, index) + 1

    def place(self, index: int) -> str:
        return f"{self.path}:{self.line(index)}:{index - self.text.rfind(chr(10), 0, index)}"

    def at(self, keys: Keys) -> int:
        """Where `keys` stand in the file, or their nearest parent."""
        while keys not in self.places:
            keys = keys[:-1]
        return self.places[keys]

    def error(self, code: str, index: int, what: str, fix: str = "") -> UnderstudyError:
        kind = IntegrityError if code in ("CFG_TAG", "SECRET_IN_CONFIG") else ConfigError
        return kind(code, self.place(index), what, fix)

    def document(self) -> object:
        """The file's one document; None where it holds nothing."""
        from ruamel.yaml import YAML

        value: object = None
        documents = 0
        try:
            events = iter(YAML(typ="safe", pure=True).parse(self.text))
            for event in events:
                if type(event).__name__ != "DocumentStartEvent":
                    continue
                documents += 1
                index = event.start_mark.index
                if documents > 1:
                    raise self.error("CFG_SYNTAX", index, "a second document starts here", "keep one")
                if event.version or event.tags:
                    raise self.error("CFG_SYNTAX", index, "YAML directives are not read", "remove the lines with %")
                value = self._node(next(events), events, (), 0)
        except UnderstudyError:
            raise
        except Exception as e:
            # Beyond its own errors the parser lets OverflowError and the like escape (`"\UFFFFFFFF"`).
            raise self._syntax(e) from None
        return value

    def _syntax(self, e: Exception) -> UnderstudyError:
        mark, context_mark = getattr(e, "problem_mark", None), getattr(e, "context_mark", None)
        problem = getattr(e, "problem", None) or f"{type(e).__name__}: {e}"
        if mark is None or (context_mark and mark.index >= len(self.text.rstrip())):
            mark = context_mark  # at the end of the file, what was opened says more
        index = min(mark.index, len(self.text.rstrip())) if mark else max(self.places.values())
        if "tag handle" in problem:
            return self.error("CFG_TAG", index, problem, "remove the tag")
        context = getattr(e, "context", None)
        above, line = ["", *self.text.split("\n")][self.line(index) - 1 : self.line(index) + 1]
        line = _SECRET_LINE.sub(r"\1 ***", line).strip()
        if (opened := _SECRET_LINE.search(above)) and len(opened[0]) - len(opened[1]) < 4:
            line = "***"
        what = f"{context}, {problem}" if context else problem
        fix = "indent with spaces" if "\\t" in problem else ""
        return self.error("CFG_SYNTAX", index, f"{masked(what)}: {short(masked(line), 100)}", fix)

    def _node(self, event: Any, events: Iterator[Any], keys: Keys, depth: int) -> object:
        name, index = self._admit(event, depth)
        self.places.setdefault(keys, index)
        if name == "ScalarEvent":
            return self._scalar(event, keys)
        if name == "SequenceStartEvent":
            items: list[object] = []
            while type(event := next(events)).__name__ != "SequenceEndEvent":
                items.append(self._node(event, events, (*keys, len(items)), depth + 1))
            return items
        mapping: dict[str, object] = {}
        while type(event := next(events)).__name__ != "MappingEndEvent":
            key = self._key(event, depth)
            at = (*keys, key)
            if key in mapping:
                what = f"`{masked(dotted(at))}` stands twice, first on line {self.line(self.places[at])}"
                raise self.error("CFG_DUP_KEY", event.start_mark.index, what, "keep one")
            self.places[at] = event.start_mark.index
            mapping[key] = self._node(next(events), events, at, depth + 1)
        return mapping

    def _admit(self, event: Any, depth: int) -> tuple[str, int]:
        """Limits and tags, before anything is built."""
        name, index = type(event).__name__, event.start_mark.index
        self.nodes += 1
        if name == "AliasEvent" or event.anchor is not None:
            raise self.error("CFG_LIMIT", index, "anchors (&) and aliases (*) are not read", "write the value out")
        if event.ctag is not None:
            tag = short(str(event.tag), 60)
            raise self.error("CFG_TAG", index, f"the tag {tag} is refused: values are plain data", "remove the tag")
        if depth > MAX_DEPTH:
            raise self.error("CFG_LIMIT", index, f"nested deeper than {MAX_DEPTH} levels")
        if self.nodes > MAX_NODES:
            raise self.error("CFG_LIMIT", index, f"more than {MAX_NODES} keys and values")
        return name, index

    def _key(self, event: Any, depth: int) -> str:
        name, index = self._admit(event, depth)
        if name != "ScalarEvent":
            raise self.error("CFG_TYPE", index, "given a list or mapping as a key, wanted a name")
        key = str(event.value)
        if points := _confusable(key):
            raise self.error("CFG_CONFUSABLE", index, f"the key holds {points}", "retype it in plain letters")
        return key

    def _scalar(self, event: Any, keys: Keys) -> object:
        text, index = str(event.value), event.start_mark.index
        if bad := re.search("[\x00\ud800-\udfff]", text):
            offset = len(self.text[:index].encode())
            what = f"{dotted(keys)}: the text holds U+{ord(bad[0]):04X}, at byte offset {offset}"
            raise self.error("CFG_ENCODING", index, what, "remove the escape")
        self.spelled[keys] = text
        if event.style:
            return text
        if INTEGER.fullmatch(text):
            return self._integer(text, keys)
        if FLOAT.fullmatch(text):
            return float(text)
        return _SPECIAL.get(text, text)

    def _integer(self, text: str, keys: Keys) -> int:
        digits = text.lstrip("+-")
        if len(digits) > MAX_DIGITS:
            raise self.error("CFG_RANGE", self.at(keys), f"{dotted(keys)}: given a number of {len(digits)} digits")
        if digits[:2] in ("0o", "0x"):
            return int(digits, 0)
        if len(digits) > 1 and digits[0] == "0":
            seen = "***" if secret_key(keys) else text
            what = f"{dotted(keys)}: given {seen}, octal in YAML 1.1 and decimal in YAML 1.2, wanted one meaning"
            raise self.error("CFG_TYPE", self.at(keys), what, "drop the leading zero, or quote it for text")
        return int(text)


def _confusable(key: str) -> str:
    """Code points of a key that pretends to be another; empty for an honest one."""
    strange = [c for c in key if not c.isascii()]
    hidden = [c for c in strange if unicodedata.category(c)[0] in "CMZ"]
    alike = unicodedata.normalize("NFKC", key).translate(_LOOKALIKE).isascii()
    mixed = any(c.isascii() and c.isalpha() for c in key)
    if not strange or not (hidden or alike or mixed):
        return ""
    return ", ".join(f"U+{ord(c):04X} {unicodedata.name(c, 'UNNAMED')}" for c in strange[:3])
