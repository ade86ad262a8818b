"""One model answers one prompt set under one or more settings; every answer is kept.

A setting is how an answer was decoded: `greedy`, `t=0.7,p=0.9`, or `k=4` with four pairs shown as earlier turns.
Local models also say how likely they find the reference answer.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.config import AnswerConfig, Decoding
from understudy.core.records import Example, Ledger, write_jsonl
from understudy.errors import UnderstudyError
from understudy.models.base import Answer, Model, Sampling

Progress = Callable[[int, int], None]
TOO_LONG = "context_length_exceeded"
NOTED = {TOO_LONG: "prompt_too_long", "content_filter": "refused", "refused": "refused"}
"""Why an answer is empty -> its note in the ledger."""


@dataclass(frozen=True, slots=True)
class _Setting:
    """A name, the chats to answer (shots in front), and how often each is sampled."""

    name: str
    examples: list[Example]
    samples: int
    temperature: float
    top_p: float


def answer(
    cfg: AnswerConfig,
    model: Model,
    prompts: list[Example],
    out: Path,
    *,
    name: str,
    shots: dict[int, list[Example]] | None = None,
    progress: Progress | None = None,
) -> Ledger:
    """Write answers.jsonl, answers.json and measured.json to `out`; the ledger counts answers.

    With `shots`, one setting `k=N` per key; one whose shots do not fit the model's context is left out and counted in
    `notes["shots_too_long"]`; when none fits, the prompts are answered as they are, as `k=0`. A prompt that is longer
    than a local model's context gets an empty answer, counted in `notes["prompt_too_long"]`. `progress(answers, of)` is
    called after each batch.
    """
    out.mkdir(parents=True, exist_ok=True)
    settings = _settings(cfg, prompts, shots)
    ledger = Ledger()
    fitting = [s for s in settings if shots is None or _fits(cfg, model, s.examples)]
    if shots is not None and not fitting:
        fitting = [_setting(cfg, "k=0", prompts)]
    total = sum(len(s.examples) * s.samples for s in fitting)
    rows: list[dict[str, Any]] = []
    measured: dict[str, Any] = {}
    names = []
    for setting in fitting:
        start = time.monotonic()
        new: list[dict[str, Any]] = []
        try:
            for part in _answers(cfg, model, setting):
                new += part
                if progress:
                    progress(len(rows) + len(new), total)
        except UnderstudyError as e:
            if shots is None or e.code != TOO_LONG:
                raise
            continue
        seconds = time.monotonic() - start
        tokens = {kind: sum(row[kind] for row in new) for kind in ("prompt_tokens", "completion_tokens")}
        speed = tokens["completion_tokens"] / max(seconds, 1e-9)
        measured[setting.name] = {"seconds": seconds, "tokens_per_second": speed, "answers": len(new), **tokens}
        rows += new
        names.append(setting.name)
    if dropped := len({s.name for s in settings} - set(names)):
        ledger.note("shots_too_long", dropped)
    for reason, note in NOTED.items():
        if count := sum(row["finish_reason"] == reason for row in rows):
            ledger.note(note, count)
    ledger.rows_in = ledger.rows_out = write_jsonl(out / "answers.jsonl", rows)
    about = {"model": name, "identity": model.identity, "settings": names}
    for file, value in (("answers.json", about), ("measured.json", measured)):
        text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        (out / file).write_text(text, encoding="utf-8")
    return ledger


def choose_shots(seeds: list[Example], k: int, seed: int) -> list[Example]:
    """The first k answered examples, round robin over categories in random order, so that a smaller k is a prefix."""
    draw = random.Random(seed)
    piles: dict[str, list[Example]] = {}
    for example in sorted(seeds, key=lambda e: e.id):
        if example.answer is not None:
            piles.setdefault(str(example.meta.get("category", "")), []).append(example)
    order = [piles[category] for category in sorted(piles)]
    draw.shuffle(order)
    for pile in order:
        draw.shuffle(pile)
    rounds = [pile[i] for i in range(max(map(len, order), default=0)) for pile in order if i < len(pile)]
    return rounds[:k]


def with_shots(prompt: Example, shots: Sequence[Example]) -> Example:
    """The prompt with shots as earlier turns; a system turn of the prompt stays first, those of shots are dropped."""
    system = [m for m in prompt.messages[:1] if m["role"] == "system"]
    turns = [m for shot in shots for m in shot.messages if m["role"] != "system"]
    return Example(prompt.id, system + turns + prompt.messages[len(system) :], prompt.meta)


def _settings(cfg: AnswerConfig, prompts: list[Example], shots: dict[int, list[Example]] | None) -> list[_Setting]:
    if shots is not None:
        ordered = sorted(shots.items())
        return [_setting(cfg, f"k={k}", [with_shots(p, chosen) for p in prompts]) for k, chosen in ordered]
    decodings = cfg.grid or [Decoding(temperature=cfg.temperature, top_p=cfg.top_p)]
    named = {decoding_name(d): d for d in decodings}
    return [_setting(cfg.model_copy(update=d.model_dump()), name, prompts) for name, d in named.items()]


def _setting(cfg: AnswerConfig, name: str, examples: list[Example]) -> _Setting:
    samples = cfg.samples if cfg.temperature > 0 else 1
    return _Setting(name, examples, samples, cfg.temperature, cfg.top_p)


def decoding_name(decoding: Decoding) -> str:
    """`greedy` or `t=0.7,p=0.9`: the setting of answers that were drawn so."""
    t, p = decoding.temperature, decoding.top_p
    return f"t={t:g},p={p:g}" if t > 0 else "greedy"


def decoding_of(setting: str) -> Decoding:
    """The decoding that a setting names."""
    if setting == "greedy":
        return Decoding()
    t, p = setting.removeprefix("t=").split(",p=")
    return Decoding(temperature=float(t), top_p=float(p))


def _fits(cfg: AnswerConfig, model: Model, examples: list[Example]) -> bool:
    """Whether each prompt leaves room for an answer and its reference; a service says so on answering."""
    if not (hasattr(model, "context") and hasattr(model, "prompt_tokens")):
        return True
    return all(
        model.prompt_tokens(e.prompt) + cfg.max_new_tokens <= model.context
        and model.prompt_tokens(e.messages) <= model.context
        for e in examples
    )


def _generate(model: Model, part: list[Example], sampling: Sampling) -> list[Answer]:
    """An answer for each example; an empty one where a local model's context is too short for the prompt."""
    if not (hasattr(model, "context") and hasattr(model, "prompt_tokens")):
        return model.generate([e.prompt for e in part], sampling)
    lengths = [model.prompt_tokens(e.prompt) for e in part]
    fitting = [e.prompt for e, length in zip(part, lengths, strict=True) if length < model.context]
    given = iter(model.generate(fitting, sampling) if fitting else [])
    return [next(given) if length < model.context else Answer("", TOO_LONG, length, 0) for length in lengths]


def _answers(cfg: AnswerConfig, model: Model, setting: _Setting) -> Iterator[list[dict[str, Any]]]:
    """Rows of answers.jsonl, some batches at a time; all samples of a prompt follow each other."""
    losses: Callable[[Sequence[Example]], list[tuple[float, int]]] | None = getattr(model, "reference_losses", None)
    size = cfg.batch_size * 4  # some batches, so that a local model can sort prompts by length
    for start in range(0, len(setting.examples), size):
        part = setting.examples[start : start + size]
        drawn: list[list[Answer]] = []
        for sample in range(setting.samples):
            seed = cfg.seed * 1_000_003 + sample
            sampling = Sampling(cfg.max_new_tokens, setting.temperature, setting.top_p, seed)
            drawn.append(_generate(model, part, sampling))
        references = losses(part) if losses else [None] * len(part)
        yield [
            {
                "id": example.id,
                "setting": setting.name,
                "sample": sample,
                "text": given.text,
                "finish_reason": given.finish_reason,
                "prompt_tokens": given.prompt_tokens,
                "completion_tokens": given.completion_tokens,
                "loss_sum": None if reference is None else round(reference[0], 4),  # nats; batches move the next digit
                "loss_tokens": None if reference is None else reference[1],
            }
            for i, (example, reference) in enumerate(zip(part, references, strict=True))
            for sample, given in enumerate(answers[i] for answers in drawn)
        ]
