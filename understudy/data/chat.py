"""Chats to token ids and a loss mask, through the model's own template and tokenizer.

The template is rendered with sentinels in place of the contents, once per sequence of roles. Template text may become
special tokens, content never does; what the model itself must write (everything after a generation prompt, up to and
with the closing token) is supervised. Each rendering is compared with the template's own before it is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.core.records import Message
from understudy.errors import ConfigError, DataError, IntegrityError

_SENTINEL = "\ue0f0{}\ue0f1"
_CONTENT = re.compile("\ue0f0([0-9]+)\ue0f1")


@dataclass(frozen=True, slots=True)
class _Piece:
    """Template text, or the content of turn `turn`."""

    text: str = ""
    turn: int | None = None


@dataclass(frozen=True, slots=True)
class _Layout:
    """How one sequence of roles is rendered: pieces, which of them the model writes, which turns are stripped."""

    pieces: tuple[_Piece, ...]
    supervised: tuple[bool, ...]
    stripped: tuple[bool, ...]


class ChatTemplate:
    """A model's chat template together with its tokenizer. Not for use from several threads at once."""

    def __init__(self, source: str, tokenizer: Any, plain: Any, config: dict[str, Any], where: str) -> None:
        self.source, self.where = source, where
        self._full, self._plain = tokenizer, plain
        self._names = _special_names(config)
        self._template = _compile(source, where)
        self._layouts: dict[tuple[str, ...], _Layout] = {}
        self._prompts: dict[tuple[str, ...], _Layout] = {}
        added = tokenizer.get_added_tokens_decoder()
        self._added = {token.content: (number, token) for number, token in added.items()}
        longest_first = sorted(self._added, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._lead = plain.encode("\n", add_special_tokens=False).ids
        # SentencePiece-like tokenizers put a space before the first word; text in the middle of a chat has none.
        self._leads = self._raw("\na")[len(self._lead) :] != self._raw("a")
        self.closing = self._closing()

    @classmethod
    def load(cls, model_dir: Path) -> ChatTemplate:
        """The template of a transformers model folder. Raises ConfigError TPL_MISSING, TPL_SYNTAX, TPL_INCOMPLETE."""
        config = _json(model_dir / "tokenizer_config.json")
        tokenizer, plain = _tokenizers(model_dir)
        return cls(_source(model_dir, config), tokenizer, plain, config, model_dir.name)

    @property
    def vocab_size(self) -> int:
        return int(self._full.get_vocab_size(with_added_tokens=True))

    def token_id(self, text: str) -> int | None:
        found = self._full.token_to_id(text)
        return None if found is None else int(found)

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end an answer: the turn's closing token, `<|im_end|>`, and the tokenizer's eos."""
        ids = {self.closing, self.token_id("<|im_end|>"), self.token_id(self._names.get("eos_token", ""))}
        return sorted(i for i in ids if i is not None)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; special tokens are left out."""
        return str(self._full.decode(list(ids), skip_special_tokens=True))

    def encode(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
        """(token ids, loss mask) of a chat, equally long; the mask is 1 on assistant content and its closing token."""
        roles = tuple(m["role"] for m in messages)
        if roles not in self._layouts:
            self._layouts[roles] = self._supervise(roles, self._layout(roles, False))
        return self._tokens(self._layouts[roles], messages, False)

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a chat with the generation prompt at its end."""
        roles = tuple(m["role"] for m in messages)
        if roles not in self._prompts:
            self._prompts[roles] = self._layout(roles, True)
        return self._tokens(self._prompts[roles], messages, True)[0]

    def _render(self, roles: Sequence[str], contents: Sequence[str], generation: bool) -> str:
        from jinja2.exceptions import SecurityError, TemplateError, UndefinedError

        messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
        try:
            return str(self._template.render(messages=messages, add_generation_prompt=generation, **self._names))
        except SecurityError as e:
            raise IntegrityError("TPL_UNSAFE", self.where, str(e), "use a template that only formats text") from e
        except UndefinedError as e:
            raise ConfigError("TPL_UNDEFINED", self.where, f"{e} for roles {list(roles)}", "mend the template") from e
        except TemplateError as e:
            raise DataError("TPL_REFUSED", self.where, f"{e} (roles {list(roles)})", "drop or reorder turns") from e

    def _layout(self, roles: tuple[str, ...], generation: bool) -> _Layout:
        """Render with sentinels and take apart; every turn must be there once, in order."""
        text = self._render(roles, [_SENTINEL.format(i) for i in range(len(roles))], generation)
        parts = _CONTENT.split(text)  # template text, turn, template text, turn, ..., template text
        turns = [int(p) for p in parts[1::2]]
        if turns != list(range(len(roles))):
            what = f"renders turns {turns} of {len(roles)} ({', '.join(roles)})"
            raise ConfigError("TPL_INCOMPLETE", self.where, what, "use a template that renders every turn once")
        pieces = [_Piece(p) if i % 2 == 0 else _Piece(turn=int(p)) for i, p in enumerate(parts)]
        padded = [f"  p{i}  " for i in range(len(roles))]
        seen = self._render(roles, padded, generation)
        return _Layout(tuple(pieces), (False,) * len(pieces), tuple(p not in seen for p in padded))

    def _supervise(self, roles: tuple[str, ...], layout: _Layout) -> _Layout:
        """Split the template text of assistant turns at the generation prompt and behind the closing token."""
        pieces, flags = list(layout.pieces), [False] * len(layout.pieces)
        for turn in [i for i, role in enumerate(roles) if role == "assistant"]:
            at = next(i for i, p in enumerate(pieces) if p.turn == turn)
            prompt = self._layout(roles[:turn], True).pieces
            given = prompt[-1].text
            if not pieces[at - 1].text.startswith(given):
                what = f"turn {turn + 1} does not start with the generation prompt {given!r}"
                raise ConfigError("TPL_INCOMPLETE", self.where, what, "mend the template")
            close = self._special.match(pieces[at + 1].text)
            if close is None:
                what = f"no special token closes the assistant's turn {turn + 1}; the model would not learn to stop"
                raise ConfigError("TPL_INCOMPLETE", self.where, what, "close the turn with a special token")
            before, after = pieces[at - 1].text, pieces[at + 1].text
            own = [_Piece(before[len(given) :]), pieces[at], _Piece(close[0])]
            pieces[at - 1 : at + 2] = [_Piece(given), *own, _Piece(after[close.end() :])]
            flags[at - 1 : at + 2] = [False, True, True, True, False]
        return _Layout(tuple(pieces), tuple(flags), layout.stripped)

    def _tokens(self, layout: _Layout, messages: Sequence[Message], generation: bool) -> tuple[list[int], list[int]]:
        given = [m["content"] for m in messages]
        contents = [c.strip() if s else c for c, s in zip(given, layout.stripped, strict=True)]
        text = "".join(p.text if p.turn is None else contents[p.turn] for p in layout.pieces)
        if text != self._render([m["role"] for m in messages], given, generation):
            what = "rewrites the content of a turn, so that its tokens cannot be told from the template's"
            raise ConfigError("TPL_INCOMPLETE", self.where, what, "use a template that copies the contents")
        ids: list[int] = []
        mask: list[int] = []
        run, flag = "", False
        # Text between special tokens is encoded in one go, as a server does that tokenizes the whole rendering; it is
        # cut only where the model's own part begins, since there generation starts with fresh tokens.
        for piece, supervised in zip(layout.pieces, layout.supervised, strict=True):
            if supervised != flag:
                run, flag = self._flush(run, flag, ids, mask), supervised
            if piece.turn is not None:
                run += contents[piece.turn]
                continue
            position = 0
            for match in self._special.finditer(piece.text):
                number, token = self._added[match[0]]
                run += piece.text[position : match.start()]
                position = match.end()
                if token.rstrip:
                    position += len(piece.text[position:]) - len(piece.text[position:].lstrip())
                run = self._flush(run.rstrip() if token.lstrip else run, flag, ids, mask)
                ids.append(number)
                mask.append(int(flag))
            run += piece.text[position:]
        self._flush(run, flag, ids, mask)
        return ids, mask

    def _flush(self, run: str, flag: bool, ids: list[int], mask: list[int]) -> str:
        new = self.encode_text(run)
        ids.extend(new)
        mask.extend([int(flag)] * len(new))
        return ""

    def encode_text(self, text: str) -> list[int]:
        """Token ids of text in which nothing is special."""
        if not text:
            return []
        return self._raw("\n" + text)[len(self._lead) :] if self._leads else self._raw(text)

    def _raw(self, text: str) -> list[int]:
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def _closing(self) -> int | None:
        ids, mask = self.encode([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
        return ids[max(i for i, m in enumerate(mask) if m)]


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = json.loads(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}


def _source(model_dir: Path, config: dict[str, Any]) -> str:
    file = model_dir / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    source = config.get("chat_template")
    if isinstance(source, list):
        source = next((t.get("template") for t in source if t.get("name") == "default"), None)
    if not isinstance(source, str):
        fix = "add chat_template.jinja, or take the chat ('instruct') form of the model"
        raise ConfigError("TPL_MISSING", model_dir.name, "the model has no chat template", fix)
    return source


def _tokenizers(model_dir: Path) -> tuple[Any, Any]:
    """The tokenizer, and the same without its added tokens: content goes through the second one."""
    from tokenizers import Tokenizer

    if not (model_dir / "tokenizer.json").is_file():
        from transformers import AutoTokenizer

        full = AutoTokenizer.from_pretrained(model_dir, local_files_only=True).backend_tokenizer
    else:
        try:
            full = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
        except Exception as e:  # the library raises this very class
            raise IntegrityError("BASE_CORRUPT", "tokenizer.json", f"no tokenizer: {e}", "copy it again") from None
    full.no_padding()
    full.no_truncation()
    description = json.loads(full.to_str())
    description["added_tokens"] = []
    description["post_processor"] = None
    return full, Tokenizer.from_str(json.dumps(description))


def _special_names(config: dict[str, Any]) -> dict[str, str]:
    """`bos_token` and its like, as the template sees them."""
    names = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"):
        value = config.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            names[name] = value
    return names


def _compile(source: str, where: str) -> Any:
    """The environment of transformers 5.23's `chat_template_utils`, less `strftime_now`: no date enters the tokens."""
    import jinja2
    from jinja2.ext import Extension
    from jinja2.nodes import Node, Scope
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks spans for TRL; here it only passes its body on."""

        tags = {"generation"}

        def parse(self, parser: Parser) -> Node | list[Node]:
            line = next(parser.stream).lineno
            return Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as e:
        raise ConfigError("TPL_SYNTAX", f"{where}:{e.lineno}", str(e.message), "mend the template") from e
