"""What a text may hold, and the stage that makes every text so: clean(rows) -> rows.jsonl + rejects.jsonl.

Controls, surrogates and encodings are judged here for the reader too. Cleaning is NFC, markup, entities and white space
over documents, every turn of an example and the texts in its meta, so that facts still match the answer.
"""

from __future__ import annotations

import html
import re
import unicodedata
from dataclasses import asdict
from pathlib import Path
from typing import Any

from understudy.config import CleanConfig
from understudy.core.records import Document, Example, Ledger, Record, from_line, to_line
from understudy.data.shards import Shard, Task, Workers, cut, join, processes

Notes = dict[str, int]

SURROGATE = re.compile("[\ud800-\udfff]")
BREAKS = re.compile("[\x0b\x0c\x1c-\x1e\x85]")
CONTROLS = re.compile("[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f]")

BLOCK = "p|div|br|hr|li|ul|ol|dl|dt|dd|tr|table|thead|tbody|tfoot|h[1-6]|section|article|header|footer|nav|main|pre"
INLINE = (
    "a|abbr|b|big|blockquote|body|button|caption|center|cite|code|col|del|details|em|figcaption|figure|font|form|head|html"
    "|i|iframe|img|input|ins|kbd|label|link|mark|meta|noscript|option|picture|q|s|samp|select|small|source|span|strike"
    "|strong|sub|summary|sup|svg|td|textarea|th|title|tt|u|var|video"
)
# A tag has a known name and only name=value attributes, so that `a<b and c>d` and `<<48/2=24>>` stay.
TAG_REST = r"""(?:\s+[\w:-]+\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'<>]+))*\s*/?>"""
BLOCK_TAG = re.compile(rf"</?(?:{BLOCK}){TAG_REST}", re.IGNORECASE)
INLINE_TAG = re.compile(rf"</?(?:{INLINE}){TAG_REST}", re.IGNORECASE)
HIDDEN = re.compile(r"<!--.*?-->|<(script|style)\b[^<>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
FENCED = re.compile(r"(```.*?```)", re.DOTALL)
SPACES = re.compile(r"[^\S\n\t ]")
INNER = re.compile(r"(?<=\S)[ \t]{2,}")
TAIL = re.compile(r"[ \t]+$", re.MULTILINE)
EMPTY_LINES = re.compile(r"\n{3,}")
TEXTS_IN_META = ("context", "question", "facts", "answers")


class Fault(Exception):
    """Why one row is refused: a stable code and what was seen. Never leaves the handling of that row."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def context_turn(context: str, question: str) -> str:
    """The user turn of a question about a passage."""
    return f"{context}\n\nQuestion: {question}"


def scrub(value: Any, notes: Notes) -> Any:
    """`value` without control characters (line-like ones become newlines); raises Fault on a lone surrogate."""
    if isinstance(value, str):
        if lone := SURROGATE.search(value):
            raise Fault("TEXT_SURROGATE", f"lone surrogate U+{ord(lone[0]):04X} at character {lone.start() + 1}")
        value, broken = BREAKS.subn("\n", value)
        value, removed = CONTROLS.subn("", value)
        if removed + broken:
            notes["controls_removed"] = notes.get("controls_removed", 0) + removed + broken
        return value
    if isinstance(value, list):
        return [scrub(item, notes) for item in value]
    if isinstance(value, dict):
        return {scrub(key, notes): scrub(item, notes) for key, item in value.items()}
    return value


def guess_wide(head: bytes) -> str:
    """`UTF-16-LE`, `UTF-16-BE` or nothing, by the byte order mark or by where the zero bytes stand."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16-LE" if head[:1] == b"\xff" else "UTF-16-BE"
    even, odd = head[::2].count(0), head[1::2].count(0)
    if 0 in head[:2] and max(even, odd) * 20 >= len(head) and min(even, odd) * 10 <= max(even, odd):
        return "UTF-16-LE" if odd > even else "UTF-16-BE"
    return ""


def guess_encoding(raw: bytes) -> str:
    """A name for the message only. Russian text is mostly lower case: E0-FF in cp1251, C0-DF in KOI8-R."""
    high = [b for b in raw if b >= 0x80]
    letters = sum(1 for b in raw if chr(b).isascii() and chr(b).isalpha()) + len(high)
    if len(high) < 3 or len(high) * 5 < letters:
        return "mostly ASCII with a stray byte, perhaps cp1252"
    upper_half, lower_half = sum(1 for b in high if b >= 0xE0), sum(1 for b in high if 0xC0 <= b < 0xE0)
    if max(upper_half, lower_half) * 2 < len(high):
        return "no known encoding"
    return "it looks like cp1251" if upper_half > lower_half else "it looks like KOI8-R"


def strip_markup(text: str) -> str:
    """`text` without HTML tags, comments and entities; fenced code is left as it is."""
    parts = FENCED.split(text)
    for i in range(0, len(parts), 2):
        part = BLOCK_TAG.sub("\n", HIDDEN.sub("", parts[i]))
        parts[i] = ENTITY.sub(lambda m: html.unescape(m[0]), INLINE_TAG.sub("", part))
    return "".join(parts)


def clean_text(text: str, markup: bool, notes: Notes) -> str:
    """One normalised text: NFC, no controls, LF line ends, single inner spaces, at most one empty line, no margins.

    Each step is tried only where a cheap look finds work for it: 5 µs for 600 characters that need none, where running
    every expression takes 50.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if markup and ("<" in text or "&" in text):
        bare = strip_markup(text)
        if bare != text:
            notes["markup_removed"] = notes.get("markup_removed", 0) + 1
        text = bare
    # Printable are all but controls, surrogates, invisible characters and every white space except the space.
    plain = text.replace("\n", "").replace("\t", "").isprintable()
    if not plain:
        text = str(scrub(text, notes))
    text = unicodedata.normalize("NFC", text)
    if not plain:
        text = SPACES.sub(" ", text)
    if "  " in text or "\t" in text:
        text = INNER.sub(" ", text)
    if " \n" in text or "\t\n" in text:
        text = TAIL.sub("", text)
    if "\n\n\n" in text:
        text = EMPTY_LINES.sub("\n\n", text)
    return text.strip()


def letters_only(text: str) -> str:
    """`text` without what is neither letter, mark, punctuation nor white space (general categories L, M, P, Z)."""
    kept = "".join(c for c in text if unicodedata.category(c)[0] in "LMPZ" or c in "\n\t")
    return TAIL.sub("", INNER.sub(" ", kept)).strip()


def clean(cfg: CleanConfig, rows: Path, out: Path) -> Ledger:
    """Normalise the records of `rows`; reasons TEXT_BLANK, TEXT_SHORT, TEXT_LONG and TEXT_SURROGATE.

    Shard by shard in `cfg.workers` processes; memory does not grow with the file.
    """
    out.mkdir(parents=True, exist_ok=True)
    ledger, settings = Ledger(), cfg.model_dump(mode="json")
    tasks = [
        {"settings": settings, "rows": str(rows), "shard": shard, "part": str(out / f"part-{i:06}")}
        for i, shard in enumerate(cut(rows))
    ]
    with Workers(processes(rows, cfg.workers)) as workers:
        for counts in workers.map(clean_shard, tasks):
            ledger.add(Ledger(**counts))
    for kind in ("rows", "rejects"):
        join([Path(f"{task['part']}.{kind}") for task in tasks], out / f"{kind}.jsonl")
    return ledger


def clean_shard(task: Task) -> dict[str, Any]:
    """One shard's rows and rejects into two files; returns the ledger's fields."""
    cfg, ledger = CleanConfig(**task["settings"]), Ledger()
    with open(f"{task['part']}.rows", "wb") as kept, open(f"{task['part']}.rejects", "wb") as rejects:
        for line in Shard(*task["shard"]).lines(Path(task["rows"])):
            ledger.rows_in += 1
            record = from_line(line)
            try:
                changed = _clean_record(record, cfg, ledger.notes)
                _check_length(record, cfg)
            except Fault as fault:
                ledger.reject(fault.reason)
                rejects.write(to_line({"where": record.id, "reason": fault.reason, "detail": fault.detail}))
                continue
            if changed:
                ledger.note("changed")
            ledger.rows_out += 1
            same = not changed and record.meta.keys().isdisjoint(TEXTS_IN_META)
            kept.write(line if same else to_line(record))
    return asdict(ledger)


def _clean_record(record: Record, cfg: CleanConfig, notes: Notes) -> bool:
    """Clean a record in place; true when a text changed."""

    def tidy(text: str) -> str:
        return clean_text(text, cfg.strip_markup, notes)

    meta = record.meta
    if isinstance(record, Document):
        before = record.text
        record.text = _allowed(tidy(before), cfg, notes)
        changed = record.text != before
    else:
        turns = [turn["content"] for turn in record.messages]
        composed = context_turn(str(meta.get("context")), str(meta.get("question")))
        composed_at = {i for i, text in enumerate(turns) if "context" in meta and text == composed}
        for turn in record.messages:
            turn["content"] = tidy(turn["content"])
        # Cleaned apart and put together again: white space at the seam must not make turn and meta differ.
        for i in composed_at:
            record.messages[i]["content"] = context_turn(tidy(meta["context"]), tidy(meta["question"]))
        if record.answer is not None:
            record.messages[-1]["content"] = _allowed(record.answer, cfg, notes)
        changed = turns != [turn["content"] for turn in record.messages]
    for key in TEXTS_IN_META[:2]:
        if isinstance(meta.get(key), str):
            meta[key] = tidy(meta[key])
    for key in TEXTS_IN_META[2:]:
        if isinstance(meta.get(key), list):
            meta[key] = [text for text in map(tidy, meta[key]) if text]
    return changed


def _allowed(text: str, cfg: CleanConfig, notes: Notes) -> str:
    if cfg.characters == "any":
        return text
    bare = letters_only(text)
    if bare != text:
        notes["characters_removed"] = notes.get("characters_removed", 0) + 1
    return bare


def _check_length(record: Record, cfg: CleanConfig) -> None:
    texts = [record.text] if isinstance(record, Document) else [turn["content"] for turn in record.messages]
    for i, text in enumerate(texts):
        if not text:
            raise Fault("TEXT_BLANK", "nothing is left of the text" if len(texts) == 1 else f"turn {i} is blank")
    if len(texts[-1]) < cfg.min_chars:
        raise Fault("TEXT_SHORT", f"{len(texts[-1])} characters; min_chars is {cfg.min_chars}")
    if isinstance(record, Example) and cfg.max_answer_chars and len(texts[-1]) > cfg.max_answer_chars:
        raise Fault("TEXT_LONG", f"{len(texts[-1])} characters of answer; max_answer_chars is {cfg.max_answer_chars}")
    if (total := sum(map(len, texts))) > cfg.max_chars:
        raise Fault("TEXT_LONG", f"{total} characters; max_chars is {cfg.max_chars}")
