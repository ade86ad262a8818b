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


def write(figures: dict[str, Any]) -> str:
    """The card as Markdown."""
    recipe = figures["recipe"]
    return f"""---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
# understudy tiny base

**A fixture, not a product.** It answers short questions from a short context, in English sentences of the kind it was
trained on. It knows nothing about the world. It exists so that fine-tuning on a CPU means something within a minute;
any other base replaces it by its path or hub id.

Architecture: Qwen2, {figures["parameters"]} parameters, tied embeddings, byte-level BPE of {recipe["vocab_size"]}
tokens, {POSITIONS} positions, float16. Template: ChatML, no default system prompt.

## Data

Only text written by `understudy/models/tiny/text.py` (seeded): no third-party text, no personal data. Names are made of
random syllables and pieces of words. Words and numbers of the evaluation are held out of training by their checksum.

{_training(figures)}
{_measured(figures)}
## Made by

`python -m understudy.models.tiny.pretrain --minutes {round(figures["minutes"])} --out DIR --seed {recipe["seed"]}`
(the time given, not the step count, ends the run: another machine gets another model).
"""


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
