"""Measures an exported tiny base: exact answers about unseen names per question kind, few-shot gain, speed.

The model is read back from its files in float32, so that the export's rounding is part of what is measured.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from understudy.models.tiny.text import KINDS, Row, evaluation_rows, shots_rows


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    if not count:
        return 0.0, 1.0
    z, share = 1.959964, hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


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


def _share(hits: int, count: int) -> dict[str, Any]:
    low, high = wilson(hits, count)
    return {"exact": hits, "n": count, "share": round(hits / count, 4), "low": round(low, 4), "high": round(high, 4)}


def per_kind(model: Any, tokenizer: Any, seed: int, count: int) -> dict[str, dict[str, Any]]:
    """Share of full sentences that are exactly right, per question kind and over all."""
    results: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        rows = evaluation_rows(seed, kind, count)
        found = answers(model, tokenizer, rows)
        results[kind] = _share(sum(a == row.messages[-1]["content"] for a, row in zip(found, rows, strict=True)), count)
    results["all"] = _share(sum(one["exact"] for one in results.values()), count * len(KINDS))
    return results


def few_shot(
    model: Any, tokenizer: Any, seed: int, count: int, shots: tuple[int, ...] = (0, 1, 2, 4)
) -> dict[str, Any]:
    """Answers in a made-up format after k examples: exact, and holding the right value in whatever words."""
    results: dict[str, Any] = {}
    for k in shots:
        rows = shots_rows(seed, k, count)
        found = answers(model, tokenizer, rows, batch_size=16)
        exact = sum(a == row.messages[-1]["content"] for a, row in zip(found, rows, strict=True))
        right = sum(all(value in a for value in row.values) for a, row in zip(found, rows, strict=True))
        results[f"k={k}"] = _share(exact, count) | {"value_right": round(right / count, 4)}
    return results


def speed(model: Any, tokenizer: Any, seed: int, batch_size: int = 32) -> float:
    """Generated tokens per second of one batch, 48 tokens each, prompts included in the time."""
    import torch

    rows = evaluation_rows(seed, "who", batch_size)
    prompts = [
        tokenizer.apply_chat_template(row.messages[:-1], add_generation_prompt=True, tokenize=False) for row in rows
    ]
    batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    with torch.inference_mode():
        model.generate(**batch, max_new_tokens=4, min_new_tokens=4, do_sample=False)
        start = time.perf_counter()
        model.generate(**batch, max_new_tokens=48, min_new_tokens=48, do_sample=False)
    return round(batch_size * 48 / (time.perf_counter() - start), 1)


def measure(directory: Path, seed: int = 20_000, count: int = 200) -> dict[str, Any]:
    """All figures of one exported base."""
    model, tokenizer = load(directory)
    return {
        "kinds": per_kind(model, tokenizer, seed, count),
        "few_shot": few_shot(model, tokenizer, seed, count),
        "generation_tokens_per_s_batch_32": speed(model, tokenizer, seed),
    }
