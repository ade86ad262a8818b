"""`understudy.yaml` checked against `Config`: one error line with its place, or values with their origins.

`yamlfile` reads the text; here its values meet the schema, the `size` dial, and the rules on secrets and paths.
`schema`, `reference` and `starter` are made from the same models as the check.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from understudy import __version__
from understudy.config import OWN_FOLDERS, SIZES, VERSION, Config, SourceConfig
from understudy.errors import ConfigError, UnderstudyError
from understudy.yamlfile import (
    ENV,
    FLOAT,
    INTEGER,
    KEY_SHAPE,
    Keys,
    Reader,
    decode,
    dotted,
    masked,
    read_bytes,
    secret_key,
    short,
)

_YAML_1_1 = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


@dataclass(frozen=True)
class Loaded:
    """A checked configuration. `origins` names, per dotted key, `understudy.yaml:12`, `size: small` or `default`."""

    config: Config
    origins: dict[str, str]
    digest: str
    path: Path
    data: bytes = field(repr=False)
    """The file as it was read; it may change while the run that read it goes on."""

    def values(self) -> Iterator[tuple[str, Any, str]]:
        """Every resolved setting as (dotted key, value as people may see it, origin)."""
        shown = hidden(self.config.model_dump(mode="json", by_alias=True))
        for key, origin in sorted(self.origins.items()):
            value: Any = shown
            for part in key.replace("[", ".").replace("]", "").split("."):
                value = value[int(part)] if isinstance(value, list) else value[part]
            yield key, value, origin


def load(path: Path, allow_secrets: bool = False) -> Loaded:
    """Read and check `path`. Raises ConfigError (exit 2), or IntegrityError (6) for YAML tags and literal secrets."""
    data = read_bytes(path)
    reader = Reader(path, decode(path, data))
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
    return Loaded(config, _origins(reader, config), hashlib.sha256(data).hexdigest(), path, data)


def env_references(config: Config) -> list[tuple[str, str]]:
    """Each `${env:NAME}` of the configuration as (dotted key, NAME)."""
    leaves = _leaves(config.model_dump(by_alias=True))
    texts = [(k, t) for k, value in leaves for t in (value if isinstance(value, list) else [value])]
    return [(dotted(k), m[1]) for k, t in texts if isinstance(t, str) for m in ENV.finditer(t)]


def hidden(value: Any, keys: Keys = ()) -> Any:
    """A setting as people may see it: `***` in place of a literal secret that was allowed."""
    if isinstance(value, dict):
        return {key: hidden(inner, (*keys, key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [hidden(inner, keys) for inner in value]
    if not isinstance(value, str):
        return value
    return "***" if secret_key(keys[-1:]) and not ENV.fullmatch(value) else masked(value)


def _refuse_secrets(reader: Reader) -> None:
    """Raise IntegrityError for the first literal secret: api keys, URL passwords, known key shapes anywhere."""
    fix = "write ${env:NAME} and set that variable"
    for keys, text in reader.spelled.items():
        literal = secret_key(keys[-1:]) and text not in ("", "~", "null") and not ENV.fullmatch(text)
        if literal or masked(text) != text:
            seen = "***" if literal else short(masked(text))
            what = f"{masked(dotted(keys))}: a literal secret ({seen}) stands in the file"
            raise reader.error("SECRET_IN_CONFIG", reader.at(keys), what, fix)
    # Comments too: the file is copied into every run's folder.
    if found := KEY_SHAPE.search(reader.text):
        what = f"a literal secret ({masked(found[0])}) stands in the file"
        raise reader.error("SECRET_IN_CONFIG", found.start(), what, fix)


def _check_version(reader: Reader, tree: dict[str, Any]) -> None:
    version = tree.get("version")
    if "version" not in tree:
        what = f"`version` is missing; understudy {__version__} reads version {VERSION}"
        raise reader.error("CFG_VERSION", 0, what, f"add the line `version: {VERSION}`")
    # Literal[1] of the schema would take `true` and 1.0, which equal 1.
    if type(version) is not int:
        place, given = reader.at(("version",)), _given(reader, ("version",), version)
        raise reader.error("CFG_TYPE", place, f"version: given {given}, wanted {VERSION}")
    if version != VERSION:
        newer = version > VERSION
        reads = "a later release" if newer else "no release"
        what = f"version {version} is read by {reads}; understudy {__version__} reads version {VERSION}"
        fix = "pip install --upgrade understudy" if newer else f"write `version: {VERSION}`"
        raise reader.error("CFG_VERSION", reader.at(("version",)), what, fix)


def _translate(reader: Reader, tree: dict[str, Any], error: ValidationError) -> UnderstudyError:
    """One error of ours for pydantic's list: unknown keys first, then wrong values by place, then missing keys."""

    def rank(item: Any) -> tuple[int, int]:
        order = {"extra_forbidden": 0, "missing": 2}.get(item["type"], 1)
        return order, reader.at(tuple(item["loc"]))

    items = sorted(error.errors(include_url=False), key=rank)
    item = items[0]
    kind, keys = item["type"], (*item["loc"], *item.get("ctx", {}).get("key", "").split())
    more = f" (+{len(items) - 1} more)" if len(items) > 1 else ""
    place, name, node = reader.at(keys), masked(dotted(keys)), _schema_at(keys) or {}
    if kind == "extra_forbidden":
        names = list((_schema_at(keys[:-1]) or {}).get("properties", {}))
        near = get_close_matches(str(keys[-1]), names, 1)
        fix = f"did you mean `{near[0]}`?" if near else f"valid here: {', '.join(names)}"
        return reader.error("CFG_UNKNOWN_KEY", place, f"`{short(name, 80)}` is not a setting{more}", fix)
    if kind in ("missing", "cfg_missing"):
        what = item["msg"] if kind == "cfg_missing" else f"`{name}` is missing, wanted {_wanted(node)}"
        return reader.error("CFG_MISSING", place, what + more)
    if kind == "cfg_range":
        return reader.error("CFG_RANGE", place, f"{name}: {item['msg']}{more}")
    seen, given = item["input"], _given(reader, keys, item["input"])
    typed = kind.endswith("_type") or (kind == "literal_error" and not isinstance(seen, str))
    code = "CFG_TYPE" if typed else "CFG_RANGE"
    return reader.error(code, place, f"{name}: given {given}, wanted {_wanted(node)}{more}", _hint(seen, node))


def _hint(seen: object, node: dict[str, Any]) -> str:
    if seen is None:
        return "give it a value, or remove the line for the default"
    if not isinstance(seen, str):
        return "quote it" if node.get("type") == "string" and not isinstance(seen, (list, dict)) else ""
    if node.get("type") == "boolean" and seen.lower() in _YAML_1_1:
        return f"YAML 1.2 reads {seen} as text: write {_YAML_1_1[seen.lower()]}"
    if near := get_close_matches(seen, [str(v) for v in node.get("enum", [])], 1):
        return f"did you mean `{near[0]}`?"
    if node.get("type") in ("number", "integer") and (FLOAT.fullmatch(seen) or INTEGER.fullmatch(seen)):
        return "remove the quotes"
    return ""


def _given(reader: Reader, keys: Keys, seen: object) -> str:
    """What stands in the file, shortened, without a secret."""
    if secret_key(keys):
        return "***"
    if isinstance(seen, (list, dict)) or seen is None:
        return _kind(seen)
    spelled = short(masked(reader.spelled.get(keys, str(seen))))
    return (
        f"the text {json.dumps(spelled, ensure_ascii=False)}" if isinstance(seen, str) else f"{_kind(seen)} {spelled}"
    )


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    names = {dict: "a mapping", str: "text", bool: "the truth value", int: "the integer", float: "the number"}
    return names[type(value)]


def _refuse_conflicts(reader: Reader, config: Config) -> None:
    """Refuse a row source that is read twice, or that lies in the folders that runs write."""
    sources: list[tuple[Keys, SourceConfig]] = [(("sources", i), s) for i, s in enumerate(config.sources)]
    if config.coverage:
        sources.append((("coverage",), config.coverage))
    owner: dict[str, Keys] = {}
    base = os.path.realpath(reader.path.parent)
    for keys, source in sources:
        at = reader.at((*keys, "path" if source.kind == "files" else "query"))
        for identity in sorted(_identities(reader, at, base, source)):
            name = os.path.relpath(identity, base) if os.path.isabs(identity) else short(masked(identity))
            if name.split(os.sep)[0] in OWN_FOLDERS and os.path.isabs(identity):
                what = f"{dotted(keys)}: {name} lies in a folder that runs write to"
                raise reader.error("PATH_CONFLICT", at, what, f"keep data outside {', '.join(OWN_FOLDERS)}")
            if identity in owner:
                what = f"{dotted(keys)}: {name} is already read by `{dotted(owner[identity])}`"
                raise reader.error("PATH_CONFLICT", at, what, "read it once")
            owner[identity] = keys


def _identities(reader: Reader, at: int, base: str, source: SourceConfig) -> set[str]:
    """Real paths that a source reads now (at most 10,000 of a glob's), or its query.

    A relative glob passes over what the project writes itself, as reading does.
    """
    if source.kind == "web":
        return {f"web:{source.name or 'web'}"}
    if source.kind != "files" or source.path is None:
        asked = {"url", "query", "query_file", "project", "repo", "revision", "path"}
        return {json.dumps([source.kind, source.model_dump(include=asked)], sort_keys=True)}
    if "://" in source.path:
        return {source.path}
    if any(len(os.fsencode(part)) > 255 for part in source.path.split("/")):
        raise reader.error("PATH_NAME", at, "a part of the path is longer than 255 bytes", "shorten it")
    path = os.path.join(base, source.path)
    found = {os.path.realpath(path)}
    try:
        os.stat(path)
    except OSError as e:
        if e.errno == errno.ELOOP:
            raise reader.error("PATH_CONFLICT", at, "the symbolic link leads to itself", "point it at a file") from None
    if glob.has_magic(source.path):
        names = islice(glob.iglob(source.path, root_dir=base, recursive=True), 10_000)
        own = (n for n in names if os.path.isabs(n) or os.path.normpath(n).split(os.sep)[0] not in OWN_FOLDERS)
        found |= {os.path.realpath(p) for n in own if os.path.isfile(p := os.path.join(base, n))}
    return found


def _origins(reader: Reader, config: Config) -> dict[str, str]:
    dialled = {(section, key) for values in SIZES.values() for section in values for key in values[section]}
    origins = {}
    for keys, _ in _leaves(config.model_dump(by_alias=True)):
        if keys in reader.places:
            origins[dotted(keys)] = f"{reader.path.name}:{reader.line(reader.places[keys])}"
        else:
            origins[dotted(keys)] = f"size: {config.size}" if keys in dialled else "default"
    return origins


def _leaves(value: object, keys: Keys = ()) -> Iterator[tuple[Keys, object]]:
    """Values by keys; a list of plain values is one leaf."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*keys, key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for i, inner in enumerate(value):
            yield from _leaves(inner, (*keys, i))
    else:
        yield keys, value


@cache
def _schema() -> dict[str, Any]:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of `understudy.yaml`, for editors."""
    copy: dict[str, Any] = json.loads(json.dumps(_schema()))
    return copy


def _resolved(node: dict[str, Any]) -> dict[str, Any]:
    """A schema node without reference and without the null alternative, which becomes `nullable`."""
    if "anyOf" in node:
        options = [option for option in node["anyOf"] if option != {"type": "null"}]
        return {**_resolved(options[0]), "nullable": len(options) < len(node["anyOf"])}
    if "$ref" in node:
        target: dict[str, Any] = _schema()["$defs"][node["$ref"].rsplit("/", 1)[1]]
        return {**target, "name": target["title"]}
    return node


def _schema_at(keys: Keys) -> dict[str, Any] | None:
    node = _schema()
    for key in keys:
        inner = node.get("items") if isinstance(key, int) else node.get("properties", {}).get(key)
        if inner is None:
            return None
        node = _resolved(inner)
    return node


_KINDS = {
    "integer": "an integer",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}
_LOW = {"minimum": "at least", "exclusiveMinimum": "above", "minItems": "at least", "minLength": "at least"}
_HIGH = {"maximum": "at most", "exclusiveMaximum": "below", "maxItems": "at most", "maxLength": "at most"}


def _wanted(node: dict[str, Any]) -> str:
    """A schema node in words: `a number (above 0, at most 10)`."""
    if "const" in node:
        text = str(node["const"])
    elif "enum" in node:
        text = "one of " + ", ".join(map(str, node["enum"]))
    else:
        limits = [f"{word} {node[key]:,.12g}" for key, word in (_LOW | _HIGH).items() if key in node]
        limits += [f"matching {node['pattern']}"] if "pattern" in node else []
        text = _KINDS.get(node.get("type", ""), "a known value") + (f" ({', '.join(limits)})" if limits else "")
        items = node.get("items", {})
        if "type" in items or "enum" in items:
            text += f", each {_wanted(items)}"
    return text + (" or null" if node.get("nullable") else "")


def reference() -> str:
    """Markdown tables of every key (type, default, help) and of what `size` derives, for docs/configuration.md."""
    root = _schema()
    groups: dict[str, list[str]] = {}
    for key, node in root["properties"].items():
        target = _resolved(node)
        target = _resolved(target["items"]) if "items" in target else target
        if target.get("name"):
            groups.setdefault(target["name"], []).append(f"{key}[]" if "items" in _resolved(node) else key)
    for name, keys in list(groups.items()):
        for key, node in root["$defs"][name]["properties"].items():
            items = _resolved(node).get("items", {})
            if "$ref" in items:
                groups.setdefault(_resolved(items)["name"], []).append(f"{keys[0]}.{key}[]")
    parts = ["### Top level\n\n" + _table(root, ())]
    for name, keys in groups.items():
        help_ = root["$defs"][name].get("description", "")
        title = ", ".join(f"`{key}`" for key in keys)
        parts.append("\n\n".join(filter(None, [f"### {title}", help_, _table(root["$defs"][name], ())])))
    rows = [
        f"| `{section}.{key}` | "
        + " | ".join(f"{SIZES[size].get(section, {}).get(key, toy):g}" for size in SIZES)
        + " |"
        for section, values in SIZES["full"].items()
        for key in values
        for toy in [getattr(Config.model_fields[section].default, key)]
    ]
    parts.append(
        "### What `size` derives\n\n| key | " + " | ".join(SIZES) + " |\n|---|---|---|---|\n" + "\n".join(rows)
    )
    return "\n\n".join(parts)


def _table(node: dict[str, Any], keys: Keys) -> str:
    return "| key | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(_rows(node, keys))


def _rows(node: dict[str, Any], keys: Keys) -> Iterator[str]:
    for key, raw in node["properties"].items():
        inner = _resolved(raw)
        help_ = raw.get("description") or inner.get("description") or ""
        if key in node.get("required", []):
            default = "required"
        else:
            default = "" if inner.get("name") else f"`{json.dumps(raw.get('default'))}`"
        if raw.get("execution"):
            help_ += " A change makes no finished step run again."
        cells = [f"`{dotted((*keys, key))}`", _wanted(inner), default, " ".join(help_.split())]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        if inner.get("name") and keys == () and node is not _schema():
            yield from _rows(inner, (*keys, key))


def starter(name: str) -> str:
    """The commented file that `understudy init` writes. Raises ConfigError for a name that is none."""
    pattern = _schema()["properties"]["name"]["pattern"]
    if not re.search(pattern, name):
        raise ConfigError("CFG_RANGE", "name", f"given {json.dumps(short(name))}, wanted text that matches {pattern}")
    # Quoted: `1e4` and `null` are good names, and not text in YAML.
    return _STARTER.replace("@name@", name)


_STARTER = """\
version: 1  # schema version of this file
name: "@name@"  # project and model name
size: toy  # toy, small or full: derives the sizes of training, packing and synthesis

sources:  # the texts of the job; one entry per source
  - path: data/documents.jsonl  # file or glob, relative to this file
    fields: {text: text}  # the column with a document's text
    licence: null  # licence of these rows, for the model card

coverage:  # pairs that you are happy with: 140 or more (60 for the teacher, 60 to steer rounds, the rest held)
  path: data/coverage.jsonl  # never one of the sources
  # A passage, a question about it, its answer, the facts that a right answer names (a list of texts), and the
  # kind of request, by which rounds aim. Without passages: {prompt: ..., response: ..., category: ...}
  fields: {context: context, question: question, response: response, facts: facts, category: category}  # columns

teacher:  # service LLM that writes training examples from the coverage pairs
  provider: simulated  # on this machine; openai wants model, base_url and api_key: ${env:NAME}

judge:  # service LLM that grades answers; without this section reference scorers do
  provider: simulated  # as above

loop:  # how often to go round
  rounds: 2  # rounds of synthesis and training

gate:  # when a model is good enough
  metric: coverage  # the metric that decides
  bar: 0.60  # the lower end of its interval on held pairs must reach this
"""
