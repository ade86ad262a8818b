"""Rows become records: FieldMap names the columns, and a row that cannot be mapped is a Fault with its reason.

Columns are judged over a whole source: one that no row has, or that mixes types, is told with the nearest name or the
first place of each type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import get_close_matches
from string import Formatter
from typing import Any

from understudy.config import SourceConfig
from understudy.core.records import Document, Example, Message, Record, digest
from understudy.data.clean import Fault, context_turn
from understudy.data.sources.formats import format_of
from understudy.data.sources.reader import Bad, Row, parse_value
from understudy.errors import ConfigError, DataError

ROLES = ("system", "user", "assistant")
UNANSWERABLE = "UNANSWERABLE"
"""SQuAD's questions on purpose without an answer: set aside, but no fault of the file."""
WITHDRAWN = "WITHDRAWN"
"""Rows that were taken back after others may have read them."""
MARK = "understudy_withdrawn"
"""Column of a row that was taken back; its value says why."""
NO_FAULT = (UNANSWERABLE, WITHDRAWN)
"""Reasons for which a row is set aside that count for no bad row."""


def roles_of(source: SourceConfig) -> dict[str, str]:
    """Role -> column of what is mapped, `template:title` for a template's column. Raises ConfigError FIELD_*."""
    roles = {role: column for role, column in source.fields.model_dump().items() if column is not None}
    if source.text_template:
        roles |= {f"template:{name}": name for name in _template_columns(source.text_template)}
    if source.prompt_template:
        roles |= {f"template:{name}": name for name in _template_columns(source.prompt_template)}
    if not roles and _is_document(source):
        roles = {"text": "text"}
    templates = {name for name in ("text_template", "prompt_template") if getattr(source, name)}
    where, given = source.path or source.kind, roles.keys() | templates
    if source.format == "squad":
        if roles:
            raise ConfigError("FIELD_MAP", where, "SQuAD rows need no `fields`", "leave `fields` out")
        return {}
    if len(given & {"text", "text_template", "messages", "prompt", "prompt_template", "question"}) != 1:
        what = f"`fields` maps {', '.join(sorted(given)) or 'nothing'}"
        raise ConfigError("FIELD_MAP", where, what, "map one of text, messages, prompt + response, question + response")
    if bool(given & {"prompt", "prompt_template", "question"}) != ("response" in given):
        raise ConfigError("FIELD_MAP", where, "`response` and a prompt or question go together", "map both columns")
    if "context" in given and "question" not in given:
        raise ConfigError("FIELD_MAP", where, "`context` goes with `question`", "map the question's column")
    for site in source.sites:
        for role, column in roles.items():
            if column not in site.columns:
                what = f"the site has no column {column!r} (fields.{role}); it has {', '.join(site.columns)}"
                raise ConfigError("FIELD_UNKNOWN", f"sites.{site.name}", what, "add it, e.g. as a constant: '=...'")
    return roles


def _is_document(source: SourceConfig) -> bool:
    """Whether the files are documents, whose rows have a `text` in any case."""
    return source.kind in ("files", "hub") and format_of(source.path or "", source) in ("text", "html")


def _template_columns(template: str) -> list[str]:
    try:
        parts = list(Formatter().parse(template))
    except ValueError as e:
        raise ConfigError("FIELD_MAP", "text_template", str(e), "write {column} and double other braces") from e
    names = [name for _, name, _, _ in parts if name is not None]
    odd = [name for _, name, form, conversion in parts if name is not None and (form or conversion)]
    odd += [name for name in names if not name or "." in name or "[" in name or name.isdigit()]
    if odd or not names:
        what = f"{{{odd[0]}}} is no plain column" if odd else "the template names no column"
        raise ConfigError("FIELD_MAP", "text_template", what, "write {column}, without attribute, index or format")
    return names


class Columns:
    """Which columns exist and of which types the mapped ones are, over a whole source."""

    def __init__(self, source: SourceConfig) -> None:
        self.roles = roles_of(source)
        self.known: dict[str, None] = {}
        self.types: dict[str, dict[str, str]] = {column: {} for column in self.roles.values()}

    def see(self, row: Row) -> None:
        if len(self.known) < 1000:
            self.known.update(dict.fromkeys(row.values))
        for column, types in self.types.items():
            value = row.values.get(column)
            if value is not None:
                types.setdefault(_type(value), row.where)
                self.known[column] = None

    def check(self, where: str) -> None:
        names = list(self.known)
        for role, column in self.roles.items():
            if column not in self.known:
                near = get_close_matches(column, names, n=1, cutoff=0.5)
                what = f"no row has the column {column!r} (fields.{role}); the columns are {', '.join(names[:40])}"
                fix = f"did you mean {near[0]!r}?" if near else "name one of them"
                raise ConfigError("FIELD_UNKNOWN", where, what, fix)
        for column, types in self.types.items():
            if len(types) > 1:
                first = "; ".join(f"{kind} at {place}" for kind, place in types.items())
                raise DataError("SCHEMA_TYPE", where, f"column {column!r} mixes types: {first}", "give it one type")


def _type(value: Any) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return names.get(type(value), type(value).__name__)


def _cell(row: Row, column: str, notes: dict[str, int]) -> str:
    value = row.values.get(column)
    if value is None:
        raise Fault("FIELD_MISSING", f"{column!r} is {'null' if column in row.values else 'not there'}")
    if isinstance(value, (int, float)):
        notes["numbers_as_text"] = notes.get("numbers_as_text", 0) + 1
        return json.dumps(value)
    if not isinstance(value, str):
        raise Fault("FIELD_TYPE", f"{column!r} is a {_type(value)}, not text")
    if not value.strip():
        raise Fault("FIELD_BLANK", f"{column!r} is blank")
    return value


def record_of(row: Row, source: SourceConfig, label: str, roles: dict[str, str], notes: dict[str, int]) -> Record:
    if reason := row.values.get(MARK):
        raise Fault(WITHDRAWN, f"{row.values.get('id')}: {reason}")
    if source.format == "squad":
        return _squad_example(row, source, label)

    def cell(role: str) -> str:
        return _cell(row, roles[role], notes)

    meta: dict[str, Any] = {"source": label, **row.meta}
    if source.licence:
        meta["licence"] = source.licence
    meta |= {role: cell(role) for role in ("group", "category", "url") if role in roles}
    if "facts" in roles:
        meta["facts"] = _facts(row, roles["facts"])
    own = cell("id") if "id" in roles else ""
    values = {name: _cell(row, name, notes) for key, name in roles.items() if key.startswith("template:")}
    if source.text_template or "text" in roles:
        text = source.text_template.format_map(values) if source.text_template else cell("text")
        return Document(own or digest(text, 16), text, meta)
    if "messages" in roles:
        messages = _chat(row, roles["messages"])
        return Example(own or digest(messages, 16), messages, meta)
    if source.prompt_template:
        return _pair(own, source.prompt_template.format_map(values), cell("response"), meta)
    prompt = cell("prompt" if "prompt" in roles else "question")
    if "context" in roles:
        meta |= {"context": cell("context"), "question": prompt}
        prompt = context_turn(meta["context"], prompt)
    return _pair(own, prompt, cell("response"), meta)


def _pair(own: str, prompt: str, response: str, meta: dict[str, Any]) -> Example:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    return Example(own or digest(messages, 16), messages, meta)


def _facts(row: Row, column: str) -> list[str]:
    """A list of texts; a cell of CSV or SQL holds it as JSON, or one fact."""
    value = row.values.get(column)
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = parse_value(value)
    facts = value if isinstance(value, list) else [_cell(row, column, {})]
    if not facts:
        raise Fault("FIELD_BLANK", f"{column!r} is an empty list")
    if not all(isinstance(fact, str) and fact.strip() for fact in facts):
        raise Fault("FIELD_TYPE", f"{column!r} holds something other than non-blank texts")
    return facts


# [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
#  {"role": "assistant", "content": "Hello"}]
def _chat(row: Row, column: str) -> list[Message]:
    turns = row.values.get(column)
    if turns is None:
        raise Fault("FIELD_MISSING", f"{column!r} is {'null' if column in row.values else 'not there'}")
    if isinstance(turns, str):
        turns = parse_value(turns)
    if not isinstance(turns, list) or not turns:
        raise Fault("CHAT_SHAPE", f"{column!r} is no list of turns, or an empty one")
    for i, turn in enumerate(turns):
        role = turn.get("role") if isinstance(turn, dict) else None
        if role not in ROLES:
            raise Fault("CHAT_SHAPE", f"turn {i}: unknown role {role!r}; known are {', '.join(ROLES)}")
        if role == "system" and i:
            raise Fault("CHAT_SHAPE", f"turn {i}: a system turn that is not the first")
        if role == "assistant" and i and turns[i - 1]["role"] == role:
            raise Fault("CHAT_SHAPE", f"turn {i}: a second assistant turn in a row")
        if not isinstance(turn.get("content"), str) or not turn["content"].strip():
            raise Fault("CHAT_SHAPE", f"turn {i}: empty {role} turn")
    last = len(turns) - 1
    for role in ("assistant", "user"):
        if all(turn["role"] != role for turn in turns):
            raise Fault("CHAT_SHAPE", f"turn {last}: the chat ends without any {role} turn")
    if turns[-1]["role"] != "assistant":
        raise Fault("CHAT_SHAPE", f"turn {last}: the last turn is the {turns[-1]['role']}'s, not the assistant's")
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


# {"title": "Amazon", "paragraphs": [{"context": "...", "qas": [{"id": "5a", "question": "...",
#  "answers": [{"text": "308", "answer_start": 32}], "is_impossible": false}]}]}
def squad_questions(articles: Iterator[Row | Bad]) -> Iterator[Row | Bad]:
    """Each question of SQuAD articles as a row; a malformed article or paragraph is one bad row."""
    for article in articles:
        if isinstance(article, Bad):
            yield article
            continue
        title, paragraphs = article.values.get("title"), article.values.get("paragraphs")
        if not isinstance(paragraphs, list):
            yield Bad(article.where, article.offset, "SQUAD_SHAPE", "an article without a list of `paragraphs`")
            continue
        for p, paragraph in enumerate(paragraphs, 1):
            where, questions = f"{article.where} paragraph {p}", None
            if isinstance(paragraph, dict) and isinstance(paragraph.get("context"), str):
                questions = paragraph.get("qas")
            if not isinstance(questions, list):
                yield Bad(where, article.offset, "SQUAD_SHAPE", "a paragraph without `context` or a list of `qas`")
                continue
            for q, question in enumerate(questions, 1):
                place = f"{where} question {q}"
                if isinstance(question, dict):
                    values = {**question, "title": title, "context": paragraph["context"]}
                    yield Row(place, article.offset, values)
                else:
                    yield Bad(place, article.offset, "SQUAD_SHAPE", "a question that is no object")


def _squad_example(row: Row, source: SourceConfig, label: str) -> Example:
    context, question = _cell(row, "context", {}), _cell(row, "question", {})
    given = row.values.get("answers")
    answers = [a.get("text") for a in given if isinstance(a, dict)] if isinstance(given, list) else []
    texts = list(dict.fromkeys(a for a in answers if isinstance(a, str) and a.strip()))
    if row.values.get("is_impossible") is True:
        raise Fault(UNANSWERABLE, "the question has no answer in the passage")
    if not texts:
        raise Fault("ANSWER_MISSING", "the question has no answer in the passage")
    # Untitled articles still keep the questions of one passage together.
    group = row.values["title"] if isinstance(row.values["title"], str) else digest(context, 16)
    meta: dict[str, Any] = {"source": label, "group": group, "context": context, "question": question, "answers": texts}
    if source.licence:
        meta["licence"] = source.licence
    own = _cell(row, "id", {}) if row.values.get("id") is not None else ""
    return _pair(own, context_turn(context, question), texts[0], meta)
