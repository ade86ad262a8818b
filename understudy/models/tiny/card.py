"""Writes the tiny base's model card from measured figures; no number in it is typed by hand."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from understudy.models.tiny.tokenizer import POSITIONS


def machine(workers: int) -> str:
    """Processor name, cores and processes used; no host name, no path."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        name = names[0] if names else name
    return f"{name}, {os.cpu_count()} cores, {workers} training processes"


def _row(name: str, one: dict[str, Any]) -> str:
    value = f" | {one['value_right']}" if "value_right" in one else ""
    return f"| {name} | {one['exact']} | {one['n']} | {one['share']} | {one['low']} to {one['high']}{value} |"


# The lines break where the published cards break them.
_WORDS = {
    "en": {
        "title": "understudy tiny base",
        "does": """in English sentences of the kind it was
trained on. It knows nothing about the world. It exists so that fine-tuning on a CPU means something within a minute;
any other base replaces it by its path or hub id.""",
        "text": """Only text written by `understudy/models/tiny/text.py` (seeded): no third-party text, no personal \
data. Names are made of
random syllables and pieces of words. Words and numbers of the evaluation are held out of training by their \
checksum.""",
        "option": "",
    },
    "ru": {
        "title": "understudy tiny base, Russian",
        "does": """and writes short free texts, in
Russian sentences of the kind it was trained on. It knows nothing about the world, and its free texts are grammatical
rather than sensible. It exists so that fine-tuning on a CPU means something within a minute or two. In a configuration:
`base.path: tiny-ru`.""",
        "text": """Only text written by `understudy/models/tiny/russian/` (seeded): word lists, declension tables and
sentence templates made for this project; no third-party text, no personal data. Names are made of random syllables and
pieces of words and stand in the nominative. Words and numbers of the questions, and prompts of the free texts, that
measure are held out of training by their checksum.""",
        "option": "--language ru ",
    },
}


def write(figures: dict[str, Any]) -> str:
    """The card as Markdown."""
    recipe = figures["recipe"]
    code = recipe.get("language", "en")
    say = _WORDS[code]
    return f"""---
license: apache-2.0
language: {code}
library_name: transformers
pipeline_tag: text-generation
---
# {say["title"]}

**A fixture, not a product.** It answers short questions from a short context, {say["does"]}

Architecture: Qwen2, {figures["parameters"]} parameters, tied embeddings, byte-level BPE of {recipe["vocab_size"]}
tokens, {POSITIONS} positions, float16. Template: ChatML, no default system prompt.

## Data

{say["text"]}

{_training(figures)}
{_measured(figures)}
{_prose(figures["prose"]) if "prose" in figures else ""}{_vocabularies(figures) if "vocabularies" in figures else ""}\
## Made by

{_commands(figures, say["option"])}
({_end(figures)}).
"""


def _end(figures: dict[str, Any]) -> str:
    if figures["recipe"].get("steps"):
        return "the step count ends the run; other processors round differently, so another machine gets another model"
    return "the time given, not the step count, ends the run: another machine gets another model"


def _commands(figures: dict[str, Any], option: str) -> str:
    recipe = figures["recipe"]
    parts = figures.get("parts", [figures["minutes"]])
    command = "`python -m understudy.models.tiny.pretrain {}--minutes {} --out DIR --seed {}{}`"
    went_on = f" --start-at {recipe.get('start_at')}" + (f" --steps {recipe['steps']}" if recipe.get("steps") else "")
    first = f" --steps {recipe['steps']}" if recipe.get("steps") and len(parts) == 1 else ""
    starts = [first, *(went_on for _ in parts[1:])]
    lines = [
        command.format(option, round(minutes), recipe["seed"], start)
        for minutes, start in zip(parts, starts, strict=True)
    ]
    return "\nand then\n".join(lines)


def _prose(prose: dict[str, Any]) -> str:
    model, writer = prose["model"], prose["writer"]
    rows = "\n".join(
        f"| {name} | {one['share']} | {one['low']} to {one['high']} | {writer[name]['share']} |"
        for name, one in model.items()
        if isinstance(one, dict)
    )
    samples = "\n\n".join(f"> {one['prompt']}\n\n{one['text']}" for one in prose["samples"])
    return f"""## Free texts

{prose["n"]} texts at temperature 0.8, top_p 0.95 on prompts that training cannot hold, beside what the writer of the
training text itself makes of these prompts; {prose["training_texts"]} training texts were searched for common runs of
words.

| share of texts (of words: real words) | model | interval | writer |
|---|---|---|---|
{rows}

Distinct-2 {model["distinct_2"]} (writer {writer["distinct_2"]}); longest run of words shared with a training text,
median over texts: {model["median_longest_run_words"]} (writer {writer["median_longest_run_words"]}; runs under 8 count
as 0).
"Real" means a word form that the writer can make, or a word of the prompt.

{samples}

"""


def _vocabularies(figures: dict[str, Any]) -> str:
    found = figures["vocabularies"]
    code = figures["recipe"]["language"]
    rows = "\n".join(
        f"| shared, {size} tokens | {cost['en']} ({_more(cost['en'], found['own']['en'])}) "
        f"| {cost[code]} ({_more(cost[code], found['own'][code])}) |"
        for size, cost in found["joint"].items()
    )
    sizes = found["own_size"]
    return f"""## Why a base of its own

Tokens for 1000 characters of unseen text, with a vocabulary of each language's own and with one for both. Every token
more is time and memory in training and in answers; every entry more is work at each token that is written. A shared
base would also divide the minutes of one pretraining between two languages, and no figure of the English base would
hold any more: it stays as it was measured.

| vocabulary | English | {code} |
|---|---|---|
| own ({sizes["en"]} and {sizes[code]} tokens) | {found["own"]["en"]} | {found["own"][code]} |
{rows}

"""


def _more(cost: float, own: float) -> str:
    return f"{100 * (cost / own - 1):+.0f} %"


def _training(figures: dict[str, Any]) -> str:
    last = figures["curve"][-1] if figures["curve"] else {}
    curve = figures["curve"][:: max(len(figures["curve"]) // 12, 1)]
    losses = "\n".join(
        f"| {p['minutes']} | {p['tokens']} | {p['level']} | {p['loss']} | {p['token_accuracy']} |" for p in curve
    )
    settings = "\n".join(f"| `{name}` | {value} |" for name, value in figures["recipe"].items())
    return f"""## Training

{figures["minutes"]} minutes on {figures["machine"]} ({figures["device"]}).
{figures["tokens"]} tokens in {figures["rows"]} rows, {figures["supervised_tokens"]} of them supervised (assistant
turns only); {figures["optimizer_steps"]} optimizer steps, {figures["tokens_per_s"]} tokens/s;
torch {figures["versions"]["torch"]}, transformers {figures["versions"]["transformers"]}.
Last logged training loss {last.get("loss")}, token accuracy {last.get("token_accuracy")}.

| minutes | tokens | level of the text | loss | token accuracy |
|---|---|---|---|---|
{losses}

| setting | value |
|---|---|
{settings}
"""


def _measured(figures: dict[str, Any]) -> str:
    kinds = "\n".join(_row(kind, one) for kind, one in figures["kinds"].items())
    shots = "\n".join(_row(k, one) for k, one in figures["few_shot"].items())
    return f"""## Measured

From the exported files, read back in float32; greedy; the whole sentence must be exactly right. Made-up words, codes
and decimals were never in training. Interval: 95 %, Wilson.

| question kind | exact | n | share | interval |
|---|---|---|---|---|
{kinds}

After k worked examples in a made-up answer format that was never in training (k=0 cannot know the format):

| examples | exact | n | share | interval | right value, any format |
|---|---|---|---|---|---|
{shots}

Generation: {figures["generation_tokens_per_s_batch_32"]} tokens/s for a batch of 32 on the same machine.
"""
