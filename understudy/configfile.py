"""Reads `understudy.yaml`: bytes > YAML 1.2 events > plain values with places > `Config`, or one error line.

Limits come first, so that a hostile file costs a second at most. No object is built from a YAML tag, no message
shows a secret. `schema`, `reference` and `starter` are made from the same models as the check.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from understudy import __version__
from understudy.config import SIZES, VERSION, Config, SourceConfig
from understudy.errors import ConfigError, IntegrityError, UnderstudyError

Keys = tuple[str | int, ...]

# Measured on one core of two: 128 KiB of the slowest text found takes 0.5 s to parse, 10,000 nodes 0.6 s.
# A project with 100 sources stays under 64 KiB and 4,000 nodes.
MAX_BYTES = 128 * 1024
MAX_NODES = 8_000
MAX_DEPTH = 50
MAX_DIGITS = 40

_ENV = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
_KEY_SHAPE = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-(?=[A-Za-z0-9_-]*[0-9])[A-Za-z0-9_-]*[A-Za-z0-9]{16}[A-Za-z0-9_-]*|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|gh[opsur]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{20,}"
    r"|AIza[A-Za-z0-9_-]{30,}|xox[abeoprs]-[A-Za-z0-9-]{10,})|-----BEGIN [A-Z ]*PRIVATE KEY"
)
_URL_PASSWORD = re.compile(r"(?<=://)[^\s/:@?#]*:([^\s/@]+)@|[?&](?:password|token|api_?key|secret)=([^\s&#]+)", re.I)
_SECRET_NAMES = {"api_key", "apikey", "password", "secret", "token"}
_SECRET_LINE = re.compile(r"((?:api[_-]?key|passw\w*|secret|token)['\"]?\s*:).*", re.I)

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_YAML_1_1 = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufffe\uffff]")
_LOOKALIKE = str.maketrans("аеорсухіјѕһԁԛԝкмтгпαορνικυτɡı", "aeopcyxijshdqwkmtrnaopvikutgi")


@dataclass(frozen=True)
class Loaded:
    """A checked configuration. `origins` names, per dotted key, `understudy.yaml:12`, `size: small` or `default`."""

    config: Config
    origins: dict[str, str]
    digest: str
    path: Path


def load(path: Path, allow_secrets: bool = False) -> Loaded:
    """Read and check `path`. Raises ConfigError (exit 2), or IntegrityError (6) for YAML tags and literal secrets."""
    data = _read(path)
    reader = _Reader(path, _decode(path, data))
    tree = reader.document()
    if tree is None:
        raise ConfigError("CFG_EMPTY", path, "holds no settings", "`understudy init` writes a commented starter")
    if not allow_secrets:
        _refuse_secrets(reader)
    if not isinstance(tree, dict):
        raise reader.error("CFG_TYPE", 0, f"given {_kind(tree)}, wanted a mapping of settings")
    _check_version(reader, tree)
    size = tree.get("size", "toy")
    sized = SIZES.get(size, {}) if isinstance(size, str) else {}
    merged = dict(tree)
    for section, values in sized.items():
        own = tree.get(section, {})
        merged[section] = {**values, **own} if isinstance(own, dict) else own
    try:
        config = Config.model_validate(merged)
    except ValidationError as e:
        raise _translate(reader, tree, e) from None
    _refuse_conflicts(reader, config)
    return Loaded(config, _origins(reader, config), hashlib.sha256(data).hexdigest(), path)


def env_references(config: Config) -> list[tuple[str, str]]:
    """Each `${env:NAME}` of the configuration as (dotted key, NAME)."""
    leaves = _leaves(config.model_dump(by_alias=True))
    texts = [(k, t) for k, value in leaves for t in (value if isinstance(value, list) else [value])]
    return [(_dotted(k), m[1]) for k, t in texts if isinstance(t, str) for m in _ENV.finditer(t)]


def masked(text: str) -> str:
    """`text` with known key shapes and the passwords of URLs replaced by `***`."""
    text = _KEY_SHAPE.sub(lambda m: m[0][:4] + "***", text)
    for m in reversed(list(_url_passwords(text))):
        group = 1 if m[1] else 2
        text = text[: m.start(group)] + "***" + text[m.end(group) :]
    return text


def _url_passwords(text: str) -> Iterator[re.Match[str]]:
    # References are blanked at equal length first: `${env:USER}:${env:PASSWORD}@` holds colons of its own.
    blanked = _ENV.sub(lambda m: "/" * len(m[0]), text)
    for m in _URL_PASSWORD.finditer(blanked):
        if not (m[1] or m[2]).startswith("***"):
            yield m


def _read(path: Path) -> bytes:
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
    with os.fdopen(handle, "rb", closefd=True) if not _is_folder(handle) else _refused_folder(handle, path) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError("CFG_NOT_FILE", path, "is a device, pipe or socket", "pass a file")
        data = b"" if status.st_size > MAX_BYTES else file.read(MAX_BYTES + 1)
        if max(len(data), status.st_size) > MAX_BYTES:
            raise ConfigError(
                "CFG_LIMIT", path, f"{status.st_size} bytes; at most {MAX_BYTES} are read", "move data out"
            )
        return data
