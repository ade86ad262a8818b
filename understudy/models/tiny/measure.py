"""Measures an exported tiny base: exact answers about unseen names per question kind, few-shot gain, speed.

The model is read back from its files in float32, so that the export's rounding is part of what is measured.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from understudy.models.tiny import fluency
from understudy.models.tiny.intervals import share
from understudy.models.tiny.languages import Language
from understudy.models.tiny.rows import Row
from understudy.models.tiny.tokenizer import load as load_tokenizer


def load(directory: Path) -> tuple[Any, Any]:
    """Model (float32, eval mode) and tokenizer of an exported base."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory, padding_side="left")
    return AutoModelForCausalLM.from_pretrained(directory, dtype="float32").eval(), tokenizer


def answers(model: Any, tokenizer: Any, rows: list[Row], batch_size: int = 64) -> list[str]:
    """Greedy answers to each row's last question, in the rows' order."""
    import torch

    prompts = [
        tokenizer.apply_chat_template(row.messages[:-1], add_generation_prompt=True, tokenize=False) for row in rows
    ]
    order = sorted(range(len(rows)), key=lambda index: len(prompts[index]))
    found = [""] * len(rows)
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        batch = tokenizer(
            [prompts[index] for index in chunk], return_tensors="pt", padding=True, add_special_tokens=False
        )
        with torch.inference_mode():
            out = model.generate(**batch.to(model.device), max_new_tokens=80, do_sample=False)  # (batch, seq) int64
        texts = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        for index, text in zip(chunk, texts, strict=True):
            found[index] = text.strip()
    return found


def per_kind(model: Any, tokenizer: Any, language: Language, seed: int, count: int) -> dict[str, dict[str, Any]]:
    """Share of full sentences that are exactly right, per question kind and over all."""
    results: dict[str, dict[str, Any]] = {}
    for kind in language.kinds:
        rows = language.evaluation_rows(seed, kind, count)
        found = answers(model, tokenizer, rows)
        results[kind] = share(sum(a == row.messages[-1]["content"] for a, row in zip(found, rows, strict=True)), count)
    results["all"] = share(sum(one["exact"] for one in results.values()), count * len(language.kinds))
    return results


def few_shot(
    model: Any, tokenizer: Any, language: Language, seed: int, count: int, shots: tuple[int, ...] = (0, 1, 2, 4)
) -> dict[str, Any]:
    """Answers in a made-up format after k examples: exact, and holding the right value in whatever words."""
    results: dict[str, Any] = {}
    for k in shots:
        rows = language.shots_rows(seed, k, count)
        found = answers(model, tokenizer, rows, batch_size=16)
        exact = sum(a == row.messages[-1]["content"] for a, row in zip(found, rows, strict=True))
        right = sum(all(value in a for value in row.values) for a, row in zip(found, rows, strict=True))
        results[f"k={k}"] = share(exact, count) | {"value_right": round(right / count, 4)}
    return results


def speed(model: Any, tokenizer: Any, language: Language, seed: int, batch_size: int = 32) -> float:
    """Generated tokens per second of one batch, 48 tokens each, prompts included in the time."""
    import torch

    rows = language.evaluation_rows(seed, "who", batch_size)
    prompts = [
        tokenizer.apply_chat_template(row.messages[:-1], add_generation_prompt=True, tokenize=False) for row in rows
    ]
    batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    with torch.inference_mode():
        model.generate(**batch, max_new_tokens=4, min_new_tokens=4, do_sample=False)
        start = time.perf_counter()
        model.generate(**batch, max_new_tokens=48, min_new_tokens=48, do_sample=False)
    return round(batch_size * 48 / (time.perf_counter() - start), 1)


def measure(directory: Path, language: Language, seed: int = 20_000, count: int = 200) -> dict[str, Any]:
    """All figures of one exported base; free texts where the language has them."""
    model, tokenizer = load(directory)
    figures = {
        "kinds": per_kind(model, tokenizer, language, seed, count),
        "few_shot": few_shot(model, tokenizer, language, seed, count),
        "generation_tokens_per_s_batch_32": speed(model, tokenizer, language, seed),
    }
    if language.prose_rows:
        figures["prose"] = fluency.measure(model, tokenizer, language, seed, count)
        figures["vocabularies"] = fluency.vocabularies(language, load_tokenizer(directory))
    return figures
